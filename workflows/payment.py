"""One payment, from the application's order to the last attempt that could take money for it.

    open ──> wait for gateway, payer or clock ──> settle
                     │                              ├─ paid: succeeded
                     │                              ├─ nothing yet: wait on
                     │                              └─ makes no sense: parked for a person
                     └─ canceled or past its deadline ──> query, close, query ──> ended
    ended ──> watch until every attempt is dead

The record decides: each activity answers with the status that stands in PostgreSQL, and the
workflow follows it.
"""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError

from activities.dispute import DisputeActivities
from activities.payment import PaymentActivities
from billing.messages import (
    GATEWAY_REPORTED,
    PAYMENT_WORKFLOW,
    ClosePayment,
    Command,
    EndPayment,
    FlagPayment,
    GatewayReport,
    OpenPayment,
    PaymentEnded,
    PaymentOrder,
    ReviewAction,
    ReviewDecision,
    SettleDisputes,
    SettlePayment,
    Standing,
)
from billing.payment import GatewayName, Payment, PaymentStatus
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from workflows import policies

_CANCELED_IN_TEMPORAL: Final = ReviewDecision(
    action=ReviewAction.CLOSE,
    reason="the workflow's cancellation was requested in Temporal",
    reviewed_by="temporal",
)


@workflow.defn(name=PAYMENT_WORKFLOW)
class PaymentWorkflow:
    @workflow.init
    def __init__(self, order: PaymentOrder) -> None:
        self._order = order
        self._queue = gateway_queue(order.gateway)
        self._standing: Standing | None = None
        self._ending: PaymentStatus | None = None
        self._review: ReviewDecision | None = None
        self._is_asking = False
        self._seen: set[str] = set()
        self._asked = 0
        self._answered = 0
        self._is_disputed = order.disputed
        self._reviewed = 0
        self._polls = order.polls
        self._commands = 0
        self._watches = 0

    @workflow.run
    async def run(self, order: PaymentOrder) -> PaymentEnded:
        life = asyncio.create_task(self._live())
        while True:
            try:
                return await asyncio.shield(life)
            except asyncio.CancelledError:
                # A cancel request from Temporal is the operator's `close`; the process itself
                # must not stop half way through with money at a gateway.
                if life.done():
                    raise
                self._ending = PaymentStatus.FAILED

    async def _live(self) -> PaymentEnded:
        await self._open()
        while not self._status.is_terminal:
            await self._continue_if_long()
            if self._status is PaymentStatus.NEEDS_REVIEW:
                await self._await_review()
            else:
                await self._await_news()
        while self._is_watched or self._may_be_disputed:
            await self._watch()
            await workflow.wait_condition(workflow.all_handlers_finished)
        return PaymentEnded(payment_id=self._order.payment_id, status=self._status)

    # What the application and operators command.

    @workflow.update
    async def create(self, command: Command) -> Payment:
        """The payment once the payer's instructions are there, or once it has ended."""
        self._commands += 1
        await workflow.wait_condition(lambda: self._is_open)
        return self._payment

    @workflow.update
    async def cancel(self, command: Command) -> Payment:
        """The payment as it stands after the gateway was told; canceled unless it was too late."""
        self._commands += 1
        if not self._has_ended and not self._is_parked:
            self._ending = self._ending or PaymentStatus.CANCELED
            await workflow.wait_condition(lambda: self._has_ended or self._is_parked)
        return self._payment

    @workflow.update
    async def refresh(self, command: Command) -> Payment:
        """The payment after the gateway was asked now; parked and ended ones as they stand."""
        self._commands += 1
        await workflow.wait_condition(lambda: self._is_open)
        if not self._has_ended and not self._is_parked:
            self._asked += 1
            mine = self._asked
            # With the gateway silent the asking goes on, but no command's place is held for it.
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._answered >= mine or self._has_ended or self._is_parked,
                    timeout=policies.REFRESH_PATIENCE,
                )
        return self._payment

    @workflow.update
    async def review(self, decision: ReviewDecision) -> Payment:
        """The payment after the operator's decision; unchanged if it is not parked (any more)."""
        self._commands += 1
        # Several that wait wake together, and the first of them takes the place again.
        while not self._is_decidable:
            await workflow.wait_condition(lambda: self._is_decidable)
        if self._is_parked:
            self._review = decision
            mine = self._reviewed + 1
            await workflow.wait_condition(lambda: self._reviewed >= mine or self._has_ended)
        return self._payment

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        if report.event_id not in self._seen:
            self._seen.add(report.event_id)
            self._asked += 1
            self._is_disputed = self._is_disputed or report.is_dispute

    # How it goes.

    async def _open(self) -> None:
        """Give the payer instructions, for as long as it takes until the deadline."""
        if self._order.resumed:
            await self._settle(thorough=True)
            if self._standing is not None and self._status is not PaymentStatus.CREATED:
                return
        if workflow.now() >= self._order.expires_at:
            await self._close(PaymentStatus.EXPIRED)
            return
        opening = workflow.start_activity_method(
            PaymentActivities.open,
            OpenPayment(order=self._order, now=workflow.now()),
            task_queue=self._queue,
            start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
            schedule_to_close_timeout=self._time_left(),
            heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
            retry_policy=policies.UNKNOWN_OUTCOME,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await self._follow(opening)
        if self._standing is None or self._status is PaymentStatus.CREATED:
            await self._close(self._ending or PaymentStatus.EXPIRED)

    async def _continue_if_long(self) -> None:
        """Go on in a new run, once nobody waits for an answer of this one: Temporal takes two
        thousand commands in one run, and then no cancel any more."""
        is_long = (
            self._commands >= policies.COMMANDS_IN_A_RUN
            or workflow.info().is_continue_as_new_suggested()
        )
        if not is_long:
            return
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or not self._is_idle)
        if self._is_idle and workflow.all_handlers_finished():
            workflow.continue_as_new(
                self._order.model_copy(
                    update={
                        "resumed": True,
                        "polls": self._polls,
                        "disputed": self._is_disputed,
                    }
                )
            )

    async def _await_news(self) -> None:
        """Sleep until something is known, or due, and act on it."""
        try:
            await workflow.wait_condition(
                lambda: self._ending is not None or self._has_unheard,
                timeout=self._until_next_poll(),
            )
        except TimeoutError:
            self._polls += 1
        if self._ending is not None:
            await self._close(self._ending)
        elif workflow.now() >= self._order.expires_at:
            await self._close(PaymentStatus.EXPIRED)
        else:
            await self._settle()

    async def _await_review(self) -> None:
        """A parked payment moves by a person's word alone."""
        await workflow.wait_condition(
            lambda: self._review is not None or self._ending is PaymentStatus.FAILED
        )
        decision = self._review
        if decision is None:
            await self._close(PaymentStatus.FAILED, review=_CANCELED_IN_TEMPORAL)
            return
        if decision.action is ReviewAction.CLOSE:
            await self._close(PaymentStatus.FAILED, review=decision)
        else:
            await self._settle(thorough=True, review=decision)
        self._review = None
        self._reviewed += 1

    async def _watch(self) -> None:
        """Stay until no attempt can take money any more; what one takes is recorded apart."""
        while self._is_watched or self._may_be_disputed:
            if self._may_be_disputed:
                await self._settle_disputes()
                if not self._is_watched:
                    continue
            try:
                await workflow.wait_condition(
                    lambda: self._has_unheard, timeout=self._until_next_watch()
                )
            except TimeoutError:
                self._watches += 1
            if self._has_unheard:
                await self._settle(thorough=True)
            if self._open_attempts:
                await self._close(None)
            if self._watches == len(policies.WATCH_DELAYS) and self._open_attempts:
                await self._flag_undead()

    # What is asked of the gateway and of the record.

    async def _settle(
        self, *, thorough: bool = False, review: ReviewDecision | None = None
    ) -> None:
        """Ask the gateway and record its word; without an answer, everything stays as it is."""
        heard = self._asked
        await self._follow(
            workflow.start_activity_method(
                PaymentActivities.settle,
                SettlePayment(
                    payment_id=self._order.payment_id,
                    gateway=self._order.gateway,
                    now=workflow.now(),
                    thorough=thorough,
                    review=review,
                ),
                task_queue=self._queue,
                start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                schedule_to_close_timeout=(
                    policies.CLOSING_BUDGET if thorough else self._time_left()
                ),
                heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                retry_policy=policies.UNKNOWN_OUTCOME,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        )
        self._answered = max(self._answered, heard)

    async def _settle_disputes(self) -> None:
        """Ask for the disputes of what was paid, while other attempts live not for ever."""
        self._is_disputed = False
        for gateway in self._disputes_at:
            try:
                standing = await workflow.execute_activity_method(
                    DisputeActivities.settle,
                    SettleDisputes(
                        payment_id=self._order.payment_id, gateway=gateway, now=workflow.now()
                    ),
                    task_queue=gateway_queue(gateway),
                    start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                    schedule_to_close_timeout=(
                        policies.CLOSING_BUDGET if self._open_attempts else None
                    ),
                    heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                    retry_policy=policies.UNKNOWN_OUTCOME,
                )
            except ActivityError:
                self._is_disputed = True
            else:
                self._take(standing)

    async def _close(
        self, status: PaymentStatus | None, *, review: ReviewDecision | None = None
    ) -> None:
        """Query, close, query; with `status` None for the attempts of an ended payment."""
        heard = self._asked
        self._is_asking = True
        try:
            self._take(
                await workflow.execute_activity_method(
                    PaymentActivities.close,
                    ClosePayment(
                        payment_id=self._order.payment_id,
                        gateway=self._order.gateway,
                        status=status,
                        now=workflow.now(),
                        review=review,
                        order=self._unrecorded_order,
                    ),
                    task_queue=self._queue,
                    start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                    schedule_to_close_timeout=policies.CLOSING_BUDGET,
                    heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                    retry_policy=policies.UNKNOWN_OUTCOME,
                )
            )
        except ActivityError:
            if status is not None:
                await self._end(status, review)
        finally:
            self._is_asking = False
        self._answered = max(self._answered, heard)
        self._ending = None

    async def _end(self, status: PaymentStatus, review: ReviewDecision | None) -> None:
        self._take(
            await workflow.execute_activity_method(
                PaymentActivities.end,
                EndPayment(
                    payment_id=self._order.payment_id,
                    status=status,
                    now=workflow.now(),
                    review=review,
                    order=self._unrecorded_order,
                ),
                task_queue=CORE,
                start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                retry_policy=policies.RECORD,
            )
        )

    async def _flag_undead(self) -> None:
        await workflow.execute_activity_method(
            PaymentActivities.flag,
            FlagPayment(
                payment_id=self._order.payment_id,
                reason="attempt_not_dead",
                detail="the gateway has not called every attempt dead in the time allowed for it;"
                " ask it there, then close the order or report by `refresh`",
                now=workflow.now(),
            ),
            task_queue=CORE,
            start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
            heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
            retry_policy=policies.RECORD,
        )
        workflow.upsert_search_attributes([attributes.NEEDS_ATTENTION.value_set(True)])

    async def _follow(self, asking: workflow.ActivityHandle[Standing]) -> None:
        """Take the answer; give up asking when the payment is to end, or its time is over."""
        self._is_asking = True
        await workflow.wait_condition(lambda: asking.done() or self._ending is not None)
        if not asking.done():
            asking.cancel()
        try:
            self._take(await asking)
        except ActivityError:
            workflow.logger.info("no answer in time; the record stands as it was")
        finally:
            self._is_asking = False

    def _take(self, standing: Standing) -> None:
        """Follow the record, and show operators where it stands."""
        payment, before = standing.payment, self._standing
        changes: list[SearchAttributeUpdate[Any]] = []
        if before is None or before.payment.status != payment.status:
            changes.append(attributes.BILLING_STATUS.value_set(payment.status.value))
        if payment.gateway_reference and (
            before is None or before.payment.gateway_reference != payment.gateway_reference
        ):
            changes.append(attributes.GATEWAY_REFERENCE.value_set(payment.gateway_reference))
        if standing.needs_attention != (before is not None and before.needs_attention):
            changes.append(attributes.NEEDS_ATTENTION.value_set(standing.needs_attention))
        if changes:
            workflow.upsert_search_attributes(changes)
        self._standing = standing
        if payment.status is PaymentStatus.NEEDS_REVIEW:
            # What was asked for before is a person's to decide now.
            self._ending = None
        workflow.set_current_details(
            f"{payment.status.value}, attempt {payment.attempt}, polled {self._polls} times,"
            f" {len(standing.open_attempts)} attempts alive"
        )

    # What is known.

    @property
    def _payment(self) -> Payment:
        assert self._standing is not None, "asked for before the record answered"
        return self._standing.payment

    @property
    def _status(self) -> PaymentStatus:
        return self._payment.status

    @property
    def _is_open(self) -> bool:
        return self._standing is not None and self._status is not PaymentStatus.CREATED

    @property
    def _has_ended(self) -> bool:
        return self._standing is not None and self._status.is_terminal

    @property
    def _is_parked(self) -> bool:
        return self._standing is not None and self._status is PaymentStatus.NEEDS_REVIEW

    @property
    def _is_decidable(self) -> bool:
        """Whether no decision is under way, and no answer that may already stand in the record."""
        return self._standing is not None and self._review is None and not self._is_asking

    @property
    def _is_idle(self) -> bool:
        return self._ending is None and self._review is None and not self._has_unheard

    @property
    def _has_unheard(self) -> bool:
        return self._asked > self._answered

    @property
    def _is_watched(self) -> bool:
        """Whether an ended payment may still be paid, or was reported on and not asked about.

        After the receipt that was kept, only an attempt still alive can bring news.
        """
        is_paid = self._status is PaymentStatus.SUCCEEDED
        return bool(self._open_attempts) or (self._has_unheard and not is_paid)

    @property
    def _may_be_disputed(self) -> bool:
        """Whether a dispute was reported of an ended payment that took money, and not asked for."""
        return self._is_disputed and self._has_ended and bool(self._disputes_at)

    @property
    def _disputes_at(self) -> tuple[GatewayName, ...]:
        return self._standing.disputes_at if self._standing is not None else ()

    @property
    def _open_attempts(self) -> tuple[int, ...]:
        return self._standing.open_attempts if self._standing is not None else ()

    @property
    def _unrecorded_order(self) -> PaymentOrder | None:
        """The order itself, where the row may not have been written yet."""
        return self._order if self._standing is None else None

    def _time_left(self) -> timedelta:
        return max(self._order.expires_at - workflow.now(), policies.LEAST_BUDGET)

    def _until_next_poll(self) -> timedelta:
        until_deadline = max(self._order.expires_at - workflow.now(), timedelta(milliseconds=1))
        if self._polls >= len(policies.POLL_DELAYS):
            return until_deadline
        return min(policies.POLL_DELAYS[self._polls], until_deadline)

    def _until_next_watch(self) -> timedelta | None:
        if self._watches >= len(policies.WATCH_DELAYS):
            return None
        until_death = self._order.expires_at + policies.DEATH_AFTER_EXPIRY - workflow.now()
        delay = policies.WATCH_DELAYS[self._watches]
        return min(delay, until_death) if until_death > timedelta() else delay
