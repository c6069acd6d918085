"""Random lives of two users, step by step beside the reference: equal to the point."""

import asyncio
import random
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from billing.errors import BillingError, InsufficientPoints
from billing.points import ClawbackPolicy
from billing.refund import RefundStatus
from storage.database import Database
from storage.points import User
from tests.storage.points_model import Model, Refused
from tests.storage.points_samples import (
    buy,
    fail_refund,
    ledger_sums,
    look,
    make_transaction_id,
    spend,
)
from tests.storage.samples import NOW, make_refund_id, reserve

STEPS = 50
RUNS_AT_ONCE = 4


@dataclass
class Life:
    """One user's payments and refunds, in the record and in the model."""

    database: Database
    chance: random.Random
    user: User
    policy: ClawbackPolicy
    model: Model = field(default_factory=Model)
    orders: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    now: datetime = NOW

    async def step(self) -> None:
        self.now += timedelta(hours=self.chance.choice([0, 0, 1, 30]))
        deeds = [self.buy, self.spend, self.refund, self.fail, self.expire]
        weights = [3, 5, 4, 3, 1]
        await self.chance.choices(deeds, weights)[0]()
        await self.compare()

    async def buy(self) -> None:
        points, bonus = self.chance.randint(1, 40), self.chance.choice([0, 0, 1, 7])
        price, days = self.chance.randint(1, 300), self.chance.choice([None, None, 1, 5])
        order = await buy(
            self.database,
            self.user,
            points,
            bonus,
            amount_minor=price,
            days=days,
            now=self.now,
        )
        expires_at = None if days is None else self.now + timedelta(days=days)
        self.model.buy(order.payment_id, price, points, bonus, expires_at, self.now)
        self.orders.append(order.payment_id)
        if self.chance.random() < 0.2:
            assert order.points is not None
            async with self.database.begin() as work:
                again = await work.points.grant(self.user, order.payment_id, order.points, self.now)
            assert again == []

    async def spend(self) -> None:
        points = self.chance.randint(1, 2 + max(1, self.model.spendable(self.now)))
        transaction_id = make_transaction_id()
        try:
            self.model.spend(points, self.now)
        except Refused:
            with pytest.raises(InsufficientPoints):
                await spend(self.database, self.user, points, now=self.now, id=transaction_id)
            return
        for _ in range(self.chance.choice([1, 1, 2])):
            told = await spend(self.database, self.user, points, now=self.now, id=transaction_id)
            assert told.balance_after == self.model.balance

    async def refund(self) -> None:
        refundable = [one for one in self.orders if self.model.left(one) > 0]
        if not refundable:
            return
        payment_id = self.chance.choice(refundable)
        left = self.model.left(payment_id)
        # Small ones, since it is parts of a point that are lost or gained.
        most = self.chance.choice([left, left, min(left, 3)])
        amount = self.chance.choice([left, self.chance.randint(1, most)])
        refund_id = make_refund_id()
        try:
            async with self.database.begin() as work:
                preview = await work.clawbacks.preview(payment_id, amount, self.policy, self.now)
                found = await work.payments.find(payment_id)
            assert found is not None
            record = await reserve(
                self.database,
                found.order,
                refund_id=refund_id,
                amount_minor=amount,
                clawback=self.policy,
                now=self.now,
            )
        except BillingError as refusal:
            with pytest.raises(Refused, match=refusal.code):
                self.model.refund(refund_id, payment_id, amount, self.policy.value, self.now)
            return
        passed = self.model.refund(refund_id, payment_id, amount, self.policy.value, self.now)
        assert preview is not None
        assert passed == record.refund.amount == preview.amount
        assert preview.owed == self.model.refunds[refund_id].owed
        assert preview.balance_after == self.model.balance

    async def fail(self) -> None:
        standing = [one for one, each in self.model.refunds.items() if each.stands]
        if not standing:
            return
        refund_id = self.chance.choice(standing)
        if refund_id not in self.done and self.chance.random() < 0.5:
            async with self.database.begin() as work:
                await work.refunds.move(
                    refund_id, RefundStatus.SUCCEEDED, now=self.now, refunded_at=self.now
                )
            self.done.add(refund_id)
            return
        for _ in range(self.chance.choice([1, 2])):
            await fail_refund(self.database, refund_id, now=self.now)
            self.model.fail(refund_id, self.now)

    async def expire(self) -> None:
        async with self.database.begin() as work:
            await work.points.expire(self.user, self.now)
        self.model.expire(self.now)

    async def compare(self) -> None:
        account = await look(self.database, self.user)
        assert account.balance == self.model.balance
        assert account.debt == self.model.debt
        assert [
            (lot.payment_id, lot.kind, lot.remaining, lot.spent, lot.taken, lot.expired)
            for lot in account.lots
        ] == self.model.lots()
        assert [(one.kind.value, one.amount) for one in account.history] == self.model.movements
        account.require_agreement()
        async with self.database.single() as work:
            shown = await work.points.balance(self.user, self.now)
        assert (shown.balance, shown.owed) == (self.model.balance, self.model.debt)
        assert shown.spendable == self.model.spendable(self.now)


async def live(database: Database, seed: int, number: int) -> None:
    chance = random.Random(f"{seed}/{number}")
    policy = list(ClawbackPolicy)[number % len(ClawbackPolicy)]
    lives = [
        Life(database, chance, User(f"shop-{seed}-{number}", name), policy)
        for name in ("ann", "bo")
    ]
    for _ in range(STEPS):
        await chance.choice(lives).step()
    assert set((await ledger_sums(database)).values()) <= {0}


async def live_all(database: Database, runs: int) -> None:
    """A failure shows the seed and the run: `live(database, seed, number)` repeats it."""
    seed = secrets.randbits(32)
    places = asyncio.Semaphore(RUNS_AT_ONCE)

    async def one(number: int) -> None:
        async with places:
            try:
                await live(database, seed, number)
            except BaseException as problem:
                problem.add_note(f"seed {seed}, run {number}")
                raise

    async with asyncio.TaskGroup() as runs_at_once:
        for number in range(runs):
            runs_at_once.create_task(one(number))


async def test_a_handful_of_lives_agrees_with_the_reference(database: Database) -> None:
    await live_all(database, 6)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_two_thousand_lives_agree_with_the_reference(database: Database) -> None:
    await live_all(database, 2000)
