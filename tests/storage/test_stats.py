"""Daily totals equal a plain count of the record, whatever happened in whatever order."""

import asyncio
import random
from bisect import bisect_left
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from benchmarks.record_rows import write_record
from billing.payment import DeclineClass, Failure, GatewayName, PaymentMethod, PaymentStatus
from billing.refund import RefundStatus
from storage.database import Database, UnitOfWork
from storage.stats import Decline, Sum, TimeToPay
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import make_order, reserve, take, take_twice
from tests.storage.stats_reference import (
    NOON,
    SCALE,
    compare,
    totals,
)


class Course:
    """Random payments, moved on at random in the repositories' own ways."""

    def __init__(self, database: Database, dice: random.Random) -> None:
        self._database = database
        self._dice = dice

    async def play(self) -> None:
        dice = self._dice
        created = NOON + timedelta(seconds=dice.randrange(20 * 86_400))
        gateway, method = dice.choice(
            [
                (GatewayName.STRIPE, PaymentMethod.CARD),
                (GatewayName.STRIPE, PaymentMethod.SAVED),
                (GatewayName.ALIPAY, PaymentMethod.QR),
                (GatewayName.WECHATPAY, PaymentMethod.NATIVE),
            ]
        )
        order = make_order(
            application=dice.choice(["one", "two"]),
            amount_minor=dice.randrange(1, 10_000),
            currency=dice.choice(["CNY", "USD"]),
            gateway=gateway,
            method=method,
            created_at=created,
            expires_at=created + timedelta(hours=1),
        )
        to = dice.choice([*["succeeded"] * 5, "failed", "canceled", "expired", "needs_review"])
        async with self._database.begin() as work:
            await work.payments.insert(order, created)
            if dice.random() < 0.4:
                await work.payments.record_failure(order.payment_id, self._failure(), created)
        if to == "succeeded":
            await self._pay(order.payment_id, created, order)
        elif to != "needs_review":
            failure = self._failure() if to == "failed" else None
            async with self._database.begin() as work:
                await work.payments.move(
                    order.payment_id, PaymentStatus(to), now=created, failure=failure
                )

    def _failure(self) -> Failure:
        code = self._dice.choice(["declined", "gateway_refused"])
        word = self._dice.choice(["do_not_honor", "expired_card", None])
        return Failure(code=code, decline_code=word, advice=DeclineClass.SOFT, message="No")

    async def _pay(self, payment_id: str, created: datetime, order: Any) -> None:
        dice = self._dice
        took = timedelta(milliseconds=dice.choice([0, -900, dice.randrange(100_000_000)]))
        paid_at = created + took
        async with self._database.begin() as work:
            await receive(work, order, 1, paid_at, kept=True)
            await work.payments.move(
                payment_id, PaymentStatus.SUCCEEDED, now=paid_at, paid_at=paid_at
            )
        if dice.random() < 0.3:
            async with self._database.begin() as work:
                await work.attempts.replace(
                    payment_id, 2, order.gateway, order.method, order.expires_at, paid_at
                )
                await receive(work, order, 2, paid_at + timedelta(hours=30), kept=False)
        while dice.random() < 0.4:
            await self._refund(order, paid_at)

    async def _refund(self, order: Any, paid_at: datetime) -> None:
        async with self._database.begin() as work:
            left = order.amount_minor - sum(
                one.refund.amount
                for one in await work.refunds.of_payment(order.payment_id)
                if one.refund.status is not RefundStatus.FAILED
            )
        if left < 2:
            return
        amount = self._dice.randrange(1, left)
        refund = (await reserve(self._database, order, amount_minor=amount, now=paid_at)).refund
        moves = [RefundStatus.PROCESSING, RefundStatus.SUCCEEDED, RefundStatus.FAILED]
        for to in moves[: self._dice.randrange(4)]:
            at = paid_at + timedelta(days=self._dice.randrange(5))
            async with self._database.begin() as work:
                await work.refunds.move(
                    refund.id,
                    to,
                    now=at,
                    failure=None if to is not RefundStatus.FAILED else self._failure(),
                    refunded_at=at if to is RefundStatus.SUCCEEDED else None,
                )


