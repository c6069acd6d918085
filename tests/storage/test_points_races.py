"""Many at once on one balance: never below zero, and exactly as many succeed as can."""

import asyncio
import random
import secrets
import sys

import pytest

from billing.errors import InsufficientPoints, PointsAlreadySpent
from billing.points import ClawbackPolicy, PointsPurchase
from storage.database import Database
from storage.points import User
from tests.storage.points_samples import (
    buy,
    fail_refund,
    look,
    make_transaction_id,
    make_user,
    spend,
)
from tests.storage.samples import NOW, reserve, take


@pytest.fixture
def chance() -> random.Random:
    """A failure shows the seed that repeats its choices."""
    seed = secrets.randbits(32)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)


async def try_to_spend(database: Database, user: User, points: int) -> bool:
    """False where it was refused for the only reason there may be."""
    try:
        await spend(database, user, points)
    except InsufficientPoints:
        return False
    return True


async def test_exactly_as_many_equal_spends_succeed_as_there_are_points_for(
    database: Database,
) -> None:
    for _ in range(3):
        user = make_user()
        await buy(database, user, 100, 5)
        done = await asyncio.gather(*(try_to_spend(database, user, 7) for _ in range(40)))
        assert sum(done) == 15
        account = await look(database, user)
        assert account.balance == 0
        account.require_agreement()


async def test_spends_of_any_size_never_take_more_than_there_is(
    database: Database, chance: random.Random
) -> None:
    for _ in range(10):
        user = make_user()
        await buy(database, user, 60)
        await buy(database, user, 40)
        sizes = [chance.randint(1, 50) for _ in range(15)]
        done = await asyncio.gather(*(try_to_spend(database, user, size) for size in sizes))
        account = await look(database, user)
        spent = sum(size for size, went in zip(sizes, done, strict=True) if went)
        assert account.balance == 100 - spent >= 0
        refused = [size for size, went in zip(sizes, done, strict=True) if not went]
        assert all(size > account.balance for size in refused), "one that fits was refused"
        account.require_agreement()


async def test_the_same_spend_at_once_is_one(database: Database) -> None:
    for _ in range(5):
        user = make_user()
        await buy(database, user, 100)
        transaction_id = make_transaction_id()
        told = await asyncio.gather(
            *(spend(database, user, 30, id=transaction_id) for _ in range(10))
        )
        assert {one.balance_after for one in told} == {70}
        assert (await look(database, user)).balance == 70


async def test_the_same_purchase_at_once_is_credited_once(database: Database) -> None:
    user = make_user()
    purchase = PointsPurchase(package_id="small", points=50, bonus_points=5)
    order = await take(database)

    async def grant() -> int:
        async with database.begin() as work:
            return len(await work.points.grant(user, order.payment_id, purchase, NOW))

    assert sorted(await asyncio.gather(*(grant() for _ in range(10)))) == [0] * 9 + [2]
    account = await look(database, user)
    assert account.balance == 55
    account.require_agreement()


@pytest.mark.parametrize("policy", ClawbackPolicy)
async def test_refunds_spends_and_failures_at_once_agree_in_the_end(
    database: Database, chance: random.Random, policy: ClawbackPolicy
) -> None:
    user = make_user()
    orders = [await buy(database, user, 50, 5, amount_minor=2000) for _ in range(3)]

    async def refund() -> None:
        order = chance.choice(orders)
        try:
            record = await reserve(database, order, amount_minor=50, clawback=policy)
        except PointsAlreadySpent:
            assert policy is not ClawbackPolicy.DEBT
            return
        if chance.random() < 0.5:
            await fail_refund(database, record.refund.id)

    async def use() -> None:
        await try_to_spend(database, user, chance.randint(1, 20))

    async def write_off() -> None:
        async with database.begin() as work:
            await work.points.expire(user, orders[0].created_at)

    deeds = [refund, use, use, write_off]
    for _ in range(3):
        await asyncio.gather(*(chance.choice(deeds)() for _ in range(40)))
        account = await look(database, user)
        account.require_agreement()
        assert account.balance >= 0 or policy is ClawbackPolicy.DEBT
