"""What the refund workflow has done: reserve, ask, settle.

The reservation comes before the gateway is asked, and is put back only by the gateway's own word
that the refund has failed. Every activity can be repeated at any point: the refund's id is its
number at the gateway, and the ledger takes each cause once.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.asking import asking
from billing.errors import (
    AnswerUntrusted,
    BalanceInsufficient,
    GatewayMisconfigured,
    PaymentNotFound,
    PaymentNotRefundable,
    PointsAlreadySpent,
    RefundExceedsPayment,
    RefundNotFound,
)
from billing.identifiers import attempt_number
from billing.messages import AskRefund, RefundRequest, RefundStanding, ReserveRefund, SettleRefund
from billing.payment import Failure, GatewayName, Review
from billing.points import ClawbackPolicy
from billing.refund import RefundCause, RefundStatus
from gateways.gateway import Gateway, RefundObservation, RefundOrder, RefundState
from storage.database import Database, UnitOfWork
from storage.ledger import Posting
from storage.refunds import RefundRecord

REFUSALS: Final = (
    PaymentNotFound,
    PaymentNotRefundable,
    RefundExceedsPayment,
    PointsAlreadySpent,
)
"""What a reservation comes to when nothing can be reserved: nothing was changed."""

Answer = RefundObservation | AnswerUntrusted

CONTRADICTED: Final = "refund_contradicted"
"""Why a person is called for: a refund that had failed was made all the same."""

UNPAYABLE: Final = "balance_insufficient"
"""Why a person is called for: the merchant's balance at the gateway does not cover a refund."""

UNANSWERED: Final = "refund_unanswered"
"""Why a person is called for: nobody knows for long what became of a refund."""

UNANSWERED_AFTER: Final = timedelta(hours=2)