async def receive(
    work: UnitOfWork, order: Any, attempt: int, paid_at: datetime, *, kept: bool
) -> None:
    await work.receipts.record(
        payment_id=order.payment_id,
        attempt=attempt,
        gateway=order.gateway,
        receipt_reference=f"{order.payment_id}/{attempt}",
        amount_minor=order.amount_minor,
        currency=order.currency,
        paid_at=paid_at,
        kept=kept,
        now=paid_at,
    )


@pytest.mark.parametrize("seed", [1, 2])
async def test_totals_equal_a_plain_count_of_what_was_written(
    database: Database, database_urls: DatabaseUrls, seed: int
) -> None:
    """Written by several at once, while others read; then counted anew from the record."""
    await empty(database_urls)
    dice = random.Random(seed)
    courses = [Course(database, random.Random(dice.random())) for _ in range(4)]

    async def write(course: Course) -> None:
        for _ in range(30):
            await course.play()

    async def look() -> None:
        for _ in range(10):
            await totals(database, "one")

    await asyncio.gather(*map(write, courses), look(), look())
    assert await compare(database, database_urls, dice, 25) > 10
    kept = await tables(database)
    async with await psycopg.AsyncConnection.connect(database_urls.owner) as owner:
        await owner.execute("SELECT stats_rebuild()")
    assert await compare(database, database_urls, dice, 3) > 0
    assert await tables(database) == kept


async def test_totals_of_a_record_written_by_others_are_counted_anew(
    database: Database, database_urls: DatabaseUrls
) -> None:
    await empty(database_urls)
    await write_record(database_urls.superuser, application="written", count=3000, until=NOON)
    assert await compare(database, database_urls, random.Random(3), 15) > 5


