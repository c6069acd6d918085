"""What a refund's row says, together with the receipt that it gives back from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from billing.identifiers import attempt_number
from billing.messages import RefundRequest
from billing.payment import Failure, GatewayName, Review
from billing.refund import Refund, RefundCause, RefundStatus


@dataclass(frozen=True)
class RefundRecord:
    """All that is needed to go on with a refund, `payment_number`, `payment_reference` and
    `paid_minor` (minor units) being those of the order that the money came in by."""

    refund: Refund
    application: str
    attempt: int
    ask_at: datetime
    """When the gateway may be asked at the earliest."""
    asked_at: datetime | None
    """When it was last asked."""
    gateway_status: str | None
    payment_number: str
    payment_reference: str
    paid_minor: int
    kept: bool
    """Whether the receipt paid for the payment."""


def request_of(record: RefundRecord, user_id: str) -> RefundRequest:
    """What the refund's workflow is started with, once it is reserved."""
    refund = record.refund
    return RefundRequest(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        application=record.application,
        user_id=user_id,
        gateway=refund.gateway,
        currency=refund.currency,
        amount_minor=refund.amount,
        attempt=record.attempt,
        cause=refund.cause,
        reason=refund.reason,
        created_at=refund.created_at,
    )


def refund_event_data_of(row: RowMapping) -> dict[str, Any]:
    """What a subscriber needs to know of a change."""
    return {
        "payment_id": row["payment_id"],
        "cause": row["cause"],
        "status": row["status"],
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "gateway": row["gateway"],
        "gateway_reference": row["gateway_reference"],
        "failure": row["failure"],
        "review": row["review"],
    }


def refund_of(row: RowMapping) -> RefundRecord:
    """From the refund's row joined with its receipt's reference and amount."""
    return RefundRecord(
        refund=Refund(
            id=row["id"],
            payment_id=row["payment_id"],
            cause=RefundCause(row["cause"]),
            status=RefundStatus(row["status"]),
            amount=row["amount_minor"],
            currency=row["currency"],
            gateway=GatewayName(row["gateway"]),
            reason=row["reason"],
            gateway_reference=row["gateway_reference"],
            failure=row["failure"] and Failure.model_validate(row["failure"]),
            review=row["review"] and Review.model_validate(row["review"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            refunded_at=row["refunded_at"],
        ),
        application=row["application"],
        attempt=row["attempt"],
        ask_at=row["ask_at"],
        asked_at=row["asked_at"],
        gateway_status=row["gateway_status"],
        payment_number=attempt_number(row["payment_id"], row["attempt"]),
        payment_reference=row["payment_reference"],
        paid_minor=row["paid_minor"],
        kept=row["kept"],
    )


def told(reference: str | None, status: str | None) -> dict[str, str]:
    """The gateway's words where there are any: what was known before is not forgotten."""
    words = {"gateway_reference": reference, "gateway_status": status}
    return {column: word for column, word in words.items() if word is not None}
