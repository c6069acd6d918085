"""What a payment's rows say, and how instructions and orders are sealed in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import RowMapping

from billing.dispute import Dispute
from billing.messages import PaymentOrder
from billing.payment import (
    AttemptState,
    Failure,
    GatewayName,
    NextAction,
    NoAction,
    Payer,
    Payment,
    PaymentMethod,
    PaymentStatus,
    PaymentType,
    Review,
)
from runtime.cipher import Cipher
from storage.method_rows import MandateRecord, mandate_of

_NEXT_ACTION: Final[TypeAdapter[NextAction]] = TypeAdapter(NextAction)
ATTEMPT_PREFIX: Final = "attempt__"
MANDATE_PREFIX: Final = "mandate__"
NEEDS_ATTENTION: Final = "needs_attention"
UNTRUSTED: Final = "untrusted: "
"""Before the reason, in place of a gateway's word about an attempt that was not believed."""
_ORDER_PURPOSE: Final = "payments.order_document"


class AttemptDetails(BaseModel):
    """What an attempt is placed with beside the payment's own: where the payer comes back to, and
    who pays."""

    model_config = ConfigDict(frozen=True)

    return_url: str | None = None
    payer: Payer | None = None


@dataclass(frozen=True)
class AttemptRecord:
    """One order at a gateway, as far as it is known. `number` is ours, `reference` the gateway's,
    `gateway_status` its last word; `details` None are the order's."""

    attempt: int
    gateway: GatewayName
    method: PaymentMethod
    number: str
    state: AttemptState
    reference: str | None
    gateway_status: str | None
    expires_at: datetime
    opened_at: datetime | None
    details: AttemptDetails | None = None

    @property
    def mistrusted_for(self) -> str | None:
        """The reason for which the gateway's last answer about it was not believed, if so."""
        word = self.gateway_status or ""
        return word.removeprefix(UNTRUSTED) if word.startswith(UNTRUSTED) else None


@dataclass(frozen=True)
class PaymentRecord:
    """All that is needed to go on with a payment: what everybody sees, what was ordered, and
    every attempt at it, oldest first."""

    payment: Payment
    order: PaymentOrder
    attempts: tuple[AttemptRecord, ...]
    needs_attention: bool
    """Whether anything about it waits for a person."""
    mandate: MandateRecord | None = None
    """What it is charged to, where that is a saved method."""

    @property
    def open_attempts(self) -> tuple[AttemptRecord, ...]:
        return tuple(one for one in self.attempts if one.state is AttemptState.OPEN)

    @property
    def has_unapplied_receipt(self) -> bool:
        """Whether money came in that did not pay for the payment."""
        paid = sum(one.state is AttemptState.PAID for one in self.attempts)
        return paid > (self.payment.status is PaymentStatus.SUCCEEDED)

    def attempt(self, number: int) -> AttemptRecord:
        return next(one for one in self.attempts if one.attempt == number)

    def is_open(self, number: int) -> bool:
        return self.attempt(number).state is AttemptState.OPEN


def seal_order(cipher: Cipher, order: PaymentOrder) -> bytes:
    """The order holds who pays: an openid, an address."""
    return cipher.seal(order.model_dump_json().encode(), _ORDER_PURPOSE)


def _order_of(row: RowMapping, cipher: Cipher) -> PaymentOrder:
    """The order as it was given."""
    return PaymentOrder.model_validate_json(cipher.open(row["order_document"], _ORDER_PURPOSE))


def seal_next_action(cipher: Cipher, payment_id: str, action: NextAction) -> bytes:
    """Sealed for this payment: instructions moved to another row do not open."""
    return cipher.seal(_NEXT_ACTION.dump_json(action), _next_action_purpose(payment_id))


def seal_details(cipher: Cipher, number: str, details: AttemptDetails) -> bytes:
    """Sealed for the attempt of this number."""
    return cipher.seal(details.model_dump_json().encode(), _details_purpose(number))


def _details_purpose(number: str) -> str:
    return f"payment_attempts.details/{number}"


def _next_action(row: RowMapping, cipher: Cipher) -> NextAction:
    sealed = row["next_action"]
    if sealed is None:
        return NoAction()
    return _NEXT_ACTION.validate_json(cipher.open(sealed, _next_action_purpose(row["id"])))


def _next_action_purpose(payment_id: str) -> str:
    return f"payments.next_action/{payment_id}"


def payment_of(row: RowMapping, cipher: Cipher) -> Payment:
    """The payment as everybody sees it."""
    return Payment(
        id=row["id"],
        type=PaymentType(row["type"]),
        status=PaymentStatus(row["status"]),
        amount=row["amount_minor"],
        currency=row["currency"],
        amount_refunded=row["amount_refunded_minor"],
        gateway=GatewayName(row["gateway"]),
        method=PaymentMethod(row["method"]),
        user_id=row["user_id"],
        description=row["description"],
        metadata=row["metadata"],
        attempt=row["attempt"],
        gateway_reference=row["gateway_reference"],
        next_action=_next_action(row, cipher),
        failure=row["failure"] and Failure.model_validate(row["failure"]),
        review=row["review"] and Review.model_validate(row["review"]),
        dispute=row["dispute"] and Dispute.model_validate(row["dispute"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        expires_at=row["expires_at"],
        paid_at=row["paid_at"],
    )


def record_of(rows: Sequence[RowMapping], cipher: Cipher) -> PaymentRecord:
    """From the payment's row joined with those of its attempts, one at least."""
    return PaymentRecord(
        payment=payment_of(rows[0], cipher),
        order=_order_of(rows[0], cipher),
        attempts=tuple(_attempt_of(row, cipher) for row in rows),
        needs_attention=rows[0][NEEDS_ATTENTION],
        mandate=(
            mandate_of(rows[0], MANDATE_PREFIX)
            if rows[0][f"{MANDATE_PREFIX}id"] is not None
            else None
        ),
    )


def _attempt_of(row: RowMapping, cipher: Cipher) -> AttemptRecord:
    def said(column: str) -> Any:
        return row[f"{ATTEMPT_PREFIX}{column}"]

    sealed = said("details")
    return AttemptRecord(
        attempt=said("attempt"),
        gateway=GatewayName(said("gateway")),
        method=PaymentMethod(said("method")),
        number=said("number"),
        state=AttemptState(said("state")),
        reference=said("reference"),
        gateway_status=said("gateway_status"),
        expires_at=said("expires_at"),
        opened_at=said("opened_at"),
        details=sealed
        and AttemptDetails.model_validate_json(
            cipher.open(sealed, _details_purpose(said("number")))
        ),
    )


def event_data_of(row: RowMapping) -> dict[str, Any]:
    """What a subscriber needs to know of a change; never the payer's instructions."""
    return {
        "status": row["status"],
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "gateway": row["gateway"],
        "method": row["method"],
        "user_id": row["user_id"],
        "attempt": row["attempt"],
        "gateway_reference": row["gateway_reference"],
        "failure": row["failure"],
        "review": row["review"],
    }
