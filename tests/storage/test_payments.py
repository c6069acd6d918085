"""Payments and attempts: written once, moved as the table allows, told in events."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from billing.errors import PaymentNotFound
from billing.messages import PaymentOrder
from billing.payment import (
    TRANSITIONS,
    AttemptState,
    ClientSecret,
    Failure,
    GatewayName,
    NoAction,
    Payer,
    PaymentMethod,
    PaymentStatus,
    QrCode,
    Review,
)
from storage.database import Database
from storage.events import EventRecord
from storage.payments import PaymentRecord
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW, make_order

S = PaymentStatus
LATER = NOW + timedelta(seconds=9)
FAILURE = Failure(code="card_declined", decline_code="insufficient_funds", message="declined")
REVIEW = Review(reason="amount_mismatch", detail="the gateway reports another amount", since=NOW)
WITH: dict[PaymentStatus, dict[str, Any]] = {
    S.SUCCEEDED: {"paid_at": LATER, "gateway_reference": "4200001"},
    S.FAILED: {"failure": FAILURE},
    S.NEEDS_REVIEW: {"review": REVIEW},
}


async def ordered(database: Database, **changed: Any) -> PaymentOrder:
    order = make_order(**changed)
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
    return order


async def move(database: Database, payment_id: str, to: PaymentStatus) -> PaymentStatus:
    async with database.begin() as work:
        return await work.payments.move(payment_id, to, now=LATER, **WITH.get(to, {}))


async def found(database: Database, payment_id: str) -> PaymentRecord:
    async with database.begin() as work:
        record = await work.payments.find(payment_id)
    assert record is not None
    return record


async def events_of(database: Database, order: PaymentOrder) -> list[EventRecord]:
    """The object's events, in its own order."""
    events: list[EventRecord] = []
    cursor, has_more = None, True
    while has_more:
        async with database.begin() as work:
            page = await work.events.after(application=order.application, cursor=cursor, limit=100)
        events += [event for event in page.data if event.object_id == order.payment_id]
        cursor, has_more = page.next_cursor, page.has_more
    return sorted(events, key=lambda event: event.sequence)


async def test_an_order_is_written_once(database: Database) -> None:
    order = make_order(application="once")
    async with database.begin() as work:
        first = await work.payments.insert(order, NOW)
    async with database.begin() as work:
        again = await work.payments.insert(order, LATER)
    assert again == first
    assert first.order == order
    assert first.payment.status is S.CREATED
    assert first.payment.next_action == NoAction()
    (attempt,) = first.attempts
    assert (attempt.attempt, attempt.number) == (1, order.payment_id)
    assert (attempt.state, attempt.opened_at) == (AttemptState.OPEN, None)
    assert [event.type for event in await events_of(database, order)] == ["payment.created"]


async def test_many_at_once_write_one_order(database: Database) -> None:
    order = make_order(application="at-once")

    async def insert() -> PaymentRecord:
        async with database.begin() as work:
            return await work.payments.insert(order, NOW)

    records = await asyncio.gather(*(insert() for _ in range(20)))
    assert all(record == records[0] for record in records)
    assert len(await events_of(database, order)) == 1


async def test_the_row_rebuilds_the_order(database: Database) -> None:
    order = await ordered(
        database,
        gateway=GatewayName.WECHATPAY,
        method=PaymentMethod.JSAPI,
        description="会员 \\ \" ' {}",
        return_url="https://shop.example/done?a=1&b=2",
        payer=Payer(openid="openid-of-a-person", client_ip="203.0.113.9"),
        metadata={"鍵": "値", "": "empty key"},
    )
    assert (await found(database, order.payment_id)).order == order


async def test_another_applications_payment_does_not_exist(database: Database) -> None:
    order = await ordered(database)
    async with database.begin() as work:
        assert await work.payments.find(order.payment_id, application="other") is None
        assert await work.payments.find(order.payment_id, application="shop") is not None
        assert await work.payments.find("pay_01h455vb4pex5vsknk084sn02q") is None


@pytest.mark.parametrize("before", S)
async def test_every_status_is_left_only_as_the_table_allows(
    database: Database, database_urls: DatabaseUrls, before: PaymentStatus
) -> None:
    for to in S:
        order = await ordered(database, application=f"{before}-{to}")
        if before is not S.CREATED:
            assert await move(database, order.payment_id, before) is before
        events = len(await events_of(database, order))
        stands = await move(database, order.payment_id, to)
        record = await found(database, order.payment_id)
        told = [event.type for event in await events_of(database, order)][events:]
        if to in TRANSITIONS[before]:
            assert stands is record.payment.status is to
            assert told == [f"payment.{to}"]
        else:
            assert stands is record.payment.status is before
            assert told == []


async def test_events_count_from_one_without_gaps(database: Database) -> None:
    order = await ordered(database, application="counted")
    for status in (S.REQUIRES_ACTION, S.PROCESSING, S.NEEDS_REVIEW, S.SUCCEEDED, S.FAILED):
        await move(database, order.payment_id, status)
    events = await events_of(database, order)
    assert [(event.sequence, event.data["status"]) for event in events] == [
        (1, "created"), (2, "requires_action"), (3, "processing"), (4, "needs_review"),
        (5, "succeeded"),
    ]  # fmt: skip
    assert events[-1].created_at == LATER


async def test_of_two_endings_at_once_one_stands(database: Database) -> None:
    for _ in range(10):
        order = await ordered(database, application="endings")
        stands = await asyncio.gather(
            *(move(database, order.payment_id, to) for to in (S.SUCCEEDED, S.CANCELED, S.EXPIRED))
        )
        assert len(set(stands)) == 1
        assert (await found(database, order.payment_id)).payment.status is stands[0]
        assert len(await events_of(database, order)) == 2


