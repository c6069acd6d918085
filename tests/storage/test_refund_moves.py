"""What becomes of a refund: every move told once, and shown on its payment."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from billing.errors import RefundNotFound
from billing.messages import PaymentOrder
from billing.payment import Failure, Payment, PaymentStatus, Review
from billing.refund import TRANSITIONS, RefundCause, RefundStatus
from storage.database import Database
from storage.events import EventRecord
from storage.refunds import RefundRecord
from tests.storage.samples import NOW, reserve, take, take_twice

S = RefundStatus
LATER = NOW + timedelta(minutes=1)
FAILURE = Failure(code="refund_refused", decline_code="lost_card", message="sent back")
REVIEW = Review(reason="refund_stuck", detail="look it up", since=NOW)
NOBODY = "ref_01h455vb4pex5vsknk084sn02q"


async def move(database: Database, refund_id: str, to: S, **changed: Any) -> S:
    """With all that belongs to the status."""
    values: dict[str, Any] = {
        "now": LATER,
        "failure": FAILURE if to is S.FAILED else None,
        "review": REVIEW if to is S.NEEDS_REVIEW else None,
        "refunded_at": LATER if to is S.SUCCEEDED else None,
    }
    async with database.begin() as work:
        return await work.refunds.move(refund_id, to, **(values | changed))


async def found(database: Database, refund_id: str) -> RefundRecord:
    async with database.begin() as work:
        record = await work.refunds.find(refund_id)
    assert record is not None
    return record


async def payment_of(database: Database, order: PaymentOrder) -> Payment:
    async with database.begin() as work:
        record = await work.payments.find(order.payment_id)
    assert record is not None
    return record.payment


async def events_of(database: Database, application: str, object_id: str) -> list[EventRecord]:
    async with database.begin() as work:
        page = await work.events.after(application=application, cursor=None, limit=200)
    return [event for event in page.data if event.object_id == object_id]


@pytest.mark.parametrize("before", S)
async def test_every_status_is_left_only_as_the_table_allows(
    database: Database, before: RefundStatus
) -> None:
    for to in S:
        application = f"{before}-{to}"
        order = await take(database, application=application)
        refund_id = (await reserve(database, order)).refund.id
        if before is not S.PENDING:
            assert await move(database, refund_id, before) is before
        events = len(await events_of(database, application, refund_id))
        stands = await move(database, refund_id, to)
        told = (await events_of(database, application, refund_id))[events:]
        if to in TRANSITIONS[before]:
            assert stands is (await found(database, refund_id)).refund.status is to
            assert [event.type for event in told] == [f"refund.{to}"]
            assert (told[0].data["status"], told[0].created_at) == (to.value, LATER)
        else:
            assert stands is (await found(database, refund_id)).refund.status is before
            assert told == []


async def test_each_status_says_what_belongs_to_it(database: Database) -> None:
    refund_id = (await reserve(database, await take(database))).refund.id
    await move(database, refund_id, S.NEEDS_REVIEW)
    assert (await found(database, refund_id)).refund.review == REVIEW
    await move(
        database, refund_id, S.PROCESSING, gateway_reference="re_1", gateway_status="pending"
    )
    record = await found(database, refund_id)
    assert (record.refund.review, record.refund.gateway_reference) == (None, "re_1")
    await move(database, refund_id, S.SUCCEEDED)
    record = await found(database, refund_id)
    assert (record.refund.refunded_at, record.refund.updated_at) == (LATER, LATER)
    assert (record.refund.gateway_reference, record.gateway_status) == ("re_1", "pending")
    await move(database, refund_id, S.FAILED, gateway_status="failed", now=NOW)
    record = await found(database, refund_id)
    assert (record.refund.failure, record.refund.refunded_at) == (FAILURE, None)
    assert (record.refund.gateway_reference, record.gateway_status) == ("re_1", "failed")
    assert record.refund.updated_at == LATER, "a late repeat does not turn the time back"


@pytest.mark.parametrize("to", [S.SUCCEEDED, S.NEEDS_REVIEW])
async def test_a_status_without_what_belongs_to_it_is_refused(database: Database, to: S) -> None:
    refund_id = (await reserve(database, await take(database))).refund.id
    with pytest.raises(IntegrityError):
        await move(database, refund_id, to, review=None, refunded_at=None)
    assert (await found(database, refund_id)).refund.status is S.PENDING


async def test_what_is_done_shows_on_the_payment(database: Database) -> None:
    order = await take(database, application="shown")
    first, second = [await reserve(database, order, amount_minor=amount) for amount in (900, 500)]
    await move(database, first.refund.id, S.PROCESSING)
    assert (await payment_of(database, order)).amount_refunded == 0
    for _ in range(2):
        await move(database, first.refund.id, S.SUCCEEDED)
        assert (await payment_of(database, order)).amount_refunded == 900
    await move(database, second.refund.id, S.SUCCEEDED)
    payment = await payment_of(database, order)
    assert (payment.amount_refunded, payment.updated_at) == (1400, LATER)
    assert payment.status is PaymentStatus.SUCCEEDED
    for _ in range(2):
        await move(database, first.refund.id, S.FAILED)
        assert (await payment_of(database, order)).amount_refunded == 500
    told = (await events_of(database, "shown", order.payment_id))[2:]
    assert [
        (event.type, event.data["amount_refunded"], event.data["refund_id"]) for event in told
    ] == [
        ("payment.refunded", 900, first.refund.id),
        ("payment.refunded", 1400, second.refund.id),
        ("payment.refund_failed", 500, first.refund.id),
    ]
    assert (await reserve(database, order)).refund.amount == 2400


async def test_what_never_succeeded_fails_without_a_word_on_the_payment(database: Database) -> None:
    order = await take(database, application="unshown")
    refund_id = (await reserve(database, order)).refund.id
    before = await payment_of(database, order)
    await move(database, refund_id, S.FAILED)
    assert await payment_of(database, order) == before
    types = [event.type for event in await events_of(database, "unshown", order.payment_id)]
    assert types == ["payment.created", "payment.succeeded"]


async def test_what_is_returned_does_not_show_on_the_payment(database: Database) -> None:
    order = await take_twice(database, application="returned")
    before = await payment_of(database, order)
    record = await reserve(database, order, attempt=2, cause=RefundCause.RETURNED)
    await move(database, record.refund.id, S.SUCCEEDED)
    await move(database, record.refund.id, S.FAILED)
    assert await payment_of(database, order) == before
    types = [event.type for event in await events_of(database, "returned", order.payment_id)]
    assert types == ["payment.created", "payment.succeeded"]


async def test_a_move_that_fails_later_in_its_transaction_leaves_no_trace(
    database: Database,
) -> None:
    order = await take(database, application="undone")
    refund_id = (await reserve(database, order)).refund.id

    async def move_and_fail() -> None:
        async with database.begin() as work:
            await work.refunds.move(refund_id, S.SUCCEEDED, now=LATER, refunded_at=LATER)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await move_and_fail()
    assert (await found(database, refund_id)).refund.status is S.PENDING
    assert (await payment_of(database, order)).amount_refunded == 0
    assert len(await events_of(database, "undone", refund_id)) == 1
    assert len(await events_of(database, "undone", order.payment_id)) == 2


async def test_asking_is_noted(database: Database) -> None:
    order = await take(database, application="noted")
    refund_id = (await reserve(database, order)).refund.id
    async with database.begin() as work:
        await work.refunds.note_asked(
            refund_id, now=LATER, gateway_reference="503", gateway_status="PROCESSING"
        )
        await work.refunds.note_asked(refund_id, now=NOW)
    record = await found(database, refund_id)
    assert (record.asked_at, record.refund.updated_at) == (LATER, LATER)
    assert (record.refund.gateway_reference, record.gateway_status) == ("503", "PROCESSING")
    assert record.refund.status is S.PENDING
    assert len(await events_of(database, "noted", refund_id)) == 1


async def test_what_is_not_there_is_neither_moved_nor_noted(database: Database) -> None:
    with pytest.raises(RefundNotFound):
        await move(database, NOBODY, S.PROCESSING)
    async with database.begin() as work:
        with pytest.raises(RefundNotFound):
            await work.refunds.note_asked(NOBODY, now=NOW)
