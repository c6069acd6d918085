"""Refunds that a gateway made for us, and that the record has lost."""

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from billing.identifiers import REFUND, make_id
from billing.payment import GatewayName
from gateways.gateway import RefundOrder
from tests.fixtures.house import House


async def made_and_lost(house: House, payment: dict[str, Any], amount_minor: int) -> str:
    """Given back under a number of ours, which is returned, and not in the record: as after the
    database was restored."""
    [receipt] = await house.receipts(payment["id"])
    lost = RefundOrder(
        number=make_id(REFUND, time.time_ns() // 1_000_000, secrets.token_bytes(10)),
        payment_number=payment["id"],
        payment_reference=receipt.gateway_reference,
        paid_minor=payment["amount"],
        amount_minor=amount_minor,
        currency=payment["currency"],
        reason="before the restore",
        created_at=datetime.now(UTC),
    )
    await house.gateways[GatewayName(payment["gateway"])].refund(lost)
    return lost.number
