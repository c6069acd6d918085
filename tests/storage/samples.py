"""Orders and moments for tests of the record."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from billing.identifiers import PAYMENT, make_id
from billing.messages import PaymentOrder
from billing.payment import GatewayName, PaymentMethod

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_numbers = count(1)


def make_order(**changed: Any) -> PaymentOrder:
    """An order of its own: each gets a later id than the one before."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "payment_id": make_id(
            PAYMENT, int(NOW.timestamp() * 1000) + number, number.to_bytes(10, "big")
        ),
        "application": "shop",
        "user_id": "user-1",
        "amount_minor": 2900,
        "currency": "CNY",
        "gateway": GatewayName.ALIPAY,
        "method": PaymentMethod.QR,
        "description": "Gold membership",
        "metadata": {"plan": "gold"},
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30),
    }
    return PaymentOrder(**(values | changed))
