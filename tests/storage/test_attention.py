"""What waits for a person, and the audit row of each decision."""

import asyncio
from datetime import timedelta

import psycopg

from billing.messages import ReviewAction
from storage.database import Database
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW, make_order


async def call(database: Database, payment_id: str, reason: str, detail: str = "why") -> bool:
    async with database.begin() as work:
        return await work.attention.raise_(payment_id, reason, detail, NOW)


async def waiting(database: Database, payment_id: str | None = None) -> set[tuple[str, str]]:
    async with database.begin() as work:
        return {(one.payment_id, one.reason) for one in await work.attention.open(payment_id)}


async def test_a_person_is_called_once_for_the_same(database: Database) -> None:
    calls = await asyncio.gather(*(call(database, "pay_once", "unknown_status") for _ in range(10)))
    assert sorted(calls) == [False] * 9 + [True]
    assert await call(database, "pay_once", "amount_mismatch")
    assert await waiting(database, "pay_once") == {
        ("pay_once", "unknown_status"),
        ("pay_once", "amount_mismatch"),
    }


async def test_one_reason_or_all_are_resolved(database: Database) -> None:
    for reason in ("a", "b", "c"):
        await call(database, "pay_resolved", reason)
    await call(database, "pay_other", "a")
    async with database.begin() as work:
        await work.attention.resolve("pay_resolved", NOW, "a")
    assert await waiting(database, "pay_resolved") == {("pay_resolved", "b"), ("pay_resolved", "c")}
    async with database.begin() as work:
        await work.attention.resolve("pay_resolved", NOW)
    assert await waiting(database, "pay_resolved") == set()
    assert ("pay_other", "a") in await waiting(database)


async def test_the_same_may_come_up_again_once_resolved(database: Database) -> None:
    assert await call(database, "pay_again", "a", "first")
    async with database.begin() as work:
        await work.attention.resolve("pay_again", NOW)
    assert await call(database, "pay_again", "a", "second")
    async with database.begin() as work:
        (only,) = await work.attention.open("pay_again")
    assert (only.detail, only.raised_at) == ("second", NOW)


async def test_a_decision_is_written_once_however_often_it_is_repeated(
    database: Database, database_urls: DatabaseUrls
) -> None:
    order = make_order()
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
    for now in (NOW, NOW, NOW + timedelta(minutes=1)):
        async with database.begin() as work:
            await work.reviews.record(
                order.payment_id,
                action=ReviewAction.RETRY,
                reason="asked the bank",
                actor="key_1",
                gateway_number="4200001",
                now=now,
            )
    async with await psycopg.AsyncConnection.connect(database_urls.app) as connection:
        rows = await connection.execute(
            "SELECT action, reason, actor, gateway_number, effective_at FROM reviews ORDER BY id"
        )
        found = await rows.fetchall()
    assert found == [
        ("retry", "asked the bank", "key_1", "4200001", moment)
        for moment in (NOW, NOW + timedelta(minutes=1))
    ]
