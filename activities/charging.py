"""Whether a payment may be charged to its saved method: decided once, before it is asked for."""

from datetime import datetime
from typing import Final

from activities.placing import found
from billing.errors import MethodNotUsable
from billing.method import MethodStatus
from billing.payment import AttemptState, Failure, PaymentStatus
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
