"""What a saved method's row says, and how its order and instructions are sealed in it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import RowMapping

from billing.method import CardFace, MethodStatus, SavedMethod
from billing.method_messages import MethodOrder
from billing.payment import Failure, GatewayName, NextAction, NoAction
from runtime.cipher import Cipher

_NEXT_ACTION: Final[TypeAdapter[NextAction]] = TypeAdapter(NextAction)
_ORDER_PURPOSE: Final = "payment_methods.order_document"


@dataclass(frozen=True)
class MandateRecord:
    """A mandate as its gateway knows it, as far as that is known: `number` is ours, the references
    are the gateway's. `most_minor` (minor units of `currency`) is the most that the payer lets one
    charge come to, where there is such a limit."""

    method_id: str
    application: str
    user_id: str
    gateway: GatewayName
    status: MethodStatus
    number: str
    reference: str | None
    setup_reference: str | None
    customer_reference: str | None
    rhythm_months: int | None
    currency: str
    most_minor: int | None

    def allows(self, amount_minor: int, currency: str) -> bool:
        """Whether one charge may come to that: a limit is one of its own currency."""
        if self.most_minor is None or self.currency != currency:
            return True
        return amount_minor <= self.most_minor

    def keeps(self, cycle_months: int) -> bool:
        """Whether it may be charged as often as that."""
        if self.rhythm_months is None or self.gateway is not GatewayName.ALIPAY:
            return True
        return self.rhythm_months <= cycle_months

    @property
    def has_windows(self) -> bool:
        """Whether its gateway takes one charge a period, at its time: WeChat Pay's contracts, and
        agreements of Alipay's with a rhythm."""
        has_rhythm = self.gateway is GatewayName.ALIPAY and self.rhythm_months is not None
        return has_rhythm or self.gateway is GatewayName.WECHATPAY


@dataclass(frozen=True)
class MethodRecord:
    """All that is needed to go on with a saved method."""

    method: SavedMethod
    order: MethodOrder
    mandate: MandateRecord
    gateway_status: str | None
    """The gateway's last word."""
    is_released: bool
    """Whether an ended one is known to have ended at its gateway too."""


def seal_method_order(cipher: Cipher, order: MethodOrder) -> bytes:
    """The order holds where the payer comes back to."""
    return cipher.seal(order.model_dump_json().encode(), _ORDER_PURPOSE)


def seal_method_action(cipher: Cipher, method_id: str, action: NextAction) -> bytes:
    """Sealed for this method: instructions moved to another row do not open."""
    return cipher.seal(_NEXT_ACTION.dump_json(action), _action_purpose(method_id))


def _action_purpose(method_id: str) -> str:
    return f"payment_methods.next_action/{method_id}"


def method_of(row: RowMapping, cipher: Cipher) -> SavedMethod:
    """The method as everybody sees it."""
    sealed = row["next_action"]
    action: NextAction = NoAction()
    if sealed is not None:
        action = _NEXT_ACTION.validate_json(cipher.open(sealed, _action_purpose(row["id"])))
    return SavedMethod(
        id=row["id"],
        user_id=row["user_id"],
        gateway=GatewayName(row["gateway"]),
        status=MethodStatus(row["status"]),
        is_default=row["is_default"],
        card=row["card"] and CardFace.model_validate(row["card"]),
        most=row["most_minor"],
        next_action=action,
        failure=row["failure"] and Failure.model_validate(row["failure"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        ends_at=row["ends_at"],
        ended_at=row["ended_at"],
    )


def mandate_of(row: RowMapping, prefix: str = "") -> MandateRecord:
    """`prefix` is that of the columns' names, where the row is joined to another."""
    return MandateRecord(
        method_id=row[f"{prefix}id"],
        application=row[f"{prefix}application"],
        user_id=row[f"{prefix}user_id"],
        gateway=GatewayName(row[f"{prefix}gateway"]),
        status=MethodStatus(row[f"{prefix}status"]),
        number=row[f"{prefix}number"],
        reference=row[f"{prefix}reference"],
        setup_reference=row[f"{prefix}setup_reference"],
        customer_reference=row[f"{prefix}customer_reference"],
        rhythm_months=row[f"{prefix}rhythm_months"],
        currency=row[f"{prefix}currency"],
        most_minor=row[f"{prefix}most_minor"],
    )


MANDATE_COLUMNS: Final = (
    "id",
    "application",
    "user_id",
    "gateway",
    "status",
    "number",
    "reference",
    "setup_reference",
    "customer_reference",
    "rhythm_months",
    "currency",
    "most_minor",
)
"""What `mandate_of` reads."""


def method_record_of(row: RowMapping, cipher: Cipher) -> MethodRecord:
    return MethodRecord(
        method=method_of(row, cipher),
        order=MethodOrder.model_validate_json(cipher.open(row["order_document"], _ORDER_PURPOSE)),
        mandate=mandate_of(row),
        gateway_status=row["gateway_status"],
        is_released=row["released_at"] is not None,
    )


def method_event_data_of(row: RowMapping) -> dict[str, Any]:
    """What a subscriber needs to know of a change; never the payer's instructions."""
    ends_at, expires_at = row["ends_at"], row["expires_at"]
    return {
        "status": row["status"],
        "gateway": row["gateway"],
        "user_id": row["user_id"],
        "is_default": row["is_default"],
        "card": row["card"],
        "failure": row["failure"],
        "ends_at": ends_at and ends_at.isoformat(),
        "expires_at": expires_at and expires_at.isoformat(),
    }


def face_values(
    reference: str | None,
    card: CardFace | None,
    most_minor: int | None,
    ends_at: datetime | None,
) -> dict[str, Any]:
    """What the gateway said where it did: what was known before is not forgotten."""
    said = {
        "reference": reference,
        "card": card.model_dump(mode="json") if card is not None else None,
        "most_minor": most_minor,
        "ends_at": ends_at,
    }
    return {column: value for column, value in said.items() if value is not None}
