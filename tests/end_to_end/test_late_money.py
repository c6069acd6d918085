"""Money that comes when nobody waits for it any more, or comes twice: recorded apart, given back.

Peers closed the order in their own rows alone, and lost what was paid for it later (Jeepay's late
success on a closed order, v2board #313, dujiao-next #108); or had one order paid at two codes, and
rolled the second notification back for ever (ruoyi-vue-pro #1152).
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.service import RPCError

from billing.identifiers import after_workflow_id
from billing.payment import AttemptState, GatewayName
from tests.end_to_end.outcomes import (
    attention_to,
    events_of,
    until_delivered,
    until_receipt,
    until_returned,
    until_status,
)
from tests.end_to_end.stand_ins import RefusesOneRefund, standing_in
from tests.fixtures.house import ENDED, METHODS, House

GATEWAYS = tuple(METHODS)
RACES = 6
SPREAD_SECONDS = 1.2


async def came_late(house: House, payment_id: str, status: str) -> None:
    """One charge and one receipt, posted apart and given back; the status stands."""
    await until_returned(house, payment_id)
    await until_delivered(house, payment_id)
    assert len(await house.charges(payment_id)) == 1
    [receipt] = await house.receipts(payment_id)
    assert not receipt.kept
    assert await house.postings(payment_id) == 1
    payment = await house.read(payment_id)
    assert (payment["status"], payment["paid_at"]) == (status, None)
    events = await events_of(house, payment_id)
    told = [event for event in events if event.startswith("payment.receipt")]
    assert told == ["payment.receipt_unapplied", "payment.receipt_returned"]
    assert "payment.succeeded" not in events
    assert payment["amount_refunded"] == 0
    assert await attention_to(house, payment_id) == []


async def test_paid_after_a_cancel_at_alipay(house: House) -> None:
    """Nothing existed there that could have been closed: its QR stays payable."""
    payment = await house.create("alipay")
    assert (await house.command(payment["id"], "cancel")).json()["status"] == "canceled"
    await house.pay(payment)
    await came_late(house, payment["id"], "canceled")


async def test_paid_after_a_cancel_at_wechatpay(house: House) -> None:
    """It may refuse to close in an order's first five minutes."""
    payment = await house.create("wechatpay")
    await house.sandbox.fault(
        "wechatpay", "close", "close_too_early", reference=payment["id"], times=9
    )
    assert (await house.command(payment["id"], "cancel")).json()["status"] == "canceled"
    await house.pay(payment)
    await came_late(house, payment["id"], "canceled")


async def test_paid_after_the_deadline_at_stripe(house: House) -> None:
    """The money is on its way at the deadline: it can be neither seen nor stopped."""
    payment = await house.create("stripe", expires_in_seconds=5)
    await house.pay(payment, slow_bank=True)
    await until_status(house, payment["id"], "expired")
    await house.pay(payment)
    await came_late(house, payment["id"], "expired")


async def test_the_webhook_of_late_money_is_lost(house: House) -> None:
    """The payer comes back to the shop's page, whose refresh has the gateway asked."""
    payment = await house.create("alipay")
    await house.command(payment["id"], "cancel")
    await house.sandbox.fault("alipay", "webhook", "never", reference=payment["id"], times=9)
    await house.pay(payment)
    answer = await house.command(payment["id"], "refresh")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    await came_late(house, payment["id"], "canceled")


async def test_two_codes_of_one_payment_are_both_paid(house: House) -> None:
    """Alipay lost the first code before anybody had it; somebody pays it all the same."""
    await house.sandbox.fault("alipay", "open", "cut_after")
    payment = await house.create("alipay")
    assert payment["attempt"] == 2
    await house.pay(payment)
    await until_status(house, payment["id"], "succeeded")
    await house.sandbox.pay(gateway="alipay", reference=payment["id"], attempt=1)
    async with asyncio.timeout(60):
        while len(await house.receipts(payment["id"])) < 2:
            await asyncio.sleep(0.1)
    receipts = {each.attempt: each.kept for each in await house.receipts(payment["id"])}
    assert receipts == {1: False, 2: True}
    assert len(await house.charges(payment["id"])) == 2
    assert await house.postings(payment["id"]) == 2
    await until_returned(house, payment["id"])
    after = await house.read(payment["id"])
    assert (after["status"], after["amount_refunded"]) == ("succeeded", 0)
    assert await attention_to(house, payment["id"]) == []


async def test_a_return_that_fails_is_tried_again_by_hand(house: House) -> None:
    """The gateway refuses it for good: a person is called, and decides when to try again."""
    payment = await house.create("alipay")
    await house.command(payment["id"], "cancel")
    with standing_in(house, RefusesOneRefund(house.gateways[GatewayName.ALIPAY])):
        await house.pay(payment)
        async with asyncio.timeout(60):
            while await attention_to(house, payment["id"]) != ["return_failed"]:
                await asyncio.sleep(0.1)
    answer = await house.command(payment["id"], "review", action="return", reason="try again")
    assert answer.status_code == 200, answer.text
    await until_returned(house, payment["id"])
    assert await attention_to(house, payment["id"]) == []
    again = await house.command(payment["id"], "review", action="return", reason="once more")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_return")


