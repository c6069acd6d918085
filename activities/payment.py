"""What the payment workflow has done: open, settle, close, and the record's own entries.

Every activity can be repeated at any point: rows are inserted once, gateways are asked under
numbers that never change, receipts are unique, and each status write names the states before it.
No transaction is open while a gateway is called.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import observations
from activities.asking import asking
from activities.charging import (
    close_unasked,
    held_back,
    mark_charge,
    may_call,
    time_of_windows,
)
from activities.placing import Placing, found, order_of
from billing.errors import AnswerUntrusted, GatewayMisconfigured, InstructionsLost
from billing.identifiers import MAX_ATTEMPT
from billing.messages import (
    ClosePayment,
    EndPayment,
    FlagPayment,
    OpenPayment,
    PaymentOrder,
    ReviewAction,
    ReviewDecision,
    SettlePayment,
    Standing,
)
from billing.payment import AttemptState, Failure, GatewayName, PaymentMethod, PaymentStatus
from gateways.clock import Clock, utc_now
from gateways.gateway import (
    AlreadyOrdered,
    Gateway,
    Observation,
    ObservedState,
    Opened,
    OpenOutcome,
    Order,
    Refused,
)
from storage.database import Database
from storage.payment_rows import AttemptRecord, PaymentRecord

_REPLACEMENTS_PER_TRY: Final = 3


class PaymentActivities(Placing):
    """What a payment's workflow has done, apart from a switch. `clock` is wall time."""

    def __init__(
        self,
        database: Database,
        gateways: Mapping[GatewayName, Gateway],
        *,
        clock: Clock = utc_now,
    ) -> None:
        super().__init__(database, gateways)
        self._clock = clock

    @activity.defn(name="payment.open")
    async def open(self, request: OpenPayment) -> Standing:
        """Write the row, place the order, store what the payer needs."""
        async with self.database.single() as work:
            record = await work.payments.insert(request.order, request.now)
        for _ in range(_REPLACEMENTS_PER_TRY):
            if record.payment.status is not PaymentStatus.CREATED:
                return await self.standing(record)
            attempt = record.attempts[-1]
            if attempt.method is PaymentMethod.SAVED:
                return await self.standing(await self._charge(record, attempt, request.now))
            try:
                outcome = await self.place(record, attempt)
            except InstructionsLost:
                record = await self._replace(record, attempt, request.now)
                continue
            if isinstance(outcome, AlreadyOrdered):
                known = replace(attempt, reference=outcome.reference or attempt.reference)
                record = await self._observe(record, known, request.now)
                if record.payment.status is PaymentStatus.CREATED:
                    record = await self._replace(record, attempt, request.now)
                continue
            record = await self._store_outcome(record, attempt, outcome, request.now)
        if record.payment.status is PaymentStatus.CREATED:
            raise ApplicationError(
                f"the instructions of {_REPLACEMENTS_PER_TRY} attempts in a row were lost",
                type=InstructionsLost.code,
            )
        return await self.standing(record)

    @activity.defn(name="payment.settle")
    async def settle(self, request: SettlePayment) -> Standing:
        """Ask what became of the attempts, and record it: receipt, status and event at once."""
        record = await self.record(request.payment_id)
        await self._audit(record, request.review, request.now)
        asked = {AttemptState.OPEN, AttemptState.DEAD} if request.thorough else {AttemptState.OPEN}
        observed = await _each_of(
            (
                attempt
                for attempt in record.attempts
                if attempt.state in asked and attempt.gateway is request.gateway
            ),
            lambda attempt: self._observe(record, attempt, request.now, request.review),
        )
        return await self.standing(observed or record)

    @activity.defn(name="payment.close")
    async def close(self, request: ClosePayment) -> Standing:
        """Query, close, query each open attempt; then end the payment, unless one has paid."""
        await self._insert_missing(request.order, request.now)
        record = await self.record(request.payment_id)
        await self._audit(record, request.review, request.now)
        closed = await _each_of(
            (
                attempt
                for attempt in record.open_attempts
                if attempt.gateway is request.gateway and attempt.attempt != request.spare
            ),
            lambda attempt: self._close_attempt(record, attempt, request),
        )
        if request.status is None:
            return await self.standing(closed or record)
        return await self._end(request.status, request)

    @activity.defn(name="payment.end")
    async def end(self, request: EndPayment) -> Standing:
        """Give the payment its final status, the gateway being out of reach."""
        await self._insert_missing(request.order, request.now)
        await self._audit(await self.record(request.payment_id), request.review, request.now)
        return await self._end(request.status, request)

    @activity.defn(name="payment.flag")
    async def flag(self, request: FlagPayment) -> None:
        """Put the payment on the list of those that wait for a person."""
        async with self.database.begin() as work:
            await work.attention.raise_(
                request.payment_id, request.reason, request.detail, request.now
            )

    async def _end(self, status: PaymentStatus, request: ClosePayment | EndPayment) -> Standing:
        async with self.database.begin() as work:
            await observations.end(
                work, request.payment_id, status, request.now, reviewed=request.review is not None
            )
            record = await found(work, request.payment_id)
        return await self.standing(record)

    async def _store_outcome(
        self,
        record: PaymentRecord,
        attempt: AttemptRecord,
        outcome: Opened | Refused,
        now: datetime,
    ) -> PaymentRecord:
        payment_id = record.payment.id
        async with self.database.begin() as work:
            if isinstance(outcome, Opened):
                await work.payments.record_opened(
                    payment_id,
                    attempt.attempt,
                    reference=outcome.reference,
                    next_action=outcome.next_action,
                    now=now,
                )
            else:
                await work.attempts.set(
                    payment_id, attempt.attempt, state=AttemptState.DEAD, now=now
                )
                await work.payments.move(
                    payment_id, PaymentStatus.FAILED, failure=outcome.failure, now=now
                )
            return await found(work, payment_id)

    async def _charge(
        self, record: PaymentRecord, attempt: AttemptRecord, now: datetime
    ) -> PaymentRecord:
        """Ask for the money itself, and never under another number: both might bring it.

        A charge that may have been asked for is repeated whatever has become of its method since:
        only the gateway knows whether the money was taken. Outside the mandate's window it is not
        called.
        """
        is_first = attempt.gateway_status is None
        at = time_of_windows(record, now, self._clock())
        if not may_call(record, at):
            return await self._hold_back(record, attempt, now, at)
        if is_first:
            async with self.database.begin() as work:
                record = await mark_charge(work, record, attempt, now)
        if record.payment.status is not PaymentStatus.CREATED:
            return record
        outcome: OpenOutcome
        try:
            with asking(attempt.gateway):
                outcome = await self.gateway(attempt.gateway).open(order_of(record, attempt))
        except InstructionsLost:
            outcome = AlreadyOrdered()
        except GatewayMisconfigured as problem:
            if not is_first:
                raise
            outcome = Refused(Failure(code=problem.code, message=problem.detail))
        if not isinstance(outcome, AlreadyOrdered):
            return await self._store_outcome(record, attempt, outcome, now)
        if outcome.seen is not None:
            return await self._record(record, attempt, outcome.seen, now)
        record = await self._accepted(record, attempt, outcome.reference, now)
        return await self._observe(record, record.attempt(attempt.attempt), now)

    async def _hold_back(
        self, record: PaymentRecord, attempt: AttemptRecord, now: datetime, at: datetime
    ) -> PaymentRecord:
        """Wait for the window, or fail where it does not open again; what may have been asked for
        before is asked after."""
        is_asked = attempt.gateway_status is not None
        held = held_back(record, at, is_asked=is_asked)
        if not is_asked:
            if held is not None:
                raise held
            async with self.database.begin() as work:
                return await close_unasked(work, record, attempt, now)
        answer = await _ask(self.gateway(attempt.gateway), order_of(record, attempt), evidence=None)
        if isinstance(answer, Observation) and answer.state is ObservedState.ABSENT:
            assert held is not None, "what may have been asked for is asked after"
            raise held
        record = await self._accepted(record, attempt, None, now)
        return await self._record(record, attempt, answer, now)

    async def _accepted(
        self, record: PaymentRecord, attempt: AttemptRecord, reference: str | None, now: datetime
    ) -> PaymentRecord:
        """The gateway has the order; what becomes of it is asked after."""
        payment_id = record.payment.id
        async with self.database.begin() as work:
            await work.payments.move(payment_id, PaymentStatus.PROCESSING, now=now)
            if reference is not None:
                await work.attempts.set(payment_id, attempt.attempt, reference=reference, now=now)
            return await found(work, payment_id)

    async def _replace(
        self, record: PaymentRecord, lost: AttemptRecord, now: datetime
    ) -> PaymentRecord:
        """Open under the next number. Nobody has the lost one's instructions, so no money is at
        risk; it is watched all the same until it is dead."""
        payment_id, following = record.payment.id, lost.attempt + 1
        async with self.database.begin() as work:
            if following > MAX_ATTEMPT:
                await work.payments.move(
                    payment_id,
                    PaymentStatus.FAILED,
                    failure=Failure(
                        code="attempts_exhausted",
                        message=f"the gateway lost the instructions of {MAX_ATTEMPT} attempts",
                    ),
                    now=now,
                )
            else:
                await work.attempts.replace(
                    payment_id, following, lost.gateway, lost.method, lost.expires_at, now
                )
            return await found(work, payment_id)

    async def _close_attempt(
        self, record: PaymentRecord, attempt: AttemptRecord, request: ClosePayment
    ) -> PaymentRecord:
        async def observe(record: PaymentRecord) -> PaymentRecord:
            return await self._observe(
                record, attempt, request.now, request.review, is_closing=True
            )

        record = await observe(record)
        if not record.is_open(attempt.attempt):
            return record
        with asking(attempt.gateway):
            await self.gateway(attempt.gateway).close(order_of(record, attempt))
        return await observe(record)

    async def _observe(
        self,
        record: PaymentRecord,
        attempt: AttemptRecord,
        now: datetime,
        review: ReviewDecision | None = None,
        *,
        is_closing: bool = False,
    ) -> PaymentRecord:
        """Ask the gateway about one attempt and record its answer in one transaction."""
        gateway = self.gateway(attempt.gateway)
        answer = await _ask(
            gateway,
            order_of(record, attempt),
            evidence=review.gateway_number if review is not None else None,
        )
        return await self._record(record, attempt, answer, now, review, is_closing=is_closing)

    async def _record(
        self,
        record: PaymentRecord,
        attempt: AttemptRecord,
        answer: observations.Answer,
        now: datetime,
        review: ReviewDecision | None = None,
        *,
        is_closing: bool = False,
    ) -> PaymentRecord:
        payment_id = record.payment.id
        async with self.database.begin() as work:
            await observations.record(
                work,
                payment_id=payment_id,
                attempt=attempt.attempt,
                answer=answer,
                orders_expire=self.gateway(attempt.gateway).capabilities.orders_expire,
                now=now,
                reviewed=review is not None,
                is_closing=is_closing,
                is_returning=review is not None and review.action is ReviewAction.RETURN,
            )
            return await found(work, payment_id)

    async def _insert_missing(self, order: PaymentOrder | None, now: datetime) -> None:
        if order is not None:
            async with self.database.single() as work:
                await work.payments.insert(order, now)

    async def _audit(
        self, record: PaymentRecord, review: ReviewDecision | None, now: datetime
    ) -> None:
        if review is None:
            return
        async with self.database.begin() as work:
            await work.reviews.record(
                record.payment.id,
                action=review.action,
                reason=review.reason,
                actor=review.reviewed_by,
                gateway_number=review.gateway_number,
                now=now,
            )


async def _each_of(
    attempts: Iterable[AttemptRecord], act: Callable[[AttemptRecord], Awaitable[PaymentRecord]]
) -> PaymentRecord | None:
    """Act on every attempt, the newest first: one that gives no answer must not hide another.

    The record as the last one left it. Raises the first problem once all were tried.
    """
    problems: list[Exception] = []
    record = None
    for attempt in sorted(attempts, key=lambda one: -one.attempt):
        try:
            record = await act(attempt)
        except (ApplicationError, GatewayMisconfigured) as problem:
            problems.append(problem)
    if problems:
        raise problems[0]
    return record


async def _ask(gateway: Gateway, order: Order, *, evidence: str | None) -> observations.Answer:
    """The gateway's word; looked up by an operator's evidence, if that is of this very order."""
    try:
        with asking(gateway.name):
            answer = await gateway.query(order, gateway_number=evidence)
    except AnswerUntrusted as problem:
        if evidence is None or problem.reason != "order_mismatch":
            return problem
    else:
        if evidence is None or answer.state is not ObservedState.ABSENT:
            return answer
    return await _ask(gateway, order, evidence=None)
