"""Attempts, and the lock under which a payment and its attempts change together."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from billing.messages import PaymentOrder
from billing.payment import (
    AttemptState,
    Failure,
    GatewayName,
    NoAction,
    PaymentMethod,
    PaymentStatus,
)
from storage.database import Database
from storage.payments import PaymentRecord
from tests.storage.samples import NOW, make_order

S = PaymentStatus
LATER = NOW + timedelta(seconds=9)
FAILURE = Failure(code="card_declined", decline_code="insufficient_funds", message="declined")


async def ordered(database: Database, **changed: Any) -> PaymentOrder:
    order = make_order(**changed)
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
    return order


async def found(database: Database, payment_id: str) -> PaymentRecord:
    async with database.begin() as work:
        record = await work.payments.find(payment_id)
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("standing", "told", "stands"),
    [
        ("open", "paid", "paid"),
        ("open", "dead", "dead"),
        ("paid", "dead", "paid"),
        ("paid", "open", "paid"),
        ("dead", "open", "dead"),
        ("dead", "paid", "paid"),
    ],
)
async def test_what_has_paid_stays_paid_and_the_dead_do_not_reopen(
    database: Database, standing: str, told: str, stands: str
) -> None:
    """A dead attempt may yet turn out to have paid: money outweighs a gateway's earlier word."""
    order = await ordered(database)
    for state in (standing, told):
        async with database.begin() as work:
            await work.attempts.set(
                order.payment_id, 1, state=AttemptState(state), gateway_status=state, now=LATER
            )
    record = await found(database, order.payment_id)
    assert record.attempt(1).state == stands
    assert record.attempt(1).gateway_status == told
    assert record.is_open(1) is (stands == "open")


async def test_the_next_attempt_becomes_the_payments_own(database: Database) -> None:
    order = await ordered(database)
    for _ in range(2):
        async with database.begin() as work:
            await work.attempts.replace(
                order.payment_id,
                2,
                GatewayName.STRIPE,
                PaymentMethod.CARD,
                order.expires_at,
                LATER,
            )
    record = await found(database, order.payment_id)
    assert [one.number for one in record.attempts] == [order.payment_id, f"{order.payment_id}02"]
    assert record.open_attempts == record.attempts
    payment = record.payment
    assert (payment.attempt, payment.gateway, payment.method) == (2, "stripe", "card")


async def test_writers_of_one_payment_wait_and_never_deadlock(database: Database) -> None:
    """Some lock the payment first, some begin with an attempt."""
    order = await ordered(database)
    payment_id = order.payment_id

    async def attempt_first(number: int) -> None:
        async with database.begin() as work:
            await work.attempts.set(payment_id, 1, gateway_status=f"a{number}", now=NOW)
            await work.payments.record_failure(
                payment_id, FAILURE.model_copy(update={"message": f"{number}"}), NOW
            )

    async def payment_first(number: int) -> None:
        async with database.begin() as work:
            assert await work.payments.find(payment_id, lock=True)
            await work.attempts.set(payment_id, 1, gateway_status=f"p{number}", now=NOW)

    async def opened() -> None:
        async with database.begin() as work:
            await work.payments.record_opened(
                payment_id, 1, reference="r", next_action=NoAction(), now=NOW
            )

    await asyncio.gather(
        *(
            write
            for number in range(10)
            for write in (attempt_first(number), payment_first(number), opened())
        )
    )
    assert (await found(database, payment_id)).payment.status is S.REQUIRES_ACTION


async def test_a_locked_payment_is_read_as_the_one_before_left_it(database: Database) -> None:
    """The attempts too: a join would show them as they were before the wait."""
    order = await ordered(database)
    holds, goes_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with database.begin() as work:
            await work.payments.find(order.payment_id, lock=True)
            holds.set()
            await goes_on.wait()
            await work.attempts.set(order.payment_id, 1, state=AttemptState.DEAD, now=LATER)
            await work.payments.move(order.payment_id, S.CANCELED, now=LATER)

    async def second() -> PaymentRecord | None:
        await holds.wait()
        async with database.begin() as work:
            asyncio.get_running_loop().call_later(0.2, goes_on.set)
            return await work.payments.find(order.payment_id, lock=True)

    _, record = await asyncio.gather(first(), second())
    assert record is not None
    assert record.payment.status is S.CANCELED
    assert record.attempt(1).state is AttemptState.DEAD
