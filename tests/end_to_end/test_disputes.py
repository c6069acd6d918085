"""Disputes at Stripe, from the bank's word to the ledger, and what they forbid meanwhile."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from tests.end_to_end.outcomes import WAIT_SECONDS, attention_to, events_of, webhooks_of
from tests.fixtures.house import House

DISPUTED_CARD = "4000000000000259"
FEE = 1500
WON = {"gateway_clearing:stripe": -FEE, "dispute_fees:stripe": FEE}
OPEN = {"gateway_clearing:stripe": -2900 - FEE, "dispute_fees:stripe": FEE, "disputed:stripe": 2900}
LOST = {"gateway_clearing:stripe": -2900 - FEE, "dispute_fees:stripe": FEE, "revenue": 2900}


async def booked(house: House, dispute: dict[str, Any]) -> dict[str, int]:
    """What the ledger has of a dispute, by account; none of them empty."""
    async with house.database.begin() as work:
        rows = await work.connection.execute(
            text(
                "SELECT account.code, sum(posting.amount_minor)::bigint"
                " FROM ledger_transactions AS transaction"
                " JOIN ledger_postings AS posting ON posting.transaction_id = transaction.id"
                " JOIN ledger_accounts AS account ON account.id = posting.account_id"
                " WHERE transaction.cause LIKE 'dispute/' || :id || '/%'"
                " GROUP BY account.code"
            ),
            {"id": dispute["id"]},
        )
        return {code: amount for code, amount in rows if amount}


async def until(house: House, payment_id: str, status: str) -> dict[str, Any]:
    """The payment's dispute once it has this status."""
    payment = await house.until(
        payment_id, lambda now: now["dispute"] is not None and now["dispute"]["status"] == status
    )
    dispute: dict[str, Any] = payment["dispute"]
    return dispute


async def told(house: House, payment_id: str) -> list[str]:
    return [name for name in await events_of(house, payment_id) if name.startswith("dispute.")]


async def resend(house: House, payment_id: str, event_type: str) -> None:
    [webhook] = [
        one for one in await webhooks_of(house, payment_id) if one["event_type"] == event_type
    ]
    answer = await house.sandbox.control.post(f"/control/webhooks/{webhook['id']}/resend")
    assert answer.status_code == 200, answer.text


async def test_won(house: House) -> None:
    payment = await house.take("stripe")
    assert payment["dispute"] is None
    opened = await house.sandbox.dispute(reference=payment["id"], reason="product_not_received")
    dispute = await until(house, payment["id"], "open")
    assert (dispute["id"], dispute["reason"]) == (opened["number"], "product_not_received")
    assert (dispute["amount"], dispute["currency"]) == (2900, "USD")
    assert dispute["due_by"] > dispute["opened_at"]
    assert dispute["closed_at"] is None
    assert await booked(house, dispute) == OPEN
    assert await attention_to(house, payment["id"]) == ["dispute_opened"]
    assert await told(house, payment["id"]) == ["dispute.opened", "dispute.funds_withdrawn"]

    await house.sandbox.close_dispute(payment["id"], "won")
    dispute = await until(house, payment["id"], "won")
    assert dispute["closed_at"] is not None
    assert await booked(house, dispute) == WON
    assert await attention_to(house, payment["id"]) == []
    assert sorted((await told(house, payment["id"]))[2:]) == [
        "dispute.funds_reinstated", "dispute.won",
    ]  # fmt: skip
    after = await house.read(payment["id"])
    assert (after["status"], after["amount_refunded"]) == ("succeeded", 0)


