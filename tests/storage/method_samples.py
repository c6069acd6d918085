"""Saved methods for tests of the record."""

from itertools import count
from typing import Any

from billing.identifiers import METHOD, make_id
from billing.method import CardFace, MethodStatus
from billing.method_messages import MethodOrder
from billing.payment import GatewayName
from storage.database import Database
from tests.storage.samples import NOW

CARD = CardFace(brand="visa", last4="4242", expires_month=4, expires_year=2028)
_numbers = count(1)


def make_method(**changed: Any) -> MethodOrder:
    """An order of its own: each gets a later id than the one before."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "method_id": make_id(
            METHOD, int(NOW.timestamp() * 1000) + number, number.to_bytes(10, "big")
        ),
        "application": "shop",
        "user_id": "user-1",
        "gateway": GatewayName.STRIPE,
        "currency": "USD",
        "return_url": "https://shop.example/back",
        "created_at": NOW,
    }
    return MethodOrder(**(values | changed))


async def activate(database: Database, order: MethodOrder, **changed: Any) -> MethodStatus:
    """The payer has consented."""
    values: dict[str, Any] = {
        "reference": f"gw_{order.method_id}",
        "card": CARD,
        "most_minor": None,
        "ends_at": None,
        "now": NOW,
    }
    async with database.begin() as work:
        await work.methods.hold(order.method_id)
        return await work.methods.activate(order.method_id, **(values | changed))


async def save(database: Database, **changed: Any) -> MethodOrder:
    """A method that may be charged."""
    order = make_method(**changed)
    async with database.begin() as work:
        await work.methods.insert(order, NOW)
    await activate(database, order)
    return order
