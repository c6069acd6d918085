"""One saved payment method: the payer's consent, and what happens to it afterwards.

    open ──> wait for payer, gateway or clock ──> settle
                   │                                ├─ consent: active, and this workflow ends
                   │                                ├─ none, for good: failed
                   │                                └─ nothing yet: wait on
                   └─ deleted, or its day is over ──> ended here, then revoked at the gateway
    afterwards: reported on, deleted or made the default ──> a short workflow each time

The record decides: each activity answers with the status that stands in PostgreSQL.
"""

import contextlib
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from activities.method import MethodActivities
from billing.errors import MethodInUse
from billing.messages import GATEWAY_REPORTED, Command, GatewayReport
from billing.method import MethodStatus, SavedMethod
from billing.method_messages import (
    METHOD_AFTER_WORKFLOW,
    METHOD_WORKFLOW,
    DeleteMethod,
    MakeDefault,
    MethodAfterInput,
    MethodEnded,
    MethodOrder,
    MethodStanding,
    OpenMethod,
    RevokeMethod,
    SettleMethod,
)
from billing.payment import Failure, GatewayName
from billing.subscription_messages import METHOD_SIGNED
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from workflows import policies
from workflows.reported import Reported

_SETUP_EXPIRED: Final = Failure(
    code="setup_expired", message="the payer did not consent in the time there was for it"
)


class _MethodCalls:
    """A method as far as it is known, and what is asked of gateway and record."""

    def __init__(self, method_id: str, gateway: GatewayName) -> None:
        self._method_id = method_id
        self._gateway = gateway
        self._standing: MethodStanding | None = None
        self._reported = Reported()
        self._is_deleted = False
        self._is_forced = False
        self._refusal: ApplicationError | None = None

    async def _settle(self) -> None:
        """Ask the gateway for as long as it takes, or until the method is deleted."""
        heard = self._reported.asked
        asking = workflow.start_activity_method(
            MethodActivities.settle,
            SettleMethod(method_id=self._method_id, gateway=self._gateway, now=workflow.now()),
            task_queue=gateway_queue(self._gateway),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **policies.GATEWAY_CALL,
        )
        await self._follow(asking)
        self._reported.answered = max(self._reported.answered, heard)

    async def _revoke(
        self,
        status: MethodStatus,
        *,
        failure: Failure | None = None,
        order: MethodOrder | None = None,
        is_forced: bool = True,
    ) -> None:
        """End it here, and at the gateway for as long as that takes."""
        self._take(
            await workflow.execute_activity_method(
                MethodActivities.revoke,
                RevokeMethod(
                    method_id=self._method_id,
                    gateway=self._gateway,
                    status=status,
                    failure=failure,
                    order=order,
                    is_forced=is_forced,
                    now=workflow.now(),
                ),
                task_queue=gateway_queue(self._gateway),
                **policies.GATEWAY_CALL,
            )
        )

    async def _deleted(self, command: DeleteMethod) -> SavedMethod:
        self._is_forced = command.is_forced or (self._is_deleted and self._is_forced)
        self._is_deleted, self._refusal = True, None
        await workflow.wait_condition(
            lambda: self._refusal is not None or (self._has_ended and not self._is_to_be_revoked)
        )
        if self._refusal is not None:
            raise self._refusal
        return self._method

    async def _has_wound_up(self) -> bool:
        """Revoke what is to be revoked; whether nothing has come up meanwhile."""
        if self._is_ending:
            is_forced = self._is_forced
            try:
                await self._revoke(MethodStatus.ENDED, is_forced=is_forced)
            except ActivityError as problem:
                cause = problem.cause
                if not isinstance(cause, ApplicationError) or cause.type != MethodInUse.code:
                    raise
                if is_forced == self._is_forced:
                    self._is_deleted, self._refusal = False, _refusal(cause)
                return False
        elif self._is_to_be_revoked:
            await self._revoke(self._method.status)
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or self._has_come_up)
        return not self._has_come_up

    async def _follow(self, asking: workflow.ActivityHandle[MethodStanding]) -> None:
        await workflow.wait_condition(lambda: asking.done() or self._is_ending)
        if not asking.done():
            asking.cancel()
        try:
            self._take(await asking)
        except ActivityError:
            workflow.logger.info("no answer in time; the record stands as it was")

    def _take(self, standing: MethodStanding) -> None:
        """Follow the record, and show operators where it stands."""
        before, status = self._standing, standing.method.status
        changes: list[SearchAttributeUpdate[Any]] = []
        if before is None or before.method.status is not status:
            changes.append(attributes.BILLING_STATUS.value_set(status.value))
        if standing.needs_attention != (before is not None and before.needs_attention):
            changes.append(attributes.NEEDS_ATTENTION.value_set(standing.needs_attention))
        if changes:
            workflow.upsert_search_attributes(changes)
        self._standing = standing
        released = "" if standing.is_released or not status.is_terminal else ", not yet revoked"
        workflow.set_current_details(f"{status.value}{released}")

    @property
    def _method(self) -> SavedMethod:
        assert self._standing is not None, "asked for before the record answered"
        return self._standing.method

    @property
    def _is_pending(self) -> bool:
        return self._standing is None or self._method.status is MethodStatus.PENDING

    @property
    def _is_ending(self) -> bool:
        """Whether it was deleted, and has not ended yet."""
        return self._is_deleted and not self._has_ended

    @property
    def _has_come_up(self) -> bool:
        return self._reported.has_news or self._is_ending

    @property
    def _has_ended(self) -> bool:
        return self._standing is not None and self._method.status.is_terminal

    @property
    def _is_to_be_revoked(self) -> bool:
        """Whether it has ended here and might still be charged at its gateway; where that makes no
        sense of it, a person is called for, and the sweep asks again."""
        standing = self._standing
        return (
            standing is not None
            and self._has_ended
            and not standing.is_released
            and not standing.needs_attention
        )

    @property
    def _ended(self) -> MethodEnded:
        return MethodEnded(method_id=self._method_id, status=self._method.status)