async def test_a_move_that_fails_later_in_its_transaction_leaves_no_trace(
    database: Database,
) -> None:
    order = await ordered(database, application="undone")

    async def move_and_fail() -> None:
        async with database.begin() as work:
            await work.payments.move(order.payment_id, S.CANCELED, now=LATER)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await move_and_fail()
    assert (await found(database, order.payment_id)).payment.status is S.CREATED
    assert len(await events_of(database, order)) == 1


async def test_success_says_when_and_under_which_number(database: Database) -> None:
    order = await ordered(database)
    async with database.begin() as work:
        await work.payments.record_failure(order.payment_id, FAILURE, NOW)
    await move(database, order.payment_id, S.SUCCEEDED)
    payment = (await found(database, order.payment_id)).payment
    assert (payment.paid_at, payment.gateway_reference) == (LATER, "4200001")
    assert payment.failure is None


@pytest.mark.parametrize("to", [S.SUCCEEDED, S.NEEDS_REVIEW])
async def test_a_status_without_its_reason_is_refused(
    database: Database, to: PaymentStatus
) -> None:
    order = await ordered(database)
    with pytest.raises(IntegrityError):
        async with database.begin() as work:
            await work.payments.move(order.payment_id, to, now=LATER)


async def test_leaving_review_clears_why(database: Database) -> None:
    order = await ordered(database)
    await move(database, order.payment_id, S.NEEDS_REVIEW)
    assert (await found(database, order.payment_id)).payment.review == REVIEW
    await move(database, order.payment_id, S.PROCESSING)
    assert (await found(database, order.payment_id)).payment.review is None


async def test_a_move_of_nothing_is_an_error(database: Database) -> None:
    with pytest.raises(PaymentNotFound):
        await move(database, "pay_01h455vb4pex5vsknk084sn02q", S.CANCELED)


async def test_instructions_are_stored_and_taken_away_at_the_end(
    database: Database, database_urls: DatabaseUrls
) -> None:
    order = await ordered(database, application="instructed")
    action = ClientSecret(client_secret="pi_1_secret_xyz", publishable_key="pk_test_1")
    for _ in range(2):
        async with database.begin() as work:
            status = await work.payments.record_opened(
                order.payment_id, 1, reference="pi_1", next_action=action, now=LATER
            )
        assert status is S.REQUIRES_ACTION
    record = await found(database, order.payment_id)
    assert record.payment.next_action == action
    assert record.payment.gateway_reference == "pi_1"
    assert record.attempts[0].reference == "pi_1"
    assert record.attempts[0].opened_at == LATER
    events = await events_of(database, order)
    assert [event.type for event in events] == ["payment.created", "payment.requires_action"]
    assert "secret" not in str(events)
    await move(database, order.payment_id, S.CANCELED)
    assert (await found(database, order.payment_id)).payment.next_action == NoAction()


async def test_instructions_that_come_too_late_are_not_shown(database: Database) -> None:
    order = await ordered(database)
    await move(database, order.payment_id, S.CANCELED)
    async with database.begin() as work:
        status = await work.payments.record_opened(
            order.payment_id,
            1,
            reference="2026",
            next_action=QrCode(code_url="https://qr.example/1"),
            now=LATER,
        )
    assert status is S.CANCELED
    record = await found(database, order.payment_id)
    assert record.payment.next_action == NoAction()
    assert record.attempts[0].reference == "2026"


async def test_secrets_and_persons_are_unreadable_at_rest(
    database: Database, database_urls: DatabaseUrls
) -> None:
    order = await ordered(database, payer=Payer(openid="openid-of-a-person"))
    async with database.begin() as work:
        await work.payments.record_opened(
            order.payment_id,
            1,
            reference="r",
            next_action=ClientSecret(client_secret="the-secret", publishable_key="pk"),
            now=NOW,
        )
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        rows = await superuser.execute(
            "SELECT payments.*, encode(next_action, 'escape') AS action,"
            " encode(order_document, 'escape') AS document FROM payments WHERE id = %s",
            [order.payment_id],
        )
        text = str(await rows.fetchone())
    assert order.payment_id in text
    assert "the-secret" not in text
    assert "openid-of-a-person" not in text


async def test_a_declined_try_is_told_once(database: Database) -> None:
    order = await ordered(database, application="declined")
    await move(database, order.payment_id, S.REQUIRES_ACTION)
    other = FAILURE.model_copy(update={"decline_code": "lost_card"})
    for failure in (FAILURE, FAILURE, other):
        async with database.begin() as work:
            await work.payments.record_failure(order.payment_id, failure, LATER)
    record = await found(database, order.payment_id)
    assert (record.payment.status, record.payment.failure) == (S.REQUIRES_ACTION, other)
    tries = [
        event for event in await events_of(database, order) if event.type == "payment.try_failed"
    ]
    assert [event.data["failure"]["decline_code"] for event in tries] == [
        "insufficient_funds",
        "lost_card",
    ]
    await move(database, order.payment_id, S.CANCELED)
    async with database.begin() as work:
        await work.payments.record_failure(order.payment_id, FAILURE, LATER)
    assert (await found(database, order.payment_id)).payment.failure == other


async def test_a_late_repeat_does_not_turn_the_clock_back(database: Database) -> None:
    order = await ordered(database)
    await move(database, order.payment_id, S.REQUIRES_ACTION)
    async with database.begin() as work:
        await work.payments.move(order.payment_id, S.PROCESSING, now=NOW)
    assert (await found(database, order.payment_id)).payment.updated_at == LATER
