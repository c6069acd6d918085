"""What became of a payment, looked up where it is cheap to look up often."""

import asyncio
from typing import Any

from sqlalchemy import select

from billing.refund import RefundCause, RefundStatus
from storage.tables import events, payments, webhook_inbox
from tests.fixtures.house import ENDED, House

WAIT_SECONDS = 120


async def has_paid_once(house: House, payment_id: str) -> None:
    """One charge, one receipt, one ledger transaction, one event of success, and it the last."""
    assert await until_status(house, payment_id, *ENDED) == "succeeded"
    assert (await house.record(payment_id)).payment.failure is None
    assert len(await house.charges(payment_id)) == 1
    [receipt] = await house.receipts(payment_id)
    assert receipt.kept
    assert await house.postings(payment_id) == 1
    told = await events_of(house, payment_id)
    assert told.count("payment.succeeded") == 1
    assert told[-1] == "payment.succeeded"


async def until_status(house: House, payment_id: str, *wanted: str) -> str:
    """As the house's own, without asking the API over and over."""
    question = select(payments.c.status).where(payments.c.id == payment_id)
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            async with house.database.begin() as work:
                status = await work.connection.scalar(question)
            if status in wanted:
                return str(status)
            await asyncio.sleep(0.1)


async def events_of(house: House, payment_id: str) -> list[str]:
    """The types of the payment's events, in their own order."""
    async with house.database.begin() as work:
        found = await work.connection.scalars(
            select(events.c.type)
            .where(events.c.object_id == payment_id)
            .order_by(events.c.sequence)
        )
        return list(found)


async def webhooks_of(house: House, payment_id: str) -> list[dict[str, Any]]:
    """What the sandbox has to tell of the payment, newest first."""
    return [each for each in await house.sandbox.webhooks() if each["reference"] == payment_id]


async def inbox_of(house: House, number: str) -> list[str | None]:
    """The outcome of each webhook stored about an order; None while it is not delivered."""
    async with house.database.begin() as work:
        found = await work.connection.scalars(
            select(webhook_inbox.c.outcome)
            .where(webhook_inbox.c.number == number)
            .order_by(webhook_inbox.c.id)
        )
        return list(found)


async def until_delivered(house: House, number: str, least: int = 0) -> list[str | None]:
    """The outcomes, once there are enough of them and none is missing."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            found = await inbox_of(house, number)
            if len(found) >= least and None not in found:
                return found
            await asyncio.sleep(0.1)


async def until_receipt(house: House, payment_id: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await house.receipts(payment_id):
            await asyncio.sleep(0.1)


async def until_returned(house: House, payment_id: str) -> None:
    """Every receipt that was not kept has gone back in full, and the gateway says so too."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            unkept = {one.attempt for one in await house.receipts(payment_id) if not one.kept}
            async with house.database.begin() as work:
                refunds = await work.refunds.of_payment(payment_id)
            returned = {
                one.attempt
                for one in refunds
                if one.refund.status is RefundStatus.SUCCEEDED
                and one.refund.cause is RefundCause.RETURNED
            }
            if unkept and unkept == returned:
                break
            await asyncio.sleep(0.1)
    for charge in await house.charges(payment_id):
        assert charge["refunded"] == (charge["amount"] if charge["attempt"] in unkept else 0)


async def attention_to(house: House, payment_id: str) -> list[str]:
    """What a person is called for."""
    async with house.database.begin() as work:
        return [each.reason for each in await work.attention.open(payment_id)]
