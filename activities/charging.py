"""Whether a payment may be charged to its saved method, decided once, before it is asked for; and
when, looked at before each call."""

from datetime import datetime, timedelta
from typing import Final

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.placing import found
from billing.errors import MethodNotUsable
from billing.method import MethodStatus
from billing.payment import AttemptState, DeclineClass, Failure, PaymentStatus
from billing.rails import next_call
from storage.database import UnitOfWork
from storage.payment_rows import AttemptRecord, PaymentRecord

ASKED: Final = "charge asked for"
"""In place of the gateway's word, until there is one: from here on money may be taken."""

_NOT_USABLE: Final = Failure(
    code=MethodNotUsable.code,
    message="the saved method is not an active one of this user at this gateway",
)
_ABOVE_LIMIT: Final = Failure(
    code=MethodNotUsable.code,
    message="the payer has not consented to so large a charge",
)
_OUTSIDE_WINDOW: Final = Failure(
    code="outside_window",
    advice=DeclineClass.SOFT,
    message="the time in which the saved method may be charged was over before it was asked for",
)
_ASKED_AFTER: Final = timedelta(minutes=10)
"""How often a charge whose outcome is unknown is asked after while it must not be repeated."""


def time_of_windows(record: PaymentRecord, told: datetime, wall: datetime) -> datetime:
    """The time by which the windows of mandates are kept: long after the instant that was told,
    where nobody was there to make the call, and ahead of wall time by a test clock."""
    return max(told, wall + timedelta(seconds=record.order.clock_ahead))


def may_call(record: PaymentRecord, at: datetime) -> bool:
    """Whether the charge may be asked for at that instant."""
    return next_call(record.payment.gateway, record.order.charge_until, at) == at


def held_back(record: PaymentRecord, at: datetime, *, is_asked: bool) -> ApplicationError | None:
    """Have Temporal try again when the charge may be asked for, or sooner if it may have been asked
    for before; None where that time never comes."""
    opens_at = next_call(record.payment.gateway, record.order.charge_until, at)
    if is_asked:
        pause = _ASKED_AFTER if opens_at is None else min(opens_at - at, _ASKED_AFTER)
    elif opens_at is None or opens_at >= record.payment.expires_at:
        return None
    else:
        pause = opens_at - at
    return ApplicationError(
        f"{record.payment.gateway.value} must not be asked for a charge now",
        type=_OUTSIDE_WINDOW.code,
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=pause,
    )


async def close_unasked(
    work: UnitOfWork, record: PaymentRecord, attempt: AttemptRecord, now: datetime
) -> PaymentRecord:
    """Fail the payment that can no longer be asked for, unless it was asked for meanwhile."""
    payment_id = record.payment.id
    await work.attempts.hold(payment_id)
    record = await found(work, payment_id)
    if record.attempt(attempt.attempt).gateway_status is not None:
        raise ApplicationError("it was asked for meanwhile", type=_OUTSIDE_WINDOW.code)
    return await _fail(work, record, attempt, _OUTSIDE_WINDOW, now)


async def mark_charge(
    work: UnitOfWork, record: PaymentRecord, attempt: AttemptRecord, now: datetime
) -> PaymentRecord:
    """Mark the charge as asked for, or fail the payment where its method cannot be charged.

    The method's user is held: one that ends afterwards ends after this charge.
    """
    payment_id = record.payment.id
    if record.mandate is not None:
        await work.methods.hold(record.mandate.method_id)
    await work.attempts.hold(payment_id)
    record = await found(work, payment_id)
    failure = refusal_of(record)
    if failure is None:
        await work.attempts.set(payment_id, attempt.attempt, gateway_status=ASKED, now=now)
        return record
    return await _fail(work, record, attempt, failure, now)


async def _fail(
    work: UnitOfWork,
    record: PaymentRecord,
    attempt: AttemptRecord,
    failure: Failure,
    now: datetime,
) -> PaymentRecord:
    payment_id = record.payment.id
    await work.attempts.set(payment_id, attempt.attempt, state=AttemptState.DEAD, now=now)
    await work.payments.move(payment_id, PaymentStatus.FAILED, failure=failure, now=now)
    return await found(work, payment_id)


def refusal_of(record: PaymentRecord) -> Failure | None:
    """Why the payment must not be charged: its saved method is no active one of the payment's own
    user and gateway, or may not be charged so much."""
    mandate, payment = record.mandate, record.payment
    if mandate is None or (
        mandate.application,
        mandate.user_id,
        mandate.gateway,
        mandate.status,
    ) != (record.order.application, payment.user_id, payment.gateway, MethodStatus.ACTIVE):
        return _NOT_USABLE
    return None if mandate.allows(payment.amount, payment.currency) else _ABOVE_LIMIT