async def test_lost(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.dispute(reference=payment["id"])
    await until(house, payment["id"], "open")
    await house.sandbox.close_dispute(payment["id"], "lost")
    dispute = await until(house, payment["id"], "lost")
    assert await booked(house, dispute) == LOST
    assert await attention_to(house, payment["id"]) == []
    assert (await told(house, payment["id"]))[2:] == ["dispute.lost"]
    [charge] = await house.charges(payment["id"])
    assert charge["disputed"] == 2900


async def test_an_inquiry_calls_for_a_person_and_moves_nothing(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.dispute(reference=payment["id"], inquiry=True)
    dispute = await until(house, payment["id"], "warning")
    assert await attention_to(house, payment["id"]) == ["dispute_opened"]
    await house.sandbox.close_dispute(payment["id"], "won")
    await until(house, payment["id"], "won")
    assert await booked(house, dispute) == {}
    assert await attention_to(house, payment["id"]) == []


async def test_an_inquiry_becomes_a_chargeback(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.dispute(reference=payment["id"], inquiry=True)
    await until(house, payment["id"], "warning")
    await house.sandbox.dispute(reference=payment["id"])
    dispute = await until(house, payment["id"], "open")
    assert await booked(house, dispute) == OPEN


async def test_webhooks_that_come_twice(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.fault(
        "stripe", "webhook", "duplicate", reference=payment["id"], times=4, copies=3
    )
    await house.sandbox.dispute(reference=payment["id"])
    await until(house, payment["id"], "open")
    await house.sandbox.close_dispute(payment["id"], "won")
    dispute = await until(house, payment["id"], "won")
    assert await booked(house, dispute) == WON
    names = await told(house, payment["id"])
    assert len(names) == len(set(names)) == 4


async def test_webhooks_that_come_late(house: House) -> None:
    """The dispute is over by the time that its first webhook arrives."""
    payment = await house.take("stripe")
    await house.sandbox.fault("stripe", "webhook", "never", reference=payment["id"], times=4)
    await house.sandbox.dispute(reference=payment["id"])
    await house.sandbox.close_dispute(payment["id"], "lost")
    assert (await house.read(payment["id"]))["dispute"] is None
    await resend(house, payment["id"], "charge.dispute.created")
    dispute = await until(house, payment["id"], "lost")
    assert await booked(house, dispute) == LOST
    assert await told(house, payment["id"]) == [
        "dispute.opened", "dispute.funds_withdrawn", "dispute.lost",
    ]  # fmt: skip
    await house.sandbox.control.delete("/control/faults")


async def test_no_webhook_at_all_and_somebody_asks(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.fault("stripe", "webhook", "never", reference=payment["id"], times=4)
    await house.sandbox.dispute(reference=payment["id"])
    answer = await house.command(payment["id"], "refresh")
    assert answer.status_code == 200, answer.text
    dispute = await until(house, payment["id"], "open")
    assert await booked(house, dispute) == OPEN


@pytest.mark.parametrize("attempt", range(3))
async def test_a_card_that_is_disputed_right_after_the_charge(house: House, attempt: int) -> None:
    """The dispute is reported while the payment's own workflow runs."""
    payment = await house.create("stripe", description=f"Disputed at once, {attempt}")
    await house.sandbox.pay(
        gateway="stripe", next_action=payment["next_action"], card=DISPUTED_CARD
    )
    dispute = await until(house, payment["id"], "open")
    assert dispute["reason"] == "fraudulent"
    after = await house.read(payment["id"])
    assert after["status"] == "succeeded"
    assert await booked(house, dispute) == OPEN


async def test_a_disputed_payment_is_not_refunded(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.dispute(reference=payment["id"])
    await until(house, payment["id"], "open")
    refused = await house.post_refund(payment["id"], amount=900)
    assert (refused.status_code, refused.json()["code"]) == (409, "refund_exceeds_payment")
    assert "2900 withdrawn by a dispute" in refused.json()["detail"]
    await house.sandbox.close_dispute(payment["id"], "won")
    await until(house, payment["id"], "won")
    answer = await house.post_refund(payment["id"])
    assert answer.status_code == 201, answer.text
    refund = await house.until_refund(answer.json()["id"])
    assert (refund["status"], refund["amount"]) == ("succeeded", 2900)


async def test_a_refund_that_stripe_refuses_for_a_dispute_fails(house: House) -> None:
    """Only a part is disputed, so that the reservation is given; Stripe refunds none of it."""
    payment = await house.take("stripe")
    await house.sandbox.dispute(reference=payment["id"], amount=1000)
    await until(house, payment["id"], "open")
    too_much = await house.post_refund(payment["id"], amount=1901)
    assert too_much.status_code == 409
    answer = await house.post_refund(payment["id"], amount=1900)
    refund = await house.until_refund(answer.json()["id"])
    assert refund["status"] == "failed"
    assert refund["failure"]["decline_code"] == "charge_disputed"
    [charge] = await house.charges(payment["id"])
    assert (charge["refunded"], charge["disputed"]) == (0, 1000)


@pytest.mark.parametrize("fault", ["cut_before", "cut_after", "http_500", "garbage", "http_429"])
async def test_stripe_falls_silent_when_asked(house: House, fault: str) -> None:
    payment = await house.take("stripe")
    await house.sandbox.fault("stripe", "dispute_query", fault, reference=payment["id"], times=2)
    await house.sandbox.dispute(reference=payment["id"])
    dispute = await until(house, payment["id"], "open")
    assert await booked(house, dispute) == OPEN


async def test_an_answer_about_something_else_calls_for_a_person(house: House) -> None:
    payment = await house.take("stripe")
    await house.sandbox.fault("stripe", "webhook", "never", reference=payment["id"], times=2)
    await house.sandbox.dispute(reference=payment["id"])
    await house.sandbox.fault("stripe", "dispute_query", "wrong_currency", reference=payment["id"])
    await house.command(payment["id"], "refresh")
    async with asyncio.timeout(WAIT_SECONDS):
        while await attention_to(house, payment["id"]) != ["dispute_untrusted"]:
            await asyncio.sleep(0.05)
    assert (await house.read(payment["id"]))["dispute"] is None
    await resend(house, payment["id"], "charge.dispute.created")
    await until(house, payment["id"], "open")
    assert await attention_to(house, payment["id"]) == ["dispute_opened"]
