"""Random lives of two users, step by step beside the reference: equal to the point."""

import asyncio
import gc
import multiprocessing
import random
import secrets
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import text

from billing.errors import BillingError, InsufficientPoints
from billing.messages import PaymentOrder
from billing.points import ClawbackPolicy
from billing.refund import RefundStatus
from embedded.postgres import PostgresServer
from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from storage.database import Database
from storage.points import User
from tests.fixtures.database import DatabaseUrls, fresh_copy
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

STEPS: Final = 50
RUNS_AT_ONCE: Final = 2
PROCESSES: Final = 2
RUNS_OF_A_SHARE: Final = 100

# All that a step can have changed, in one question: it is asked after each of 100,000 steps.
_ACCOUNT: Final = text(
    """
    SELECT (SELECT coalesce(json_agg(json_build_array(
                payment_id, kind, remaining, spent, taken, expired) ORDER BY id), '[]')
            FROM points_lots WHERE application = :application AND user_id = :user_id) AS lots,
           (SELECT coalesce(json_agg(json_build_array(kind, amount, balance_after)
                                     ORDER BY sequence), '[]')
            FROM points_transactions
            WHERE application = :application AND user_id = :user_id) AS history,
           (SELECT coalesce(json_object_agg(payment_id, points), '{}')
            FROM (SELECT payment_id, coalesce(sum(points) FILTER (WHERE restored_at IS NULL), 0)
                         AS points
                  FROM points_clawbacks WHERE application = :application AND user_id = :user_id
                  GROUP BY payment_id) AS of_payments) AS gone,
           (SELECT coalesce(-sum(amount_minor), 0)::bigint
            FROM ledger_postings JOIN ledger_accounts AS account ON account.id = account_id
            WHERE account.code = :account AND currency = 'PTS') AS ledger
    """
)


@dataclass
class Life:
    """One user's payments and refunds, in the record and in the model."""

    database: Database
    chance: random.Random
    user: User
    policy: ClawbackPolicy
    model: Model = field(default_factory=Model)
    orders: dict[str, PaymentOrder] = field(default_factory=dict)
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
        self.orders[order.payment_id] = order
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
            async with self.database.single() as work:
                preview = await work.clawbacks.preview(payment_id, amount, self.policy, self.now)
            record = await reserve(
                self.database,
                self.orders[payment_id],
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
        whose = {
            "application": self.user.application,
            "user_id": self.user.user_id,
            "account": self.user.account,
        }
        async with self.database.single() as work:
            found = (await work.connection.execute(_ACCOUNT, whose)).one()
            shown = await work.points.balance(self.user, self.now)
        model = self.model
        assert [tuple(lot) for lot in found.lots] == model.lots()
        assert found.gone == model.due()
        running = 0
        for (kind, amount, balance_after), told in zip(found.history, model.movements, strict=True):
            running += amount
            assert (kind, amount, balance_after) == (*told, running)
        assert found.ledger == running == model.balance
        assert (shown.balance, shown.owed) == (model.balance, model.debt)
        assert shown.spendable == model.spendable(self.now)

    async def end(self) -> None:
        """What the API shows of it says the same."""
        account = await look(self.database, self.user)
        account.require_agreement()
        assert (account.balance, account.debt) == (self.model.balance, self.model.debt)
        assert [(one.kind.value, one.amount) for one in account.history] == self.model.movements


async def live(database: Database, seed: int, number: int) -> None:
    chance = random.Random(f"{seed}/{number}")
    policy = list(ClawbackPolicy)[number % len(ClawbackPolicy)]
    lives = [
        Life(database, chance, User(f"shop-{seed}-{number}", name), policy)
        for name in ("ann", "bo")
    ]
    for _ in range(STEPS):
        await chance.choice(lives).step()
    for life in lives:
        await life.end()


async def live_all(database: Database, seed: int, numbers: Sequence[int]) -> None:
    """A failure shows the seed and the run: `live(database, seed, number)` repeats it."""
    places = asyncio.Semaphore(RUNS_AT_ONCE)

    async def one(number: int) -> None:
        async with places:
            try:
                await live(database, seed, number)
            except BaseException as problem:
                problem.add_note(f"seed {seed}, run {number}")
                raise

    async with asyncio.TaskGroup() as runs_at_once:
        for number in numbers:
            runs_at_once.create_task(one(number))
    assert set((await ledger_sums(database)).values()) <= {0}


def live_apart(url: str, seed: int, numbers: Sequence[int]) -> str | None:
    """A share of the lives, in a process and a database of its own: what went wrong, if anything.

    A traceback is text, since notes and groups do not come through from another process whole.
    """

    async def live_share() -> None:
        database = Database(url, Cipher(EncryptionKeys(keys={"test": secrets.token_bytes(32)})))
        try:
            await live_all(database, seed, numbers)
        finally:
            await database.dispose()

    gc.freeze()  # what was imported is not looked through again and again
    try:
        asyncio.run(live_share())
    except Exception:  # noqa: BLE001 - whatever it is, the test fails with it
        return traceback.format_exc()
    return None


async def test_a_handful_of_lives_agrees_with_the_reference(database: Database) -> None:
    await live_all(database, secrets.randbits(32), range(6))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_two_thousand_lives_agree_with_the_reference(
    postgres_server: PostgresServer, template_urls: DatabaseUrls
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as processes:

        async def share(numbers: range) -> None:
            async with places, fresh_copy(postgres_server, template_urls) as urls:
                problem = await loop.run_in_executor(processes, live_apart, urls.app, seed, numbers)
            assert problem is None, problem

        async with asyncio.TaskGroup() as shares:
            for first in range(0, 2000, RUNS_OF_A_SHARE):
                shares.create_task(share(range(first, first + RUNS_OF_A_SHARE)))
