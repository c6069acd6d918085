"""Money that no payment waits for: set aside as soon as it is received, and given back.

The reservation is made in the transaction that records the receipt. Whoever dies afterwards, the
sweep finds a refund that has not ended, and starts its workflow.
"""

from datetime import datetime
from typing import Final

from billing.errors import PaymentNotRefundable
from billing.identifiers import return_id
from billing.messages import RefundRequest
from billing.refund import RefundCause
from gateways.gateway import Receipt
from storage.database import UnitOfWork
from storage.payments import AttemptRecord, PaymentRecord
from storage.refund_rows import request_of

REASON: Final = "the payment no longer waited for it"


async def set_aside(
    work: UnitOfWork,
    found: PaymentRecord,
    order: AttemptRecord,
    receipt: Receipt,
    now: datetime,
) -> None:
    """Reserve the whole of a receipt that was not kept; call for a person where its gateway gives
    nothing back any more."""
    payment_id = found.payment.id
    refund_id = return_id(payment_id, order.attempt)
    await work.events.append(
        payment_id,
        found.order.application,
        "payment.receipt_unapplied",
        {
            "attempt": order.attempt,
            "amount": receipt.amount_minor,
            "currency": receipt.currency,
            "gateway": order.gateway.value,
            "gateway_reference": receipt.gateway_reference,
            "refund_id": refund_id,
        },
        now,
    )
    try:
        await work.refunds.reserve(
            refund_id=refund_id,
            payment_id=payment_id,
            application=None,
            attempt=order.attempt,
            amount_minor=None,
            cause=RefundCause.RETURNED,
            reason=REASON,
            now=now,
        )
    except PaymentNotRefundable as refusal:
        await work.attention.raise_(
            payment_id,
            "unapplied_receipt",
            f"{order.gateway.value} took {receipt.amount_minor} {receipt.currency} in minor units"
            f" under {order.number} for a payment that was {found.payment.status.value}, and it"
            f" cannot be returned there: {refusal.detail}",
            now,
        )


async def under_way(work: UnitOfWork, record: PaymentRecord) -> tuple[RefundRequest, ...]:
    """What starts the workflow of each return that has not ended."""
    return tuple(
        request_of(refund, record.payment.user_id)
        for refund in await work.refunds.of_payment(record.payment.id)
        if refund.refund.cause is RefundCause.RETURNED and not refund.refund.status.has_ended
    )
