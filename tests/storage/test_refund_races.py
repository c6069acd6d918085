"""Many refunds at once: what is set aside never exceeds what came in, whoever is first."""

import asyncio
import random
import secrets
import sys

import pytest

from billing.errors import RefundExceedsPayment
from billing.messages import PaymentOrder
from billing.payment import Failure
from billing.refund import RefundStatus
from storage.database import Database
from storage.refunds import RefundRecord
from tests.storage.samples import NOW, make_refund_id, reserve, take

FAILURE = Failure(code="refund_refused", message="the bank sent it back")
CAPTURED = 10_000


@pytest.fixture
def chance() -> random.Random:
    """A failure shows the seed that repeats its choices."""
    seed = secrets.randbits(32)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)


async def reserved_minor(database: Database, order: PaymentOrder) -> int:
    async with database.begin() as work:
        records = await work.refunds.of_payment(order.payment_id)
    return sum(one.refund.amount for one in records if one.refund.status is not RefundStatus.FAILED)


async def try_to_reserve(
    database: Database, order: PaymentOrder, amount: int
) -> RefundRecord | None:
    """None where it was refused for the only reason there may be; any other fails the test."""
    try:
        return await reserve(database, order, amount_minor=amount)
    except RefundExceedsPayment:
        return None


async def fail(database: Database, record: RefundRecord) -> None:
    async with database.begin() as work:
        await work.refunds.move(record.refund.id, RefundStatus.FAILED, now=NOW, failure=FAILURE)


@pytest.mark.parametrize(
    ("rounds", "at_once"),
    [
        (200, 8),
        (4, 100),
        pytest.param(200, 100, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
async def test_reservations_at_once_never_exceed_what_came_in(
    database: Database, chance: random.Random, rounds: int, at_once: int
) -> None:
    for _ in range(rounds):
        order = await take(database, amount_minor=CAPTURED)
        largest = chance.choice([CAPTURED * 3 // at_once, CAPTURED // 2, CAPTURED * 2])
        amounts = [chance.randint(1, largest) for _ in range(at_once)]
        records = await asyncio.gather(
            *(try_to_reserve(database, order, amount) for amount in amounts)
        )
        granted = sum(record.refund.amount for record in records if record is not None)
        assert granted == await reserved_minor(database, order) <= CAPTURED
        refused = [
            amount for amount, record in zip(amounts, records, strict=True) if record is None
        ]
        assert all(amount > CAPTURED - granted for amount in refused), "one that fits was refused"
        assert all(
            record.refund.amount == amount
            for amount, record in zip(amounts, records, strict=True)
            if record is not None
        )


async def test_reserving_while_others_fail_never_exceeds_what_came_in(
    database: Database, chance: random.Random
) -> None:

    async def come_and_go(order: PaymentOrder, amount: int, *, fails: bool) -> None:
        record = await try_to_reserve(database, order, amount)
        assert await reserved_minor(database, order) <= CAPTURED
        if record is not None and fails:
            await fail(database, record)

    for _ in range(10):
        order = await take(database, amount_minor=CAPTURED)
        await asyncio.gather(
            *(
                come_and_go(order, chance.randint(1, CAPTURED), fails=chance.random() < 0.7)
                for _ in range(20)
            )
        )
        left = CAPTURED - await reserved_minor(database, order)
        if left > 0:
            assert (await reserve(database, order)).refund.amount == left
        assert await try_to_reserve(database, order, 1) is None
        assert await reserved_minor(database, order) == CAPTURED


async def test_the_same_refund_at_once_is_reserved_once(database: Database) -> None:
    for _ in range(5):
        order = await take(database, application="repeats")
        refund_id = make_refund_id()
        records = await asyncio.gather(
            *(reserve(database, order, refund_id=refund_id, amount_minor=2000) for _ in range(10))
        )
        assert len({record.refund.id for record in records}) == 1
        assert await reserved_minor(database, order) == 2000


async def test_refunds_that_succeed_at_once_are_all_counted(database: Database) -> None:
    for number in range(5):
        application = f"all-counted-{number}"
        order = await take(database, application=application)
        records = [await reserve(database, order, amount_minor=290) for _ in range(10)]

        async def succeed(record: RefundRecord) -> RefundStatus:
            async with database.begin() as work:
                assert await work.refunds.find(record.refund.id, lock=True) is not None
                return await work.refunds.move(
                    record.refund.id, RefundStatus.SUCCEEDED, now=NOW, refunded_at=NOW
                )

        await asyncio.gather(*(succeed(record) for record in records))
        async with database.begin() as work:
            found = await work.payments.find(order.payment_id)
            events = await work.events.after(application=application, cursor=None, limit=1000)
        assert found is not None
        assert found.payment.amount_refunded == order.amount_minor
        told = [one for one in events.data if one.object_id == order.payment_id]
        assert [one.data["amount_refunded"] for one in told if one.type == "payment.refunded"] == [
            290 * count for count in range(1, 11)
        ]


async def test_a_success_and_a_failure_at_once_end_as_a_failure(database: Database) -> None:
    for _ in range(10):
        order = await take(database)
        record = await reserve(database, order)

        async def end(to: RefundStatus, refund_id: str) -> RefundStatus:
            async with database.begin() as work:
                return await work.refunds.move(
                    refund_id,
                    to,
                    now=NOW,
                    refunded_at=NOW if to is RefundStatus.SUCCEEDED else None,
                    failure=FAILURE if to is RefundStatus.FAILED else None,
                )

        await asyncio.gather(
            end(RefundStatus.SUCCEEDED, record.refund.id),
            end(RefundStatus.FAILED, record.refund.id),
        )
        async with database.begin() as work:
            stands = await work.refunds.find(record.refund.id)
            payment = await work.payments.find(order.payment_id)
        assert stands is not None
        assert payment is not None
        # A success may yet fail, and a failure is the end, whoever comes first.
        assert stands.refund.status is RefundStatus.FAILED
        assert payment.payment.amount_refunded == 0
