"""What a subscription's workflow asks of record and gateways, and what it knows by the answers."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, FailureError, WorkflowAlreadyStartedError

from activities.preparing import PreparingActivities
from activities.subscription import SubscriptionActivities
from billing.charges import Move, Wanted, announced_after, order_of
from billing.decisions import credited
from billing.identifiers import charge_payment_id
from billing.messages import PaymentEnded
from billing.moves import ahead_due, is_above_announced, rescheduled, start_of, when_due
from billing.payment import PaymentMethod
from billing.subscription import StepKind, Subscription
from billing.subscription_messages import (
    Announced,
    Charge,
    FindReturns,
    OpenSubscription,
    PrepareCharge,
    PreparedCharge,
    ReadSubscription,
    SubscriptionStanding,
    SubscriptionStart,
    WriteSubscription,
)
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from workflows import policies
from workflows.payment import PaymentWorkflow
from workflows.returns import start_returns

_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)
_ASKED_AGAIN: Final = "mandate-asked-again"
"""Histories recorded before have it given up after an hour."""

_RESCHEDULED: Final = "charge-rescheduled"
"""Histories recorded before have a charge that waits for its window left at the time it was due."""

_DEARER_ANNOUNCED: Final = "dearer-announced"
"""Histories recorded before have a renewal that became dearer announced anew only when due."""

_LONG_LIVED: Final = frozenset({PaymentMethod.SAVED, PaymentMethod.CARD})


class SubscriptionCalls:
    """The subscription as it stands in the record, which this process alone writes."""

    def __init__(self, start: SubscriptionStart) -> None:
        self._start = start
        self._terms = start.terms
        self._known: SubscriptionStanding | None = None
        self._started: str | None = None
        """The payment that was last started, or found to be."""
        self._not_before: datetime | None = None
        self._not_announced_before: datetime | None = None
        self._shown_due: datetime | None = None

    async def _open(self) -> None:
        self._take(
            await workflow.execute_activity_method(
                SubscriptionActivities.open,
                OpenSubscription(
                    start=self._start, subscription=start_of(self._start), now=workflow.now()
                ),
                task_queue=CORE,
                **policies.RECORD_CALL,
            )
        )

    async def _read(self) -> None:
        self._take(
            await workflow.execute_activity_method(
                SubscriptionActivities.read,
                ReadSubscription(subscription_id=self._start.order.id),
                task_queue=CORE,
                **policies.RECORD_CALL,
            )
        )

    async def _apply(self, move: Move) -> None:
        """Write the move, then set going what follows from it."""
        before, now = self._standing, workflow.now()
        charge = None
        if move.charge is not None:
            charge = self._charge_of(move.charge, before.charges + 1, now)
        announced = announced_after(before, move)
        standing = before.model_copy(
            update={
                "subscription": move.subscription,
                "debt": move.debt,
                "announced": announced,
                "charge": charge or (None if move.closed else before.charge),
            }
        )
        data = dict(move.data)
        if charge is not None:
            preview = charge.decision.preview
            data |= {
                "payment_id": charge.payment_id,
                "kind": charge.kind.value,
                "amount": preview.total,
            }
        self._take(
            await workflow.execute_activity_method(
                SubscriptionActivities.write,
                WriteSubscription(
                    version=before.version,
                    subscription=move.subscription,
                    debt=move.debt,
                    announced=announced,
                    giving_back=move.giving_back,
                    event=move.event,
                    data=data,
                    opened=charge,
                    closed=move.closed,
                    next_at=_earliest(self._told_due(standing), self._ahead(standing)),
                    now=now,
                ),
                task_queue=CORE,
                **policies.RECORD_CALL,
            )
        )
        if move.is_abandoning:
            await self._abandon_payment()
        if charge is not None:
            await self._start_payment()

    async def _abandon_payment(self) -> None:
        """Have the payment under way closed: nobody waits for it any more."""
        charge = self._standing.charge
        if charge is not None and self._standing.charge_end is None:
            with contextlib.suppress(FailureError):
                await workflow.get_external_workflow_handle(charge.payment_id).cancel()

    async def _start_payment(self) -> None:
        """Have the payment of the charge under way running, which outlives this process."""
        charge = self._standing.charge
        if charge is None or self._standing.charge_end is not None:
            return
        order = order_of(charge, self._subscription, self._start.application)
        with contextlib.suppress(WorkflowAlreadyStartedError):
            payment = await workflow.start_child_workflow(
                PaymentWorkflow.run,
                order,
                id=order.payment_id,
                task_queue=CORE,
                task_timeout=_WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                search_attributes=attributes.at_start(order),
                static_summary=attributes.summary(order),
            )
            payment.add_done_callback(_left_to_the_record)
        self._started = order.payment_id

    async def _prepare(self, wanted: Wanted, method_id: str) -> PreparedCharge:
        """When the mandate may be charged. Without an answer in time a renewal's is asked for
        again, until it is late by a day: then, and for any other charge, it is not to be had."""
        decision, found = wanted.decision, self._subscription
        try:
            return await workflow.execute_activity_method(
                PreparingActivities.prepare,
                PrepareCharge(
                    subscription_id=found.id,
                    gateway=found.gateway,
                    method_id=method_id,
                    kind=wanted.kind,
                    amount=decision.preview.total,
                    currency=decision.preview.currency,
                    due_at=decision.effective_at,
                    number=decision.after.period.number,
                    announced=self._standing.announced,
                    may_wait=wanted.may_wait,
                    now=workflow.now(),
                ),
                task_queue=gateway_queue(found.gateway),
                schedule_to_close_timeout=(
                    policies.SUBSCRIPTION_RETRY_PREPARATION
                    if wanted.kind is StepKind.PAYMENT
                    else policies.SUBSCRIPTION_PREPARATION
                ),
                **policies.GATEWAY_CALL,
            )
        except ActivityError:
            now = workflow.now()
            is_late = now - decision.effective_at >= policies.SUBSCRIPTION_PREPARATION_LONGEST
            is_waiting = wanted.is_due and wanted.kind is not StepKind.PAYMENT and not is_late
            if not (is_waiting and workflow.patched(_ASKED_AGAIN)):
                return PreparedCharge(is_ready=False)
            return PreparedCharge(is_ready=False, at=now + policies.SUBSCRIPTION_PREPARATION_PAUSE)

    async def _put_off(self, prepared: PreparedCharge, amount: int, at: datetime) -> None:
        """Wait with the charge that is due until then, and have everybody see it."""
        self._not_before = at
        is_told = workflow.patched(_RESCHEDULED)
        if is_told:
            # The charge is made ready then, and with that announced.
            self._not_announced_before = at
        await self._note(prepared, amount)
        if is_told:
            await self._apply(rescheduled(self._standing, at))

    async def _note(self, prepared: PreparedCharge, amount: int) -> None:
        if prepared.announced is not None and prepared.announced != self._standing.announced:
            await self._announce(prepared.announced, amount)

    async def _announce(self, announced: Announced, amount: int) -> None:
        """Keep what the gateway was told of a charge to come."""
        await self._apply(
            Move(
                event="subscription.renewal_announced",
                subscription=self._subscription,
                debt=self._standing.debt,
                data={"amount": amount},
                announced=announced,
            )
        )

    async def _give_back(self) -> None:
        """Have money given back; what no payment covers is the customer's balance."""
        wanted = self._standing.giving_back
        assert wanted is not None, "nothing is to be given back"
        now, found = workflow.now(), self._subscription
        returns = await workflow.execute_activity_method(
            SubscriptionActivities.give_back,
            FindReturns(subscription_id=found.id, giving_back=wanted, now=now),
            task_queue=CORE,
            **policies.RECORD_CALL,
        )
        await start_returns(returns.refunds)
        rest = 0
        if wanted.amount is not None:
            rest = max(wanted.amount - returns.covered - returns.gone, 0)
        await self._apply(
            Move(
                event="subscription.given_back",
                subscription=credited(found, rest, now),
                data={
                    "refund_ids": [refund.refund_id for refund in returns.refunds],
                    "refunded": returns.covered,
                    "credited": rest,
                },
            )
        )

    def _charge_of(self, wanted: Wanted, number: int, now: datetime) -> Charge:
        found = self._subscription
        is_saved = wanted.method_id is not None
        is_long = is_saved or wanted.way.method in _LONG_LIVED
        life = policies.SUBSCRIPTION_CHARGE_LIFE if is_long else policies.SUBSCRIPTION_CODE_LIFE
        return Charge(
            number=number,
            payment_id=charge_payment_id(found.id, number, int(now.timestamp() * 1000)),
            kind=wanted.kind,
            way=wanted.way,
            method_id=wanted.method_id,
            is_due=wanted.is_due,
            until=wanted.until,
            decision=wanted.decision,
            opened_at=now,
            expires_at=now + life,
        )

    def _take(self, standing: SubscriptionStanding) -> None:
        """Follow the record, and show operators where it stands."""
        found, before = standing.subscription, self._known
        changes: list[SearchAttributeUpdate[Any]] = []
        if before is None or before.subscription.status is not found.status:
            changes.append(attributes.BILLING_STATUS.value_set(found.status.value))
        if before is not None and before.subscription.gateway is not found.gateway:
            changes.append(attributes.GATEWAY.value_set(found.gateway.value))
        if before is not None and before.subscription.plan != found.plan:
            changes.append(attributes.AMOUNT_MINOR.value_set(found.plan.amount))
        due = self._told_due(standing)
        # It is never unset: the client cannot read a date that is there and empty.
        if due is not None and self._shown_due != due:
            changes.append(attributes.NEXT_CHARGE_AT.value_set(due))
        self._shown_due = due
        if changes:
            workflow.upsert_search_attributes(changes)
        self._known = standing
        workflow.set_current_details(_details(standing, due))

    def _due(self, standing: SubscriptionStanding) -> datetime | None:
        return _latest(when_due(standing, self._terms), self._not_before)

    def _told_due(self, standing: SubscriptionStanding) -> datetime | None:
        if self._not_before is not None and workflow.patched(_RESCHEDULED):
            return self._due(standing)
        return when_due(standing, self._terms)

    def _ahead(self, standing: SubscriptionStanding) -> datetime | None:
        at = _latest(ahead_due(standing, self._terms), self._not_announced_before)
        is_dearer = at is not None and is_above_announced(standing, self._terms)
        return None if is_dearer and not workflow.patched(_DEARER_ANNOUNCED) else at

    @property
    def _standing(self) -> SubscriptionStanding:
        assert self._known is not None, "asked for before the record answered"
        return self._known

    @property
    def _subscription(self) -> Subscription:
        return self._standing.subscription


def _left_to_the_record(payment: asyncio.Task[PaymentEnded]) -> None:
    """How a payment ended is told by its signal and by the record, also where it was terminated:
    nobody else asks the handle."""
    if not payment.cancelled():
        payment.exception()


def _earliest(*instants: datetime | None) -> datetime | None:
    return min((at for at in instants if at is not None), default=None)


def _latest(at: datetime | None, not_before: datetime | None) -> datetime | None:
    return at if at is None or not_before is None else max(at, not_before)


def _details(standing: SubscriptionStanding, due: datetime | None) -> str:
    found, charge, debt = standing.subscription, standing.charge, standing.debt
    parts = [
        found.status.value,
        f"{found.plan.tier.value} {found.plan.cycle.value}",
        f"period {found.period.number} until {found.period.end:%Y-%m-%d %H:%M} UTC",
    ]
    if due is not None:
        parts.append(f"next {due:%Y-%m-%d %H:%M} UTC")
    if charge is not None:
        parts.append(f"waits for {charge.payment_id}")
    if debt is not None:
        parts.append(f"{len(debt.tries)} tries")
    if found.failure is not None:
        parts.append(found.failure.decline_code or found.failure.code)
    return ", ".join(parts)
