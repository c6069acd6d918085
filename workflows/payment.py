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
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.payment import PaymentActivities
from activities.switch import SwitchActivities
from billing.errors import SwitchRefused, SwitchUnanswered
from billing.messages import (
    GATEWAY_REPORTED,
    PAYMENT_WORKFLOW,
    Command,
    GatewayReport,
    OpenPayment,
    PaymentEnded,
    PaymentOrder,
    ReviewAction,
    ReviewDecision,
    SwitchOrder,
    SwitchPayment,
)
from billing.payment import Failure, Payment, PaymentStatus
from runtime.queues import gateway_queue
from workflows import policies
from workflows.payment_calls import PaymentCalls

_CANCELED_IN_TEMPORAL: Final = ReviewDecision(
    action=ReviewAction.CLOSE,
    reason="the workflow's cancellation was requested in Temporal",
    reviewed_by="temporal",
)


@dataclass
class _Switch:
    """A switch that somebody waits for, and what came of it."""

    order: SwitchOrder
    is_done: bool = False
    refusal: Failure | None = None


@workflow.defn(name=PAYMENT_WORKFLOW)
class PaymentWorkflow(PaymentCalls):
    @workflow.init
    def __init__(self, order: PaymentOrder) -> None:
        super().__init__(order)
        self._switch: _Switch | None = None
        self._review: ReviewDecision | None = None
        self._seen: set[str] = set()
        self._late_review: ReviewDecision | None = None
        self._reviewed = 0
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
                if not self._has_ended:
                    self._ending = PaymentStatus.FAILED

    async def _live(self) -> PaymentEnded:
        await self._open()
        while not self._status.is_terminal:
            await self._continue_if_long()
            if self._status is PaymentStatus.NEEDS_REVIEW:
                await self._await_review()
            else:
                await self._await_news()
        await self._tell_subscription()
        await self._return_unapplied()
        while self._is_watched or self._has_aftermath:
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
    async def switch(self, order: SwitchOrder) -> Payment:
        """The payment with the new way's instructions; as it stands if it cannot be switched.

        Raises ApplicationError `switch_refused` where the gateway will not take the order, and
        `switch_unanswered` where it does not answer; the old way stays open then.
        """
        self._commands += 1
        await workflow.wait_condition(lambda: self._is_open and self._switch is None)
        # Several that wait wake together, and the first of them takes the place again.
        while self._switch is not None:
            await workflow.wait_condition(lambda: self._switch is None)
        if not self._is_switchable_to(order):
            return self._payment
        mine = self._switch = _Switch(order)
        # What was broken off by a cancel is answered with what the cancel comes to.
        await workflow.wait_condition(
            lambda: (mine.is_done and self._ending is None) or self._has_ended or self._is_parked
        )
        if not mine.is_done:
            # Nobody waits for it any more: it must not be carried out after a review.
            self._switch = None
        if mine.refusal is not None:
            raise ApplicationError(
                mine.refusal.message, type=SwitchRefused.code, non_retryable=True
            )
        if self._is_switchable_to(order):
            raise ApplicationError(
                f"{order.gateway.value} gave no answer",
                type=SwitchUnanswered.code,
                non_retryable=True,
            )
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
            self._is_refunded = self._is_refunded or report.is_refund
            self._late_review = report.review or self._late_review

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
            task_queue=gateway_queue(self._gateway),
            schedule_to_close_timeout=self._time_left(),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **policies.GATEWAY_CALL,
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
                        "refunded": self._is_refunded,
                    }
                )
            )

    async def _await_news(self) -> None:
        """Sleep until something is known, or due, and act on it."""
        try:
            await workflow.wait_condition(
                lambda: not self._is_idle,
                timeout=self._until_next_poll(),
            )
        except TimeoutError:
            self._polls += 1
        if self._ending is not None:
            await self._close(self._ending)
        elif workflow.now() >= self._order.expires_at:
            await self._close(PaymentStatus.EXPIRED)
        elif self._switch is not None:
            await self._switch_over(self._switch)
        else:
            # A payer must be able to leave a gateway that does not answer.
            await self._settle(breaks_off=lambda: self._switch is not None)

    async def _switch_over(self, switch: _Switch) -> None:
        """Place the new order; once it has taken the old one's place, that one is closed."""
        replaced, before = self._payment.attempt, self._standing
        await self._follow(
            workflow.start_activity_method(
                SwitchActivities.switch,
                SwitchPayment(
                    payment_id=self._order.payment_id,
                    order=switch.order,
                    replaces=replaced,
                    now=workflow.now(),
                ),
                task_queue=gateway_queue(switch.order.gateway),
                schedule_to_close_timeout=policies.SWITCH_BUDGET,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                **policies.GATEWAY_CALL,
            )
        )
        standing = self._standing
        if standing is not None and standing is not before:
            switch.refusal = standing.refusal
        switch.is_done = True
        self._switch = None
        if self._payment.attempt == replaced:
            return
        self._polls = 0
        for gateway in (self._gateway, *self._other_gateways):
            # What stays open is watched, and closed when the payment ends.
            with contextlib.suppress(ActivityError):
                await self._close_at(
                    gateway,
                    None,
                    spare=self._payment.attempt,
                    budget=policies.SUPERSEDED_BUDGET,
                )

    async def _await_review(self) -> None:
        """A parked payment moves by a person's word alone. What is reported has the record read all
        the same: a decision may stand there of which this process was never told."""
        await workflow.wait_condition(
            lambda: (
                self._review is not None
                or self._ending is PaymentStatus.FAILED
                or self._has_unheard
            )
        )
        decision = self._review
        if decision is None and self._ending is not PaymentStatus.FAILED:
            await self._settle(thorough=True)
            return
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
        while self._is_watched or self._has_aftermath:
            if self._has_aftermath:
                if self._may_be_disputed:
                    await self._settle_disputes()
                if self._may_be_refunded:
                    await self._discover_refunds()
                if not self._is_watched:
                    continue
            try:
                await workflow.wait_condition(
                    lambda: self._has_unheard or self._late_review is not None,
                    timeout=self._until_next_watch(),
                )
            except TimeoutError:
                self._watches += 1
            if self._late_review is not None:
                # Heard by one that asks of its own accord, it would be forgotten.
                review, self._late_review = self._late_review, None
                await self._settle(thorough=True, review=review, budget=None)
            elif self._has_unheard:
                await self._settle(thorough=True)
            await self._return_unapplied()
            if self._open_attempts:
                await self._close(None)
                await self._return_unapplied()
            if self._watches == len(policies.WATCH_DELAYS) and self._open_attempts:
                await self._flag_undead()

    def _is_switchable_to(self, order: SwitchOrder) -> bool:
        """Whether the payer may still be asked to pay in this way, and is not already."""
        standing = self._payment
        return standing.status is PaymentStatus.REQUIRES_ACTION and (
            (standing.gateway, standing.method) != (order.gateway, order.method)
        )

    @property
    def _is_decidable(self) -> bool:
        """Whether no decision is under way, and no answer that may already stand in the record."""
        return self._standing is not None and self._review is None and not self._is_asking

    @property
    def _is_idle(self) -> bool:
        return (
            self._ending is None
            and self._review is None
            and self._switch is None
            and not self._has_unheard
        )

    @property
    def _is_watched(self) -> bool:
        """Whether an ended payment may still be paid, or was reported or decided on and not asked
        about.

        After the receipt that was kept, only an attempt still alive can bring news.
        """
        is_paid = self._status is PaymentStatus.SUCCEEDED
        is_reported = self._has_unheard and not is_paid
        return bool(self._open_attempts) or is_reported or self._late_review is not None

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
