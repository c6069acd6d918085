"""Customers: recorded with their first payment, whoever orders at the same time."""

import asyncio
from datetime import timedelta

from storage.database import Database
from tests.storage.samples import NOW, make_order


async def test_recorded_once_with_the_first_payment(database: Database) -> None:
    orders = [
        make_order(user_id="customer_1", created_at=NOW + timedelta(days=days)) for days in (0, 1)
    ]
    for order in (*orders, orders[0]):
        async with database.single() as work:
            await work.payments.insert(order, NOW)
    async with database.single() as work:
        assert await work.customers.since("shop", "customer_1") == NOW
        assert await work.customers.since("another", "customer_1") is None
        assert await work.customers.since("shop", "customer_2") is None


async def test_many_first_payments_at_once(database: Database) -> None:
    async def insert() -> None:
        async with database.single() as work:
            await work.payments.insert(make_order(user_id="customer_3"), NOW)

    await asyncio.gather(*(insert() for _ in range(10)))
    async with database.single() as work:
        assert await work.customers.since("shop", "customer_3") == NOW
