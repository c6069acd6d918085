"""What an answer of a gateway does to the record, in one transaction.

One place for every observation, whoever asked for it: webhook, poll, return page or operator.
"""

from datetime import datetime, timedelta
from typing import Final

from activities import returns
from billing.errors import AnswerUntrusted, PaymentNotFound
from billing.payment import (
    AttemptState,
    Failure,
    NoAction,
    PaymentMethod,
    PaymentStatus,
    Review,
)
from gateways.gateway import Observation, ObservedState, Receipt, ReceiptMismatch
from storage.database import UnitOfWork
from storage.ledger import Posting
from storage.payment_rows import UNTRUSTED, AttemptRecord, PaymentRecord
from storage.points import User

Answer = Observation | AnswerUntrusted

DEATH_AFTER_EXPIRY: Final = timedelta(seconds=60)
"""Past its own expiry by this much, an order that shows no payment is dead."""

CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""A gateway's clock may close an order this long before ours says it is time."""

_CLOSED: Final = Failure(code="closed_by_operator", message="an operator closed the payment")
_RETURNED: Final = Failure(
    code="returned_by_operator", message="an operator had what came in given back"
)


async def record(
    work: UnitOfWork,
    *,
    payment_id: str,
    attempt: int,
    answer: Answer,
    orders_expire: bool,
    now: datetime,
    reviewed: bool,
    is_closing: bool = False,
    is_returning: bool = False,
) -> None:
    """Apply one answer to one attempt. A parked payment moves only when `reviewed`.

    While the payment `is_closing` by our own doing, a dead attempt is what was asked for and says
    nothing about the status. With `is_returning`, a person has decided that whatever came in is
    not kept, be it the money that was asked for or not.
    """
    found = await work.payments.find(payment_id, lock=True)
    if found is None:
        raise PaymentNotFound(f"there is no row of payment {payment_id}")
    order = found.attempt(attempt)
    if is_returning and isinstance(answer, ReceiptMismatch):
        answer = Observation(ObservedState.PAID, "untrusted", receipt=answer.receipt)
    if isinstance(answer, AnswerUntrusted):
        await _park(work, found, order, answer.reason, answer.detail, now)
        return
    is_moving = not found.payment.status.is_terminal and (
        reviewed or found.payment.status is not PaymentStatus.NEEDS_REVIEW
    )
    if answer.state is ObservedState.UNRECOGNISED:
        detail = f"{order.gateway.value} reports the status {answer.status!r}, which nobody knows"
        await _park(work, found, order, "unknown_status", detail, now)
        return
    is_received = answer.receipt is not None and (is_moving or found.payment.status.is_terminal)
    state = _state_learned(
        answer,
        is_received=is_received,
        is_overdue=orders_expire and _is_overdue(order, answer, now),
    )
    await work.attempts.set(
        payment_id,
        attempt,
        state=state,
        gateway_status=answer.status,
        reference=answer.reference,
        now=now,
    )
    await _strike_mistrust(work, found, order, now)
    if state is AttemptState.PAID and answer.receipt is not None:
        kept = not (found.payment.status.is_terminal or is_returning)
        await _receive(work, found, order, answer.receipt, now, kept=kept)
        if is_returning:
            await end(work, payment_id, PaymentStatus.FAILED, now, reviewed=True, failure=_RETURNED)
    elif state is AttemptState.DEAD:
        failure = answer.failure if answer.state is ObservedState.DEAD else None
        is_moving &= not is_closing
        await _bury(work, found, order, now, is_moving=is_moving, failure=failure)
    elif is_moving and answer.state is not ObservedState.PAID:
        await _await(work, found, answer, now)


def _state_learned(
    answer: Observation, *, is_received: bool, is_overdue: bool
) -> AttemptState | None:
    """What the attempt has come to; None if it is as open as before."""
    match answer.state:
        case ObservedState.PAID if is_received:
            return AttemptState.PAID
        case ObservedState.DEAD:
            return AttemptState.DEAD
        case ObservedState.ABSENT | ObservedState.PENDING if is_overdue:
            return AttemptState.DEAD
    return None


def _is_overdue(order: AttemptRecord, answer: Observation, now: datetime) -> bool:
    """A charge that a gateway has accepted waits for no payer, and does not die by its expiry."""
    is_accepted = order.method is PaymentMethod.SAVED and answer.state is not ObservedState.ABSENT
    return not is_accepted and now >= order.expires_at + DEATH_AFTER_EXPIRY


async def end(
    work: UnitOfWork,
    payment_id: str,
    status: PaymentStatus,
    now: datetime,
    *,
    reviewed: bool,
    failure: Failure = _CLOSED,
) -> None:
    """Give a payment that is still waiting its final status; a parked one only if `reviewed`.

    `failure` is why, where the status is failed.
    """
    found = await work.payments.find(payment_id, lock=True)
    if found is None:
        raise PaymentNotFound(f"there is no row of payment {payment_id}")
    standing = found.payment.status
    if standing.is_terminal or (standing is PaymentStatus.NEEDS_REVIEW and not reviewed):
        return
    why = failure if status is PaymentStatus.FAILED else found.payment.failure
    await work.payments.move(payment_id, status, failure=why, now=now)
    await _answer_call(work, found, now)