class RefundActivities:
    """`gateways` are the ones switched on; `clawback` is the deployment's rule for points."""

    def __init__(
        self,
        database: Database,
        gateways: Mapping[GatewayName, Gateway],
        clawback: ClawbackPolicy = ClawbackPolicy.REFUSE,
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._clawback = clawback

    @activity.defn(name="refund.reserve")
    async def reserve(self, request: ReserveRefund) -> RefundStanding:
        """Set the amount aside, so that no other refund can have it. Raises ApplicationError of
        the refusal's own type, not to be repeated."""
        wanted = request.request
        try:
            async with self._database.begin() as work:
                record = await work.refunds.reserve(
                    refund_id=wanted.refund_id,
                    payment_id=wanted.payment_id,
                    application=wanted.application,
                    attempt=wanted.attempt,
                    amount_minor=wanted.amount_minor,
                    cause=wanted.cause,
                    reason=wanted.reason,
                    now=request.now,
                    clawback=self._clawback,
                )
                await _audit(work, wanted, request.now)
        except REFUSALS as refusal:
            raise ApplicationError(
                refusal.detail, refusal.param, type=refusal.code, non_retryable=True
            ) from refusal
        return _standing(record)

    @activity.defn(name="refund.ask")
    async def ask(self, request: AskRefund) -> RefundStanding:
        """Ask for the refund, or repeat it under its number."""
        record = await self._record(request.refund_id)
        if record.refund.status is not RefundStatus.PENDING or _is_elsewhere(record):
            return _standing(record)
        return await self._ask(record, request.now)

    @activity.defn(name="refund.settle")
    async def settle(self, request: SettleRefund) -> RefundStanding:
        """Ask what became of the refund; one the gateway does not know is asked for again. One made
        elsewhere stands as its discovery has it."""
        record = await self._record(request.refund_id)
        if _is_elsewhere(record):
            return _standing(record)
        answer = await self._told(record, lambda at: at.query_refund(order_of(record)), request.now)
        if isinstance(answer, RefundObservation) and answer.state is RefundState.ABSENT:
            # Whoever asked at the same time may have seen it fail: what it had set aside is then
            # free for another refund.
            record = await self._record(request.refund_id)
            if record.refund.status.has_ended:
                return _standing(record)
            return await self._ask(record, request.now)
        return await self._store(record, answer, request.now)

    async def _ask(self, record: RefundRecord, now: datetime) -> RefundStanding:
        answer = await self._told(record, lambda at: at.refund(order_of(record)), now)
        return await self._store(record, answer, now, is_asked=True)

    async def _told(
        self,
        record: RefundRecord,
        ask: Callable[[Gateway], Awaitable[RefundObservation]],
        now: datetime,
    ) -> Answer:
        """The gateway's word. Raises GatewayMisconfigured, and ApplicationError if there is none,
        having called for a person where one could help, or it has been silent for long."""
        try:
            with asking(record.refund.gateway):
                return await ask(self._gateway(record))
        except AnswerUntrusted as problem:
            return problem
        except (ApplicationError, GatewayMisconfigured) as problem:
            if isinstance(problem, ApplicationError) and problem.type == BalanceInsufficient.code:
                await self._call_for_money(record, now)
            elif _is_long_unanswered():
                await self._call_for_answer(record, now)
            raise

    async def _call_for_money(self, record: RefundRecord, now: datetime) -> None:
        async with self._database.single() as work:
            await work.attention.raise_(
                record.refund.payment_id,
                UNPAYABLE,
                f"{record.refund.gateway.value} cannot pay refund {record.refund.id} out of the"
                " merchant's account: top it up there; the refund is repeated by itself",
                now,
            )

    async def _call_for_answer(self, record: RefundRecord, now: datetime) -> None:
        async with self._database.single() as work:
            await work.attention.raise_(
                record.refund.payment_id,
                UNANSWERED,
                f"{record.refund.gateway.value} has not said for {UNANSWERED_AFTER} what became of"
                f" refund {record.refund.id}: look it up there; it is asked on by itself",
                now,
            )

    async def _store(
        self, record: RefundRecord, answer: Answer, now: datetime, *, is_asked: bool = False
    ) -> RefundStanding:
        async with self._database.begin() as work:
            locked = await work.refunds.find(record.refund.id, lock=True)
            assert locked is not None, "a refund is never deleted"
            if is_asked:
                await work.refunds.note_asked(record.refund.id, now=now + _waited())
            await work.attention.resolve(record.refund.payment_id, now, UNANSWERED)
            await apply(work, locked, answer, now)
            return _standing(await _found(work, record.refund.id))

    async def _record(self, refund_id: str) -> RefundRecord:
        async with self._database.single() as work:
            return await _found(work, refund_id)

    def _gateway(self, record: RefundRecord) -> Gateway:
        name = record.refund.gateway
        gateway = self._gateways.get(name)
        if gateway is None:
            raise GatewayMisconfigured(
                f"{name.value} is not configured on this worker: set its keys and restart it"
            )
        return gateway


def _waited() -> timedelta:
    """How long after it was due this call is made: its queue is long, or calls before it failed.

    Of Temporal's times only the difference counts, its clock not being the workflow's.
    """
    if not activity.in_activity():
        return timedelta(0)
    info = activity.info()
    return max(info.started_time - info.scheduled_time, timedelta(0))


def _is_long_unanswered() -> bool:
    """Whether Temporal has had the gateway asked the same for long."""
    if not activity.in_activity():
        return False
    info = activity.info()
    return info.current_attempt_scheduled_time - info.scheduled_time >= UNANSWERED_AFTER


async def _audit(work: UnitOfWork, wanted: RefundRequest, now: datetime) -> None:
    if wanted.review is not None:
        await work.reviews.record(
            wanted.payment_id,
            action=wanted.review.action,
            reason=wanted.review.reason,
            actor=wanted.review.reviewed_by,
            gateway_number=None,
            now=now,
        )


async def apply(work: UnitOfWork, record: RefundRecord, answer: Answer, now: datetime) -> None:
    """What the gateway said, in status and ledger at once; whoever applies it holds the refund."""
    refund = record.refund
    if isinstance(answer, AnswerUntrusted):
        await _park(work, record, answer.reason, answer.detail, now)
        return
    match answer.state:
        case RefundState.PROCESSING | RefundState.ABSENT:
            if refund.status is not RefundStatus.PROCESSING and not refund.status.has_ended:
                await _move(work, record, RefundStatus.PROCESSING, answer, now)
        case RefundState.SUCCEEDED if refund.status is RefundStatus.FAILED:
            await _contradict(work, record, now)
        case RefundState.SUCCEEDED:
            if refund.status is not RefundStatus.SUCCEEDED:
                await _move(work, record, RefundStatus.SUCCEEDED, answer, now)
                await _post(work, record, f"refund/{refund.id}", now, sign=1)
        case RefundState.FAILED if refund.status is not RefundStatus.FAILED:
            await _move(work, record, RefundStatus.FAILED, answer, now)
            if refund.status is RefundStatus.SUCCEEDED:
                await _post(work, record, f"refund/{refund.id}/failed", now, sign=-1)
        case RefundState.FAILED:
            await work.attention.resolve(refund.payment_id, now, CONTRADICTED)
        case RefundState.STUCK:
            detail = answer.failure.message if answer.failure else answer.status
            await _park(work, record, "refund_stuck", detail, now)
        case RefundState.UNRECOGNISED:
            detail = f"the gateway reports the status {answer.status!r}, which nobody knows"
            await _park(work, record, "unknown_status", detail, now)


async def _contradict(work: UnitOfWork, record: RefundRecord, now: datetime) -> None:
    """A refund that has failed stays so, what it had set aside being free since. The gateway's word
    may be an old one that arrives late, or money has gone that the books do not know of."""
    refund = record.refund
    await work.attention.raise_(
        refund.payment_id,
        CONTRADICTED,
        f"refund {refund.id} over {refund.amount} {refund.currency} in minor units has failed, and"
        f" {refund.gateway.value} says that it was made: look it up there, and refund no more of"
        " the payment before",
        now,
    )


async def _move(
    work: UnitOfWork,
    record: RefundRecord,
    to: RefundStatus,
    answer: RefundObservation,
    now: datetime,
) -> None:
    failure = answer.failure
    if to is RefundStatus.FAILED and failure is None:
        failure = Failure(code="refund_refused", message=f"the gateway says {answer.status}")
    await work.refunds.move(
        record.refund.id,
        to,
        now=now,
        failure=failure if to is RefundStatus.FAILED else None,
        refunded_at=(answer.refunded_at or now) if to is RefundStatus.SUCCEEDED else None,
        gateway_reference=answer.reference,
        gateway_status=answer.status,
    )
    # No longer parked, it has forgotten by its end what a person was called for.
    for reason in _reasons(record):
        await work.attention.resolve(record.refund.payment_id, now, reason)
    if to is RefundStatus.PROCESSING:
        return
    await work.attention.resolve(record.refund.payment_id, now, "balance_insufficient")
    if not record.kept:
        await _tell_of_return(work, record, to, now)


async def _tell_of_return(
    work: UnitOfWork, record: RefundRecord, to: RefundStatus, now: datetime
) -> None:
    """Money that is not ours has gone back, or could not: then a person is called."""
    refund = record.refund
    has_gone = to is RefundStatus.SUCCEEDED
    await work.events.append(
        refund.payment_id,
        record.application,
        "payment.receipt_returned" if has_gone else "payment.return_failed",
        {
            "attempt": record.attempt,
            "amount": refund.amount,
            "currency": refund.currency,
            "gateway": refund.gateway.value,
            "refund_id": refund.id,
        },
        now,
    )
    done, _ = await work.refunds.given_back(refund.payment_id, record.attempt)
    if done >= record.paid_minor:
        await work.attention.resolve(refund.payment_id, now, "return_failed")
        await work.attention.resolve(refund.payment_id, now, "unapplied_receipt")
    if has_gone or done >= record.paid_minor:
        return
    await work.attention.raise_(
        refund.payment_id,
        "return_failed",
        f"{refund.gateway.value} did not carry out {refund.id}, which gives back"
        f" {refund.amount} {refund.currency} in minor units of attempt {record.attempt}: have it"
        " tried again by the review action `return`, or give it back another way",
        now,
    )


def _is_elsewhere(record: RefundRecord) -> bool:
    """Whether it was found at the gateway, under a number that was reserved again since."""
    return record.refund.cause is RefundCause.ELSEWHERE


def _reasons(record: RefundRecord) -> tuple[str, ...]:
    return (record.refund.review.reason,) if record.refund.review is not None else ()


async def _post(
    work: UnitOfWork, record: RefundRecord, cause: str, now: datetime, *, sign: int
) -> None:
    """Out of what it was booked to when it came in, through the gateway's clearing."""
    refund = record.refund
    booked = "revenue" if record.kept else f"unapplied_receipts:{refund.gateway.value}"
    amount = sign * refund.amount
    await work.ledger.post(
        cause,
        now,
        [
            Posting(booked, amount, refund.currency),
            Posting(f"gateway_clearing:{refund.gateway.value}", -amount, refund.currency),
        ],
    )


async def _park(
    work: UnitOfWork, record: RefundRecord, reason: str, detail: str, now: datetime
) -> None:
    """A person must look; the reservation stays, and the gateway is asked on."""
    refund = record.refund
    if not refund.status.has_ended:
        await work.refunds.move(
            refund.id,
            RefundStatus.NEEDS_REVIEW,
            review=Review(reason=reason, detail=detail, since=now),
            now=now,
        )
    await work.attention.raise_(refund.payment_id, reason, f"refund {refund.id}: {detail}", now)


async def _found(work: UnitOfWork, refund_id: str) -> RefundRecord:
    record = await work.refunds.find(refund_id)
    if record is None:
        raise RefundNotFound(f"there is no row of refund {refund_id}")
    return record


def _standing(record: RefundRecord) -> RefundStanding:
    return RefundStanding(refund=record.refund, ask_at=record.ask_at)


def order_of(record: RefundRecord) -> RefundOrder:
    """A refund as its gateway is to know it: the same parameters at every repeat."""
    refund = record.refund
    return RefundOrder(
        number=refund.id,
        payment_number=attempt_number(refund.payment_id, record.attempt),
        payment_reference=record.payment_reference,
        paid_minor=record.paid_minor,
        amount_minor=refund.amount,
        currency=refund.currency,
        reason=refund.reason,
        created_at=refund.created_at,
        reference=refund.gateway_reference,
    )