@workflow.defn(name=METHOD_WORKFLOW)
class MethodSetupWorkflow(_MethodCalls):
    @workflow.init
    def __init__(self, order: MethodOrder) -> None:
        super().__init__(order.method_id, order.gateway)
        self._order = order
        self._expires_at = order.created_at + policies.METHOD_SETUP_LIFE
        self._polls = 0
        self._is_told = False

    @workflow.run
    async def run(self, order: MethodOrder) -> MethodEnded:
        if order.resumed:
            await self._settle()
        if self._is_pending:
            await self._open()
        if self._standing is None:
            await self._end()
        while True:
            # What was reported while the gateway's answer was on its way may be newer than it.
            while self._is_pending or self._reported.has_news:
                await self._await_news()
            await self._tell_subscription()
            if await self._has_wound_up():
                return self._ended

    @workflow.update
    async def create(self, command: Command) -> SavedMethod:
        """The method once the payer's instructions are there, or once it has ended."""
        await workflow.wait_condition(lambda: self._standing is not None)
        return self._method

    @workflow.update
    async def revoke(self, command: DeleteMethod) -> SavedMethod:
        """The method once it has ended here and at its gateway. Raises ApplicationError
        `method_in_use`, unless it is forced."""
        return await self._deleted(command)

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        self._reported.hear(report)

    async def _open(self) -> None:
        """Give the payer instructions, for as long as the set-up lives."""
        time_left = self._expires_at - workflow.now()
        if time_left <= timedelta():
            return
        await self._follow(
            workflow.start_activity_method(
                MethodActivities.open,
                OpenMethod(order=self._order, now=workflow.now()),
                task_queue=gateway_queue(self._gateway),
                schedule_to_close_timeout=time_left,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                **policies.GATEWAY_CALL,
            )
        )

    async def _await_news(self) -> None:
        """Sleep until something is known, or due, and act on it."""
        try:
            await workflow.wait_condition(
                lambda: self._is_ending or self._reported.has_news,
                timeout=self._until_next_poll(),
            )
        except TimeoutError:
            self._polls += 1
        if not self._is_ending:
            await self._settle()
        if self._is_pending and (self._is_ending or workflow.now() >= self._expires_at):
            await self._end()

    async def _tell_subscription(self) -> None:
        """Have it charged from now on by the subscription that asked for it: one that has ended, or
        whose process is lost, needs no word, since it looks at the record when it goes on."""
        wanted = None if self._is_told else self._order.subscription_id
        if wanted is not None and self._method.status is MethodStatus.ACTIVE:
            self._is_told = True
            with contextlib.suppress(FailureError):
                await workflow.get_external_workflow_handle(wanted).signal(METHOD_SIGNED)

    async def _end(self) -> None:
        """It was deleted, or its time is over."""
        if self._is_deleted:
            await self._revoke(MethodStatus.ENDED, order=self._order)
        else:
            await self._revoke(MethodStatus.FAILED, failure=_SETUP_EXPIRED, order=self._order)

    def _until_next_poll(self) -> timedelta:
        delays = policies.METHOD_POLL_DELAYS
        until_end = max(self._expires_at - workflow.now(), timedelta(milliseconds=1))
        return min(delays[min(self._polls, len(delays) - 1)], until_end)


@workflow.defn(name=METHOD_AFTER_WORKFLOW)
class MethodAfterWorkflow(_MethodCalls):
    """What happens to a method whose set-up is over: the payer or the network ends or changes it,
    the application deletes it or makes it the default. It may run any number of times."""

    @workflow.init
    def __init__(self, after: MethodAfterInput) -> None:
        super().__init__(after.method_id, after.gateway)

    @workflow.run
    async def run(self, after: MethodAfterInput) -> MethodEnded:
        while True:
            if not self._is_ending:
                await self._settle()
            if await self._has_wound_up():
                return self._ended

    @workflow.update
    async def revoke(self, command: DeleteMethod) -> SavedMethod:
        """The method once it has ended here and at its gateway. Raises ApplicationError
        `method_in_use`, unless it is forced."""
        return await self._deleted(command)

    @workflow.update
    async def make_default(self, command: Command) -> SavedMethod:
        """The method as the user's default. Raises ApplicationError `payment_method_not_active`."""
        try:
            standing = await workflow.execute_activity_method(
                MethodActivities.make_default,
                MakeDefault(method_id=self._method_id, now=workflow.now()),
                task_queue=CORE,
                **policies.RECORD_CALL,
            )
        except ActivityError as problem:
            if not isinstance(problem.cause, ApplicationError):
                raise
            raise _refusal(problem.cause) from problem
        return standing.method

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        self._reported.hear(report)


def _refusal(cause: ApplicationError) -> ApplicationError:
    return ApplicationError(cause.message, type=cause.type, non_retryable=True)
