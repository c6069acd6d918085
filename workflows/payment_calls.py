"""What a payment's workflow asks of gateways and record, and what it knows by their answers."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, FailureError

from activities.discovery import DiscoveryActivities
from activities.dispute import DisputeActivities
from activities.payment import PaymentActivities
from billing.messages import (
    ClosePayment,
    DiscoverRefunds,
    EndPayment,
    FlagPayment,
    PaymentOrder,
    ReviewDecision,
    SettleDisputes,
    SettlePayment,
    Standing,
)
from billing.payment import GatewayName, Payment, PaymentStatus
from billing.subscription_messages import PAYMENT_ENDED, ChargeEnd
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from workflows import policies
from workflows.returns import start_returns

_BREAKS_OFF: Final = "a switch breaks off asking"


def _nothing() -> bool:
    return False


class PaymentCalls:
    """The payment as far as it is known. `_asked` counts what was reported from outside, and
    `_answered` how much of that the gateways were asked about since."""

    def __init__(self, order: PaymentOrder) -> None:
        self._order = order
        self._gateway = order.gateway
        self._standing: Standing | None = None
        self._ending: PaymentStatus | None = None
        self._is_asking = False
        self._asked = 0
        self._answered = 0
        self._polls = order.polls
        self._is_disputed = order.disputed
        self._is_refunded = order.refunded

    async def _settle(
        self,
        *,
        thorough: bool = False,
        review: ReviewDecision | None = None,
        budget: timedelta | None = policies.CLOSING_BUDGET,
        breaks_off: Callable[[], bool] = _nothing,
    ) -> None:
        """Ask the gateways and record their word; without an answer, everything stays as it is.
        `budget` is how long each is asked where it is asked `thorough`ly, None for as long as it
        takes. What `breaks_off` the asking leaves what was reported to be asked about again."""
        heard, now = self._asked, workflow.now()

        def breaks_off_another() -> bool:
            # What is reported meanwhile is for the payment's own gateway to answer first.
            return breaks_off() or (not thorough and self._asked > heard)

        asked: set[GatewayName] = set()
        while gateway := self._next_to_ask(asked, thorough=thorough):
            asked.add(gateway)
            is_whole = await self._follow(
                workflow.start_activity_method(
                    PaymentActivities.settle,
                    SettlePayment(
                        payment_id=self._order.payment_id,
                        gateway=gateway,
                        now=now,
                        thorough=thorough,
                        review=review,
                    ),
                    task_queue=gateway_queue(gateway),
                    schedule_to_close_timeout=budget if thorough else self._patience(),
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                    **policies.GATEWAY_CALL,
                ),
                breaks_off if gateway is self._gateway else breaks_off_another,
            )
            if not is_whole:
                return
        self._answered = max(self._answered, heard)

    def _next_to_ask(self, asked: set[GatewayName], *, thorough: bool) -> GatewayName | None:
        """The payment's own gateway first, then others that attempts were left at."""
        standing = self._standing
        others: tuple[GatewayName, ...] = ()
        if standing is not None:
            others = standing.gateways if thorough else standing.open_gateways
        return next((one for one in (self._gateway, *others) if one not in asked), None)

    async def _close(
        self, status: PaymentStatus | None, *, review: ReviewDecision | None = None
    ) -> None:
        """Query, close, query; with `status` None for the attempts of an ended payment."""
        heard = self._asked
        self._is_asking = True
        try:
            for gateway in self._other_gateways:
                # One that is silent must not keep the payment's own from being asked.
                with contextlib.suppress(ActivityError):
                    await self._close_at(gateway, None, budget=policies.SUPERSEDED_BUDGET)
            await self._close_at(self._gateway, status, review=review)
        except ActivityError:
            if status is not None:
                await self._end(status, review)
        finally:
            self._is_asking = False
        self._answered = max(self._answered, heard)
        self._ending = None

    async def _close_at(
        self,
        gateway: GatewayName,
        status: PaymentStatus | None,
        *,
        review: ReviewDecision | None = None,
        spare: int | None = None,
        budget: timedelta = policies.CLOSING_BUDGET,
    ) -> None:
        self._take(
            await workflow.execute_activity_method(
                PaymentActivities.close,
                ClosePayment(
                    payment_id=self._order.payment_id,
                    gateway=gateway,
                    status=status,
                    now=workflow.now(),
                    review=review,
                    order=self._unrecorded_order,
                    spare=spare,
                ),
                task_queue=gateway_queue(gateway),
                schedule_to_close_timeout=budget,
                **policies.GATEWAY_CALL,
            )
        )

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
                    schedule_to_close_timeout=(
                        policies.CLOSING_BUDGET if self._open_attempts else None
                    ),
                    **policies.GATEWAY_CALL,
                )
            except ActivityError:
                self._is_disputed = True
            else:
                self._take(standing)

    async def _discover_refunds(self) -> None:
        """Ask for refunds of what was paid that were made elsewhere, as for disputes."""
        self._is_refunded = False
        for gateway in self._refunds_at:
            try:
                standing = await workflow.execute_activity_method(
                    DiscoveryActivities.discover,
                    DiscoverRefunds(
                        payment_id=self._order.payment_id, gateway=gateway, now=workflow.now()
                    ),
                    task_queue=gateway_queue(gateway),
                    schedule_to_close_timeout=(
                        policies.CLOSING_BUDGET if self._open_attempts else None
                    ),
                    **policies.GATEWAY_CALL,
                )
            except ActivityError:
                self._is_refunded = True
            else:
                self._take(standing)

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
                **policies.RECORD_CALL,
            )
        )

    async def _tell_subscription(self) -> None:
        """The subscription that this pays for goes on; the word lost, it looks at the record."""
        if self._order.subscription_id is None:
            return
        end = ChargeEnd(
            payment_id=self._order.payment_id,
            status=self._status,
            failure=self._payment.failure,
        )
        subscription = workflow.get_external_workflow_handle(self._order.subscription_id)
        with contextlib.suppress(FailureError):
            await subscription.signal(PAYMENT_ENDED, end)

    async def _return_unapplied(self) -> None:
        if self._standing is not None:
            await start_returns(self._standing.returns)

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
            **policies.RECORD_CALL,
        )
        workflow.upsert_search_attributes([attributes.NEEDS_ATTENTION.value_set(True)])

    async def _follow(
        self,
        asking: workflow.ActivityHandle[Standing],
        breaks_off: Callable[[], bool] = _nothing,
    ) -> bool:
        """Take the answer; give up asking when the payment is to end, or its time is over. False
        where something else broke it off."""
        self._is_asking = True

        def is_over() -> bool:
            return asking.done() or self._ending is not None

        await workflow.wait_condition(lambda: is_over() or breaks_off())
        is_whole = is_over()
        if not is_whole and not workflow.patched(_BREAKS_OFF):
            await workflow.wait_condition(is_over)
            is_whole = True
        if not asking.done():
            asking.cancel()
        try:
            self._take(await asking)
        except ActivityError:
            workflow.logger.info("no answer in time; the record stands as it was")
        finally:
            self._is_asking = False
        return is_whole

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
        if payment.gateway is not self._gateway:
            self._gateway = payment.gateway
            changes.append(attributes.GATEWAY.value_set(payment.gateway.value))
        if standing.needs_attention != (before is not None and before.needs_attention):
            changes.append(attributes.NEEDS_ATTENTION.value_set(standing.needs_attention))
        if changes:
            workflow.upsert_search_attributes(changes)
        self._standing = standing
        is_parked_now = before is None or before.payment.status is not PaymentStatus.NEEDS_REVIEW
        if payment.status is PaymentStatus.NEEDS_REVIEW and is_parked_now:
            # What was asked for before is a person's to decide now.
            self._ending = None
        workflow.set_current_details(
            f"{payment.status.value}, attempt {payment.attempt}, polled {self._polls} times,"
            f" {len(standing.open_attempts)} attempts alive"
        )

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
    def _has_unheard(self) -> bool:
        return self._asked > self._answered

    @property
    def _open_attempts(self) -> tuple[int, ...]:
        return self._standing.open_attempts if self._standing is not None else ()

    @property
    def _may_be_disputed(self) -> bool:
        """Whether a dispute was reported of an ended payment that took money, and not asked for."""
        return self._is_disputed and self._has_ended and bool(self._disputes_at)

    @property
    def _may_be_refunded(self) -> bool:
        """As for disputes, of a refund made elsewhere."""
        return self._is_refunded and self._has_ended and bool(self._refunds_at)

    @property
    def _has_aftermath(self) -> bool:
        return self._may_be_disputed or self._may_be_refunded

    @property
    def _refunds_at(self) -> tuple[GatewayName, ...]:
        return self._standing.refunds_at if self._standing is not None else ()

    @property
    def _disputes_at(self) -> tuple[GatewayName, ...]:
        return self._standing.disputes_at if self._standing is not None else ()

    @property
    def _other_gateways(self) -> tuple[GatewayName, ...]:
        """Where attempts that were switched away from may still take money."""
        open_at = self._standing.open_gateways if self._standing is not None else ()
        return tuple(gateway for gateway in open_at if gateway is not self._gateway)

    @property
    def _unrecorded_order(self) -> PaymentOrder | None:
        """The order itself, where the row may not have been written yet."""
        return self._order if self._standing is None else None

    def _patience(self) -> timedelta:
        """How long one gateway is asked: one that is silent must not keep another from being asked
        that may have been paid."""
        left = self._time_left()
        return min(left, policies.CLOSING_BUDGET) if self._other_gateways else left

    def _time_left(self) -> timedelta:
        return max(self._order.expires_at - workflow.now(), policies.LEAST_BUDGET)