async def test_other_money_than_was_asked_for_goes_back_by_hand(house: House) -> None:
    """The payment is parked and nothing posted; a person has what came in returned, and no more
    or less than that."""
    payment = await house.create("wechatpay")
    await house.sandbox.fault("wechatpay", "query", "wrong_amount", reference=payment["id"])
    await house.pay(payment)
    await until_status(house, payment["id"], "needs_review")
    answer = await house.command(payment["id"], "review", action="return", reason="not ours")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["failure"]["code"] == "returned_by_operator"
    await until_returned(house, payment["id"])
    assert await attention_to(house, payment["id"]) == []


@pytest.mark.parametrize("gateway", ["alipay", "wechatpay"])
async def test_other_money_that_comes_late_goes_back_by_hand(house: House, gateway: str) -> None:
    """Of an ended payment whose workflow has ended too, and of one that still looks after it."""
    payment = await house.create(gateway)
    await house.sandbox.fault(
        "wechatpay", "close", "close_too_early", reference=payment["id"], times=9
    )
    await house.command(payment["id"], "cancel")
    await house.sandbox.fault(gateway, "query", "wrong_amount", reference=payment["id"], times=99)
    await house.pay(payment)
    async with asyncio.timeout(60):
        while await attention_to(house, payment["id"]) != ["amount_mismatch"]:
            await asyncio.sleep(0.1)
    await _have_asked(house, payment["id"])
    # What came in can be given back by what was really taken, and no more.
    await house.sandbox.control.delete("/control/faults")
    answer = await house.command(payment["id"], "review", action="return", reason="not ours")
    assert (answer.status_code, answer.json()["status"]) == (202, "canceled")
    await until_returned(house, payment["id"])
    assert await attention_to(house, payment["id"]) == []
    again = await house.command(payment["id"], "review", action="return", reason="once more")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_return")


async def _have_asked(house: House, payment_id: str) -> None:
    """Until no workflow of the payment has moved for two seconds: nothing is on its way."""
    before, since = -1, 0
    async with asyncio.timeout(60):
        while since < 10:
            length = 0
            for workflow_id in (payment_id, after_workflow_id(payment_id)):
                with contextlib.suppress(RPCError):
                    told = await house.client.get_workflow_handle(workflow_id).describe()
                    length += told.history_length
            since = since + 1 if length == before else 0
            before = length
            await asyncio.sleep(0.2)


async def test_there_is_nothing_to_return(house: House) -> None:
    """Of a payment that nobody paid, and of one whose money was kept."""
    unpaid = await house.create("stripe")
    await house.command(unpaid["id"], "cancel")
    paid = await house.take("stripe")
    for payment in (unpaid, paid):
        answer = await house.command(payment["id"], "review", action="return", reason="give back")
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_return")
        assert (await house.read(payment["id"]))["amount_refunded"] == 0


async def test_paid_in_the_second_in_which_it_expires(house: House) -> None:
    """Whoever wins, gateway and record tell the same, and what was taken is recorded once."""
    payments = [
        await house.create(gateway, expires_in_seconds=5)
        for gateway in GATEWAYS
        for _ in range(RACES)
    ]
    offsets = [SPREAD_SECONDS * (turn / (RACES - 1) - 0.8) for turn in range(RACES)] * 3
    taken = await asyncio.gather(
        *(
            _pay_around_the_deadline(house, payment, offset)
            for payment, offset in zip(payments, offsets, strict=True)
        )
    )
    assert any(taken)
    for payment, was_taken in zip(payments, taken, strict=True):
        payment_id = payment["id"]
        status = await until_status(house, payment_id, *ENDED)
        assert len(await house.charges(payment_id)) == was_taken
        if was_taken:
            await until_receipt(house, payment_id)
        receipts = await house.receipts(payment_id)
        assert len(receipts) == await house.postings(payment_id) == was_taken
        kept = [receipt for receipt in receipts if receipt.kept]
        assert status == ("succeeded" if kept else "expired")
        [attempt] = (await house.record(payment_id)).attempts
        assert (attempt.state is AttemptState.PAID) == was_taken


async def _pay_around_the_deadline(house: House, payment: dict[str, Any], offset: float) -> bool:
    """Whether the gateway took the money."""
    moment = datetime.fromisoformat(payment["expires_at"]) + timedelta(seconds=offset)
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
    answer = await house.sandbox.control.post(
        "/control/pay",
        json={"gateway": payment["gateway"], "next_action": payment["next_action"]},
    )
    assert answer.status_code in (200, 409), answer.text
    return answer.status_code == 200