async def _receive(
    work: UnitOfWork,
    found: PaymentRecord,
    order: AttemptRecord,
    receipt: Receipt,
    now: datetime,
    *,
    kept: bool,
) -> None:
    """Record money once, in the ledger and in the status; what is not kept is given back."""
    payment_id = found.payment.id
    is_new = await work.receipts.record(
        payment_id=payment_id,
        attempt=order.attempt,
        gateway=order.gateway,
        receipt_reference=receipt.gateway_reference,
        amount_minor=receipt.amount_minor,
        currency=receipt.currency,
        paid_at=receipt.paid_at,
        kept=kept,
        now=now,
    )
    await _strike_undead(work, found, order, now)
    if not is_new:
        return
    credited = "revenue" if kept else f"unapplied_receipts:{order.gateway.value}"
    await work.ledger.post(
        f"receipt/{order.number}",
        now,
        [
            Posting(
                f"gateway_clearing:{order.gateway.value}", receipt.amount_minor, receipt.currency
            ),
            Posting(credited, -receipt.amount_minor, receipt.currency),
        ],
    )
    if kept:
        await work.payments.move(
            payment_id,
            PaymentStatus.SUCCEEDED,
            paid_at=receipt.paid_at,
            gateway_reference=receipt.gateway_reference,
            paid_by=order,
            now=now,
        )
        if found.order.points is not None:
            user = User(found.order.application, found.order.user_id)
            await work.points.grant(user, payment_id, found.order.points, now)
        await _answer_call(work, found, now)
        return
    await returns.set_aside(work, found, order, receipt, now)


async def _bury(
    work: UnitOfWork,
    found: PaymentRecord,
    order: AttemptRecord,
    now: datetime,
    *,
    is_moving: bool,
    failure: Failure | None,
) -> None:
    """The attempt is dead; a payment with none left alive has no try left."""
    await _strike_undead(work, found, order, now)
    if not _is_last_alive(found, order) or not is_moving:
        return
    if found.payment.status is PaymentStatus.CREATED:
        return
    if now + CLOCK_TOLERANCE >= found.payment.expires_at:
        await work.payments.move(found.payment.id, PaymentStatus.EXPIRED, now=now)
    else:
        await work.payments.move(
            found.payment.id,
            PaymentStatus.FAILED,
            failure=failure
            or Failure(code="closed_by_gateway", message="the gateway closed the order unpaid"),
            now=now,
        )
    await _answer_call(work, found, now)


def _is_last_alive(found: PaymentRecord, order: AttemptRecord) -> bool:
    return all(other.attempt == order.attempt for other in found.open_attempts)


async def _strike_mistrust(
    work: UnitOfWork, found: PaymentRecord, order: AttemptRecord, now: datetime
) -> None:
    """An answer about an ended payment is believed after all: nobody need look at it, unless the
    same is said of another of its orders."""
    reason = order.mistrusted_for
    if reason is None or not found.payment.status.is_terminal:
        return
    others = [one for one in found.attempts if one.attempt != order.attempt]
    if all(one.mistrusted_for != reason for one in others):
        await work.attention.resolve(found.payment.id, now, reason)


async def _strike_undead(
    work: UnitOfWork, found: PaymentRecord, order: AttemptRecord, now: datetime
) -> None:
    """The last attempt of an ended payment is over after all: nobody need ask the gateway."""
    if found.payment.status.is_terminal and _is_last_alive(found, order):
        await work.attention.resolve(found.payment.id, now, "attempt_not_dead")


async def _await(
    work: UnitOfWork, found: PaymentRecord, answer: Observation, now: datetime
) -> None:
    """Nothing final: remember the payer's last failed try, and what is being waited for."""
    if found.payment.status is PaymentStatus.CREATED:
        return
    is_charge = found.payment.method is PaymentMethod.SAVED
    waits_for_payer = answer.state is not ObservedState.PROCESSING and not (
        is_charge and found.payment.next_action == NoAction()
    )
    awaited = PaymentStatus.REQUIRES_ACTION if waits_for_payer else PaymentStatus.PROCESSING
    if answer.failure is not None:
        await work.payments.record_failure(found.payment.id, answer.failure, now)
    if found.payment.status is not awaited:
        await work.payments.move(found.payment.id, awaited, now=now)
        await _answer_call(work, found, now)


async def _park(
    work: UnitOfWork,
    found: PaymentRecord,
    order: AttemptRecord,
    reason: str,
    detail: str,
    now: datetime,
) -> None:
    """A machine must not decide this: call for a person, and post nothing.

    An ended payment keeps its status, and the person is called once for what does not change.
    """
    payment_id, word = found.payment.id, f"{UNTRUSTED}{reason}"
    is_ended = found.payment.status.is_terminal
    await work.attempts.set(payment_id, order.attempt, gateway_status=word, now=now)
    if not is_ended:
        await work.payments.move(
            payment_id,
            PaymentStatus.NEEDS_REVIEW,
            review=Review(reason=reason, detail=detail, since=now),
            now=now,
        )
    if not is_ended or order.gateway_status != word:
        await work.attention.raise_(payment_id, reason, detail, now)


async def _answer_call(work: UnitOfWork, found: PaymentRecord, now: datetime) -> None:
    """The payment is no longer parked: strike what it was parked for from the list."""
    if found.payment.review is not None:
        await work.attention.resolve(found.payment.id, now, found.payment.review.reason)
