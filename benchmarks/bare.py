"""Workflows that do nothing in the shape of a payment: the floor that Temporal itself sets.

`SameShape` has what the plain paid journey has: two activities on a gateway's own queue, an
update answered after the first, a timer, a signal, two upserts of search attributes, the same
time-outs. `Plain` has two activities on the workflow's own queue and neither timer nor attributes.
`RefundShape` has what the plain refund has: one activity on the workflow's own queue and two on a
gateway's, an update answered after the second, its timer, a signal, two upserts. `BareSpend` has
what a spend of points has: one activity on the workflow's own queue, an update answered after it.
`RenewalShape` has what a renewal by a saved method has: a timer, an activity on the workflow's own
queue, a child (`ChargeShape`: one activity on a gateway's queue, an upsert, a signal back), a timer
for the signal lost, an activity, an upsert.
"""

import contextlib
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict
from temporalio import activity, workflow
from temporalio.common import RetryPolicy, SearchAttributePair, TypedSearchAttributes

from billing.payment import GatewayName, PaymentStatus
from billing.refund import RefundStatus
from runtime import attributes
from runtime.queues import gateway_queue
from workflows.policies import CallPolicy

QUEUE: Final = "bare"
PLAIN_QUEUE: Final = "bare-plain"

_START_TO_CLOSE: Final = timedelta(seconds=30)
_SCHEDULE_TO_CLOSE: Final = timedelta(minutes=30)
_POLL_DELAY: Final = timedelta(seconds=5)
_PATIENCE: Final = timedelta(seconds=7)
_TASK: Final = timedelta(seconds=5)
_LOST: Final = timedelta(hours=1)
_CALL: Final[CallPolicy] = {
    "start_to_close_timeout": _START_TO_CLOSE,
    "heartbeat_timeout": timedelta(seconds=3),
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=1)),
}


def bare_queue(gateway: GatewayName) -> str:
    """Beside the gateway's own queue, with workers of its own."""
    return f"bare-{gateway_queue(gateway)}"


class Work(BaseModel):
    """All that a bare workflow is told, and all that it says."""

    model_config = ConfigDict(frozen=True)

    id: str
    gateway: GatewayName


class BareMovement(BaseModel):
    """All that a bare spend is told, and all that it says."""

    model_config = ConfigDict(frozen=True)

    id: str
    points: int


class BareDue(BaseModel):
    """All that a bare renewal is told: what is charged, and when."""

    model_config = ConfigDict(frozen=True)

    work: Work
    due_at: datetime


class BareActivities:
    @activity.defn(name="bare.reserve")
    async def reserve(self, work: Work) -> Work:
        return work

    @activity.defn(name="bare.open")
    async def open(self, work: Work) -> Work:
        return work

    @activity.defn(name="bare.settle")
    async def settle(self, work: Work) -> Work:
        return work

    @activity.defn(name="bare.spend")
    async def spend(self, movement: BareMovement) -> BareMovement:
        return movement


@workflow.defn(name="SameShape")
class SameShape:
    @workflow.init
    def __init__(self, work: Work) -> None:
        self._opened: Work | None = None
        self._reported = False

    @workflow.run
    async def run(self, work: Work) -> Work:
        opened = await workflow.execute_activity_method(
            BareActivities.open,
            work,
            task_queue=bare_queue(work.gateway),
            schedule_to_close_timeout=_SCHEDULE_TO_CLOSE,
            **_CALL,
        )
        workflow.upsert_search_attributes(
            [attributes.BILLING_STATUS.value_set(PaymentStatus.REQUIRES_ACTION.value)]
        )
        self._opened = opened
        while not self._reported:
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._reported, timeout=_POLL_DELAY)
        settled = await workflow.execute_activity_method(
            BareActivities.settle,
            opened,
            task_queue=bare_queue(work.gateway),
            schedule_to_close_timeout=_SCHEDULE_TO_CLOSE,
            **_CALL,
        )
        workflow.upsert_search_attributes(
            [
                attributes.BILLING_STATUS.value_set(PaymentStatus.SUCCEEDED.value),
                attributes.GATEWAY_REFERENCE.value_set(settled.id),
            ]
        )
        return settled

    @workflow.update
    async def create(self, work: Work) -> Work:
        await workflow.wait_condition(lambda: self._opened is not None)
        return work

    @workflow.signal
    def reported(self, work: Work) -> None:
        self._reported = True