async def empty(urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(urls.superuser) as connection:
        await connection.execute(
            "TRUNCATE payments, stats_changes, stats_money, stats_payments, stats_declines CASCADE"
        )


async def tables(database: Database) -> list[Any]:
    """All totals but those of nothing, and of steps that nobody has any more."""
    async with database.begin() as work:
        return [
            (await work.connection.execute(text(query))).all()
            for query in (
                "SELECT * FROM stats_money WHERE taken_count + refunded_count + unapplied_count > 0"
                " ORDER BY application, day, currency, gateway",
                "SELECT * FROM stats_payments WHERE ended > 0"
                " ORDER BY application, days, day, gateway, method, currency",
                "SELECT * FROM stats_declines WHERE count > 0"
                " ORDER BY application, days, day, gateway, method, currency, code, decline_code",
            )
        ]


async def test_each_thing_counts_on_its_own_day(database: Database) -> None:
    """Made before midnight, paid after it, refunded the day after."""
    made = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    order = make_order(application="midnight", created_at=made)
    paid_at = made + timedelta(seconds=2)
    async with database.begin() as work:
        await work.payments.insert(order, made)
        await receive(work, order, 1, paid_at, kept=True)
        await work.payments.move(
            order.payment_id, PaymentStatus.SUCCEEDED, now=paid_at, paid_at=paid_at
        )
    refund = (await reserve(database, order, amount_minor=900, now=paid_at)).refund
    refunded_at = paid_at + timedelta(days=1)
    async with database.begin() as work:
        await work.refunds.move(
            refund.id, RefundStatus.SUCCEEDED, now=refunded_at, refunded_at=refunded_at
        )
    nothing = Sum(0, 0)
    first = await totals(database, "midnight")
    assert first.days == first.currencies == []
    assert [(one.ended, one.succeeded, one.time_to_pay) for one in first.outcomes] == [
        (1, 1, TimeToPay(2000, 2000))
    ]
    (second,) = (await totals(database, "midnight", date(2026, 3, 2), date(2026, 3, 2))).days
    assert (second.taken, second.refunded) == (Sum(1, 2900), nothing)
    (third,) = (await totals(database, "midnight", date(2026, 3, 3), date(2026, 3, 9))).days
    assert (third.day, third.taken, third.refunded) == (date(2026, 3, 3), nothing, Sum(1, 900))


async def test_a_refund_that_fails_later_is_none(database: Database) -> None:
    order = await take(database, application="back", created_at=NOON)
    refund = (await reserve(database, order)).refund
    for to, count in ((RefundStatus.SUCCEEDED, 1), (RefundStatus.FAILED, 0)):
        async with database.begin() as work:
            await work.refunds.move(refund.id, to, now=NOON, refunded_at=NOON if count else None)
        (one,) = (await totals(database, "back")).currencies
        assert one.refunded == Sum(count, 2900 * count)


async def test_money_that_paid_for_nothing_is_told_apart(database: Database) -> None:
    await take_twice(database, application="twice", created_at=NOON)
    (one,) = (await totals(database, "twice")).days
    assert (one.taken, one.unapplied) == (Sum(1, 2900), Sum(1, 2900))


async def test_only_the_last_decline_of_a_payment_counts_if_it_ended_unpaid(
    database: Database,
) -> None:
    for word, to in (("first", "succeeded"), (None, "expired"), ("x" * 5000, "canceled")):
        order = make_order(application="declined", created_at=NOON)
        failure = Failure(code="declined", decline_code=word, message="No")
        async with database.begin() as work:
            await work.payments.insert(order, NOON)
            await work.payments.record_failure(order.payment_id, failure, NOON)
            await work.payments.move(
                order.payment_id,
                PaymentStatus(to),
                now=NOON,
                paid_at=NOON if to == "succeeded" else None,
            )
    (one,) = (await totals(database, "declined")).outcomes
    assert (one.ended, one.succeeded) == (3, 1)
    assert one.declines == [Decline("declined", None, 1), Decline("declined", "x" * 100, 1)]


async def test_what_is_rolled_back_is_not_counted(database: Database) -> None:
    async with database.begin() as work:
        order = make_order(application="undone", created_at=NOON)
        await work.payments.insert(order, NOON)
        await receive(work, order, 1, NOON, kept=True)
        await work.connection.rollback()
    assert (await totals(database, "undone")).days == []


async def test_who_pays_waits_for_nobody_who_counts(database: Database) -> None:
    """A fold under way holds nothing that a payment needs."""
    async with database.begin() as counting:
        await counting.stats.fold()
        await asyncio.wait_for(take(database, application="no-wait", created_at=NOON), 4)
    (one,) = (await totals(database, "no-wait")).days
    assert one.taken.count == 1


async def test_the_application_cannot_write_totals(database: Database) -> None:
    for statement in (
        "UPDATE stats_money SET taken_count = 0",
        "INSERT INTO stats_declines VALUES ('a', 1, now(), 'stripe', 'card', 'CNY', 'c', '', 1)",
        "DELETE FROM stats_payments",
        "DELETE FROM stats_changes",
        "SELECT stats_rebuild()",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with database.begin() as work:
                await work.connection.execute(text(statement))


async def test_every_time_is_on_the_scale(database_urls: DatabaseUrls, database: Database) -> None:
    """The database's step, and the upper end that is told of it, for every edge."""
    edges = [value + away for value in SCALE[:200] for away in (-1, 0, 1)]
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as connection:
        rows = await connection.execute(
            "SELECT ms, stats_step(ms) FROM unnest(%s::bigint[]) AS ms", [edges]
        )
        for milliseconds, step in await rows.fetchall():
            assert SCALE[step - 1] == SCALE[bisect_left(SCALE, milliseconds)], milliseconds
