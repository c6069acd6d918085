"""Reserving refunds: what may be set aside, what is refused, and when the gateway may be asked."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from billing.errors import (
    BillingError,
    PaymentNotFound,
    PaymentNotRefundable,
    RefundExceedsPayment,
)
from billing.identifiers import attempt_number
from billing.payment import Failure, GatewayName, PaymentStatus
from billing.refund import RefundCause, RefundStatus
from storage.database import Database
from storage.events import EventRecord
from storage.refunds import RefundRecord
from tests.storage.samples import NOW, make_order, make_refund_id, reserve, take, take_twice

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
NOBODY = "ref_01h455vb4pex5vsknk084sn02q"


async def fail(database: Database, record: RefundRecord) -> None:
    async with database.begin() as work:
        await work.refunds.move(
            record.refund.id,
            RefundStatus.FAILED,
            now=NOW,
            failure=Failure(code="refund_refused", message="no"),
        )


async def of_payment(database: Database, payment_id: str) -> list[RefundRecord]:
    async with database.begin() as work:
        return await work.refunds.of_payment(payment_id)


async def events_of(database: Database, application: str, object_id: str) -> list[EventRecord]:
    async with database.begin() as work:
        page = await work.events.after(application=application, cursor=None, limit=100)
    return [event for event in page.data if event.object_id == object_id]


async def test_all_that_is_left_is_set_aside(database: Database) -> None:
    order = await take(database)
    part = await reserve(database, order, amount_minor=900)
    rest = await reserve(database, order)
    assert (part.refund.amount, rest.refund.amount) == (900, 2000)
    assert await of_payment(database, order.payment_id) == [part, rest]
    async with database.begin() as work:
        payment = await work.payments.find(order.payment_id)
    assert payment is not None
    assert payment.payment.amount_refunded == 0, "nothing is refunded before the gateway says so"


async def test_the_record_says_all_that_a_gateway_is_asked_with(database: Database) -> None:
    order = await take(database, application="asking")
    record = await reserve(database, order, amount_minor=900)
    assert record.application == "asking"
    assert (record.attempt, record.payment_number) == (1, order.payment_id)
    assert record.payment_reference == f"{order.payment_id}/paid"
    assert record.paid_minor == 2900
    assert (record.ask_at, record.asked_at, record.gateway_status) == (NOW, None, None)
    refund = record.refund
    assert refund.payment_id == order.payment_id
    assert (refund.status, refund.cause) == (RefundStatus.PENDING, RefundCause.REQUESTED)
    assert (refund.amount, refund.currency, refund.gateway) == (900, "CNY", GatewayName.ALIPAY)
    assert (refund.reason, refund.created_at, refund.updated_at) == ("not as described", NOW, NOW)
    assert (refund.gateway_reference, refund.failure) == (None, None)
    assert (refund.review, refund.refunded_at) == (None, None)
    (event,) = await events_of(database, "asking", refund.id)
    assert (event.type, event.sequence, event.created_at) == ("refund.created", 1, NOW)
    assert (event.data["payment_id"], event.data["amount"]) == (order.payment_id, 900)
    assert "described" not in str(event.data), "the reason is the application's own word"


async def test_a_repeat_changes_nothing_and_answers_with_what_stands(database: Database) -> None:
    order = await take(database, application="repeated")
    first = await reserve(database, order)
    years_later = NOW + 3 * 365 * DAY
    again = await reserve(
        database, order, refund_id=first.refund.id, amount_minor=1, now=years_later
    )
    assert again == first
    assert len(await events_of(database, "repeated", first.refund.id)) == 1


async def test_an_id_stands_for_one_payment(database: Database) -> None:
    record = await reserve(database, await take(database))
    with pytest.raises(IntegrityError, match="refunds_pkey"):
        await reserve(database, await take(database), refund_id=record.refund.id)


@pytest.mark.parametrize("amount", [0, -1])
async def test_an_amount_is_positive(database: Database, amount: int) -> None:
    with pytest.raises(IntegrityError, match="refunds_amount_check"):
        await reserve(database, await take(database), amount_minor=amount)


class TestRefused:
    async def refusal(
        self,
        database: Database,
        refusal: type[BillingError],
        match: str,
        order: Any,
        **changed: Any,
    ) -> None:
        before = await of_payment(database, order.payment_id)
        refund_id = make_refund_id()
        with pytest.raises(refusal, match=match):
            await reserve(database, order, refund_id=refund_id, **changed)
        assert await of_payment(database, order.payment_id) == before
        assert await events_of(database, order.application, refund_id) == []

    async def test_nobody_s_payment(self, database: Database) -> None:
        await self.refusal(database, PaymentNotFound, "no payment pay_", make_order())

    async def test_another_application_s_payment(self, database: Database) -> None:
        order = await take(database)
        await self.refusal(database, PaymentNotFound, "no payment", order, application="other")
        assert (await reserve(database, order, application=None)).application == "shop"

    async def test_an_unpaid_payment(self, database: Database) -> None:
        order = make_order()
        async with database.begin() as work:
            await work.payments.insert(order, NOW)
        await self.refusal(database, PaymentNotRefundable, "payment is created", order)
        await self.refusal(
            database,
            PaymentNotRefundable,
            "no money of its attempt 1 came in",
            order,
            attempt=1,
            cause=RefundCause.RETURNED,
        )

    async def test_an_attempt_that_brought_nothing(self, database: Database) -> None:
        order = await take(database)
        await self.refusal(
            database, PaymentNotRefundable, "no money of its attempt 2", order, attempt=2
        )

    async def test_money_that_did_not_pay_for_it_as_if_it_had(self, database: Database) -> None:
        order = await take_twice(database)
        await self.refusal(database, PaymentNotRefundable, "but returned", order, attempt=2)

    async def test_more_than_is_left(self, database: Database) -> None:
        order = await take(database)
        await self.refusal(
            database, RefundExceedsPayment, "2900 of 2900 CNY", order, amount_minor=2901
        )
        await reserve(database, order, amount_minor=900)
        await self.refusal(
            database, RefundExceedsPayment, "2000 of 2900 CNY", order, amount_minor=2001
        )

    async def test_all_that_is_left_of_nothing(self, database: Database) -> None:
        order = await take(database)
        await reserve(database, order)
        for amount in (None, 1):
            await self.refusal(
                database, RefundExceedsPayment, "0 of 2900", order, amount_minor=amount
            )

    @pytest.mark.parametrize("gateway", [GatewayName.ALIPAY, GatewayName.WECHATPAY])
    async def test_too_late_for_the_gateway(self, database: Database, gateway: GatewayName) -> None:
        order = await take(database, gateway=gateway)
        last = NOW + 365 * DAY
        await self.refusal(database, PaymentNotRefundable, "365 days ago", order, now=last + SECOND)
        assert (await reserve(database, order, amount_minor=1, now=last)).ask_at == last
        await self.refusal(database, PaymentNotRefundable, "365 days ago", order, now=last)

    async def test_too_often_for_the_gateway(self, database: Database) -> None:
        order = await take(database, gateway=GatewayName.WECHATPAY)
        records = [await reserve(database, order, amount_minor=1) for _ in range(50)]
        await self.refusal(database, PaymentNotRefundable, "50 refunds", order, amount_minor=1)
        await fail(database, records[0])
        assert (await reserve(database, order, amount_minor=1)).refund.amount == 1


async def test_stripe_has_no_limits(database: Database) -> None:
    order = await take(database, gateway=GatewayName.STRIPE)
    later = NOW + 1000 * DAY
    for _ in range(51):
        assert (await reserve(database, order, amount_minor=1, now=later)).ask_at == later


async def test_what_failed_can_be_set_aside_again(database: Database) -> None:
    order = await take(database)
    await fail(database, await reserve(database, order))
    assert (await reserve(database, order)).refund.amount == 2900


@pytest.mark.parametrize(
    ("gateway", "pause"), [(GatewayName.ALIPAY, 3 * SECOND), (GatewayName.WECHATPAY, MINUTE)]
)
async def test_gateways_get_their_pause(
    database: Database, gateway: GatewayName, pause: timedelta
) -> None:
    order = await take(database, gateway=gateway)
    records = [await reserve(database, order, amount_minor=1) for _ in range(3)]
    assert [one.ask_at for one in records] == [NOW, NOW + pause, NOW + 2 * pause]
    late = NOW + DAY
    async with database.begin() as work:
        await work.refunds.note_asked(records[0].refund.id, now=late)
    assert (await reserve(database, order, amount_minor=1, now=late)).ask_at == late + pause
    much_later = late + DAY
    assert (await reserve(database, order, amount_minor=1, now=much_later)).ask_at == much_later


async def test_each_receipt_has_its_own_rest(database: Database) -> None:
    order = await take_twice(database)
    kept = await reserve(database, order, amount_minor=900)
    returned = await reserve(database, order, attempt=2, cause=RefundCause.RETURNED)
    assert (returned.refund.amount, returned.attempt) == (2900, 2)
    assert returned.ask_at == NOW, "the pause is between refunds of one order"
    assert returned.payment_number == attempt_number(order.payment_id, 2)
    assert returned.payment_reference == f"{order.payment_id}/paid twice"
    assert (await reserve(database, order, attempt=1)).refund.amount == 2000
    assert kept.refund.cause is RefundCause.REQUESTED


async def test_money_of_a_payment_that_has_ended_otherwise_is_returned(database: Database) -> None:
    order = make_order()
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
        await work.payments.move(order.payment_id, PaymentStatus.CANCELED, now=NOW)
        await work.receipts.record(
            payment_id=order.payment_id,
            attempt=1,
            gateway=order.gateway,
            receipt_reference=f"{order.payment_id}/late",
            amount_minor=2900,
            currency="CNY",
            paid_at=NOW,
            kept=False,
            now=NOW,
        )
    with pytest.raises(PaymentNotRefundable, match="payment is canceled"):
        await reserve(database, order, attempt=1)
    record = await reserve(database, order, attempt=1, cause=RefundCause.RETURNED)
    assert (record.refund.amount, record.refund.cause) == (2900, RefundCause.RETURNED)


async def test_refunds_are_found_by_their_own_application(database: Database) -> None:
    record = await reserve(database, await take(database))
    async with database.begin() as work:
        assert await work.refunds.find(record.refund.id, application="shop") == record
        assert await work.refunds.find(record.refund.id, application="other") is None
        assert await work.refunds.find(record.refund.id, lock=True) == record
        for lock in (False, True):
            assert await work.refunds.find(NOBODY, lock=lock) is None


async def test_unfinished_ones_are_listed_in_order(database: Database) -> None:
    order = await take(database, gateway=GatewayName.STRIPE)
    records = [await reserve(database, order, amount_minor=1) for _ in range(5)]
    await fail(database, records[1])
    ids = [one.refund.id for one in records]
    async with database.begin() as work:
        await work.refunds.move(ids[2], RefundStatus.PROCESSING, now=NOW)
        await work.refunds.move(ids[3], RefundStatus.SUCCEEDED, now=NOW, refunded_at=NOW)
        assert await work.refunds.unfinished(None, 1000) == sorted(
            await work.refunds.unfinished(None, 1000)
        )
        assert set(ids) & set(await work.refunds.unfinished(None, 1000)) == {ids[0], ids[2], ids[4]}
        assert await work.refunds.unfinished(ids[0], 1) == [ids[2]]
        assert await work.refunds.unfinished(ids[4], 10) == []