@workflow.defn(name="RefundShape")
class RefundShape:
    @workflow.init
    def __init__(self, work: Work) -> None:
        self._reserved = False
        self._asked = False
        self._reported = False

    @workflow.run
    async def run(self, work: Work) -> Work:
        reserved = await workflow.execute_activity_method(
            BareActivities.reserve,
            work,
            **_CALL,
        )
        self._reserved = True
        workflow.upsert_search_attributes(
            [
                attributes.BILLING_STATUS.value_set(RefundStatus.PENDING.value),
                attributes.NEEDS_ATTENTION.value_set(False),
            ]
        )
        asked = await workflow.execute_activity_method(
            BareActivities.open,
            reserved,
            task_queue=bare_queue(work.gateway),
            **_CALL,
        )
        workflow.upsert_search_attributes(
            [
                attributes.BILLING_STATUS.value_set(RefundStatus.SUCCEEDED.value),
                attributes.NEEDS_ATTENTION.value_set(False),
            ]
        )
        self._asked = True
        while not self._reported:
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._reported, timeout=_POLL_DELAY)
        return await workflow.execute_activity_method(
            BareActivities.settle,
            asked,
            task_queue=bare_queue(work.gateway),
            **_CALL,
        )

    @workflow.update
    async def create(self, work: Work) -> Work:
        await workflow.wait_condition(lambda: self._reserved)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._asked, timeout=_PATIENCE)
        return work

    @workflow.signal
    def reported(self, work: Work) -> None:
        self._reported = True


@workflow.defn(name="Plain")
class Plain:
    @workflow.init
    def __init__(self, work: Work) -> None:
        self._opened = False
        self._reported = False

    @workflow.run
    async def run(self, work: Work) -> Work:
        opened = await workflow.execute_activity_method(
            BareActivities.open, work, start_to_close_timeout=_START_TO_CLOSE
        )
        self._opened = True
        await workflow.wait_condition(lambda: self._reported)
        return await workflow.execute_activity_method(
            BareActivities.settle, opened, start_to_close_timeout=_START_TO_CLOSE
        )

    @workflow.update
    async def create(self, work: Work) -> Work:
        await workflow.wait_condition(lambda: self._opened)
        return work

    @workflow.signal
    def reported(self, work: Work) -> None:
        self._reported = True


@workflow.defn(name="BareSpend")
class BareSpend:
    @workflow.init
    def __init__(self, movement: BareMovement) -> None:
        self._spent: BareMovement | None = None

    @workflow.run
    async def run(self, movement: BareMovement) -> BareMovement:
        self._spent = await workflow.execute_activity_method(
            BareActivities.spend,
            movement,
            **_CALL,
        )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._spent

    @workflow.update
    async def create(self, movement: BareMovement) -> BareMovement:
        await workflow.wait_condition(lambda: self._spent is not None)
        return movement


@workflow.defn(name="ChargeShape")
class ChargeShape:
    @workflow.run
    async def run(self, work: Work) -> Work:
        charged = await workflow.execute_activity_method(
            BareActivities.open,
            work,
            task_queue=bare_queue(work.gateway),
            schedule_to_close_timeout=_SCHEDULE_TO_CLOSE,
            **_CALL,
        )
        workflow.upsert_search_attributes(
            [
                attributes.BILLING_STATUS.value_set(PaymentStatus.SUCCEEDED.value),
                attributes.GATEWAY_REFERENCE.value_set(charged.id),
            ]
        )
        parent = workflow.info().parent
        assert parent is not None, "a charge of no renewal"
        handle = workflow.get_external_workflow_handle(parent.workflow_id)
        await handle.signal(RenewalShape.charged, charged)
        return charged


@workflow.defn(name="RenewalShape")
class RenewalShape:
    @workflow.init
    def __init__(self, due: BareDue) -> None:
        self._is_charged = False

    @workflow.run
    async def run(self, due: BareDue) -> Work:
        work = due.work
        await workflow.sleep(max(due.due_at - workflow.now(), timedelta(0)))
        written = await self._write(work)
        await workflow.start_child_workflow(
            ChargeShape.run,
            written,
            id=f"{work.id}/charge",
            task_timeout=_TASK,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(attributes.BILLING_STATUS, PaymentStatus.CREATED.value),
                    SearchAttributePair(attributes.GATEWAY, work.gateway.value),
                ]
            ),
        )
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._is_charged, timeout=_LOST)
        ended = await self._write(written)
        workflow.upsert_search_attributes(
            [attributes.NEXT_CHARGE_AT.value_set(due.due_at + timedelta(days=30))]
        )
        return ended

    @workflow.signal
    def charged(self, work: Work) -> None:
        self._is_charged = True

    async def _write(self, work: Work) -> Work:
        return await workflow.execute_activity_method(
            BareActivities.reserve,
            work,
            **_CALL,
        )
