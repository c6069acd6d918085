"""Receipts: each recorded once, and of several for one payment exactly one kept."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from billing.payment import GatewayName, PaymentMethod
from storage.database import Database
from storage.receipts import ReceiptConflict
from tests.storage.samples import NOW, make_order


async def paid_payment(database: Database) -> str:
    """A payment with two attempts."""
    order = make_order()
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
        await work.attempts.replace(
            order.payment_id, 2, GatewayName.ALIPAY, PaymentMethod.QR, order.expires_at, NOW
        )
    return order.payment_id


async def record(database: Database, payment_id: str, **changed: Any) -> bool:
    values: dict[str, Any] = {
        "payment_id": payment_id,
        "attempt": 1,
        "gateway": GatewayName.ALIPAY,
        "receipt_reference": f"{payment_id}/1",
        "amount_minor": 2900,
        "currency": "CNY",
        "paid_at": NOW,
        "kept": True,
        "now": NOW,
    }
    async with database.begin() as work:
        return await work.receipts.record(**(values | changed))


async def test_a_receipt_is_recorded_once(database: Database) -> None:
    payment_id = await paid_payment(database)
    recorded = await asyncio.gather(*(record(database, payment_id) for _ in range(10)))
    assert sorted(recorded) == [False] * 9 + [True]
    assert not await record(database, payment_id, kept=False), "as told after the payment ended"
    async with database.begin() as work:
        (only,) = await work.receipts.of(payment_id)
        assert await work.receipts.kept(payment_id) == only
    assert (only.amount_minor, only.currency, only.kept, only.paid_at) == (2900, "CNY", True, NOW)


async def test_a_second_receipt_is_recorded_beside_the_kept_one(database: Database) -> None:
    payment_id = await paid_payment(database)
    assert await record(database, payment_id)
    assert await record(
        database, payment_id, attempt=2, receipt_reference=f"{payment_id}/2", kept=False
    )
    async with database.begin() as work:
        assert [one.kept for one in await work.receipts.of(payment_id)] == [True, False]


async def test_two_are_never_kept(database: Database) -> None:
    payment_id = await paid_payment(database)
    await record(database, payment_id)
    with pytest.raises(IntegrityError, match="receipts_kept_key"):
        await record(database, payment_id, attempt=2, receipt_reference=f"{payment_id}/2")


async def test_one_gateway_number_pays_for_one_attempt(database: Database) -> None:
    first, second = await paid_payment(database), await paid_payment(database)
    await record(database, first)
    with pytest.raises(IntegrityError, match="gateway_reference"):
        await record(database, second, receipt_reference=f"{first}/1")


@pytest.mark.parametrize(
    "changed",
    [{"receipt_reference": "another"}, {"amount_minor": 2901}, {"currency": "USD"}],
    ids=["number", "amount", "currency"],
)
async def test_other_money_for_the_same_attempt_is_not_taken_for_a_repeat(
    database: Database, changed: dict[str, Any]
) -> None:
    payment_id = await paid_payment(database)
    await record(database, payment_id)
    with pytest.raises(ReceiptConflict, match=payment_id):
        await record(database, payment_id, **changed)


async def test_a_receipt_belongs_to_an_attempt(database: Database) -> None:
    payment_id = await paid_payment(database)
    with pytest.raises(IntegrityError, match="fkey"):
        await record(database, payment_id, attempt=3)


async def test_no_receipts_are_none(database: Database) -> None:
    async with database.begin() as work:
        assert await work.receipts.of("pay_01h455vb4pex5vsknk084sn02q") == []
        assert await work.receipts.kept("pay_01h455vb4pex5vsknk084sn02q") is None


async def test_the_payment_behind_a_gateway_s_number(database: Database) -> None:
    payment_id = await paid_payment(database)
    await record(database, payment_id)
    async with database.begin() as work:
        await work.attempts.set(payment_id, 2, reference=f"pi_{payment_id}", now=NOW)
        for number, found in (
            (f"{payment_id}/1", payment_id),
            (f"pi_{payment_id}", payment_id),
            (f"pi_{payment_id}x", None),
            ("", None),
        ):
            assert await work.receipts.payment_behind(GatewayName.ALIPAY, number) == found
            assert await work.receipts.payment_behind(GatewayName.STRIPE, number) is None
