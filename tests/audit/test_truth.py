"""Two ways to learn what gateways took, which must agree."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from audit.evidence import Charge
from audit.truth import GatewayQueryTruth, SandboxTruth
from billing.errors import OutcomeUnknown
from billing.payment import GatewayName
from embedded.launch import free_port
from storage.inbox import InboxOutcome
from tests.end_to_end.lost_refunds import made_and_lost
from tests.end_to_end.test_refund_limits import silenced, told_at_last
from tests.fixtures.house import METHODS, House


async def sandbox_charges(house: House, *payment_ids: str) -> list[Charge]:
    charges = await SandboxTruth(house.sandbox.url).charges()
    return [charge for charge in charges if charge.payment_id in payment_ids]


def by_payment(charges: Sequence[Charge]) -> list[Charge]:
    return sorted(charges, key=lambda charge: charge.payment_id)


async def test_the_sandbox_s_book_and_the_gateways_answers_agree(house: House) -> None:
    paid, unpaid = [], []
    for gateway in METHODS:
        payment = await house.create(gateway)
        await house.pay(payment)
        paid.append((await house.until_status(payment["id"]))["id"])
        unpaid.append((await house.create(gateway))["id"])
    told: list[tuple[int, int]] = []
    truth = GatewayQueryTruth(
        house.gateways,
        house.database,
        [*paid, *unpaid, "pay_nobody"],
        lambda done, total: told.append((done, total)),
    )
    asked = by_payment(await truth.charges())
    booked = by_payment(await sandbox_charges(house, *paid, *unpaid))
    assert [charge.payment_id for charge in asked] == sorted(paid)
    assert [
        (one.gateway, one.payment_id, one.attempt, one.amount_minor, one.currency) for one in asked
    ] == [
        (one.gateway, one.payment_id, one.attempt, one.amount_minor, one.currency) for one in booked
    ]
    assert all(truth.covers(payment_id) for payment_id in (*paid, *unpaid))
    assert not truth.covers("pay_nobody")
    assert told == [(done, 7) for done in range(1, 8)]
    for payment_id in unpaid:
        await house.command(payment_id, "cancel")


@pytest.mark.parametrize("gateway", METHODS)
async def test_what_was_given_back_is_counted_once(house: House, gateway: str) -> None:
    """Whether a gateway lists ours as well, or is asked about each."""
    payment = await house.take(gateway)
    answer = await house.post_refund(payment["id"], amount=900)
    await house.until_refund(answer.json()["id"])
    await house.sandbox.refund(gateway, payment["id"], amount=500)
    await house.until(payment["id"], lambda now: now["amount_refunded"] == 1400)
    truth = GatewayQueryTruth(house.gateways, house.database, [payment["id"]])
    [charge] = await truth.charges()
    assert charge.refunded_minor == 1400


@pytest.mark.parametrize("gateway", METHODS)
async def test_what_only_a_webhook_named_is_counted(house: House, gateway: str) -> None:
    """As of a refund that the record lost, and that nobody has had looked at."""
    payment = await house.take(gateway)
    await silenced(house, payment)
    number = await made_and_lost(house, payment, 900)
    async with house.database.begin() as work:
        entry = await work.inbox.store(
            GatewayName(gateway),
            f"of {number}",
            "refund",
            payment["id"],
            b"{}",
            datetime.now(UTC),
            refund_number=number,
        )
        assert entry is not None
        await work.inbox.mark(entry.id, InboxOutcome.DELIVERED, datetime.now(UTC))
    truth = GatewayQueryTruth(house.gateways, house.database, [payment["id"]])
    [charge] = await truth.charges()
    assert charge.refunded_minor == 900
    await told_at_last(house, payment, 900)


async def test_a_refund_that_is_there_and_has_no_name_is_not_none(house: House) -> None:
    """WeChat Pay says no more than that there is one."""
    payment = await house.take("wechatpay")
    await silenced(house, payment)
    await house.sandbox.refund("wechatpay", payment["id"], amount=900)
    truth = GatewayQueryTruth(house.gateways, house.database, [payment["id"]])
    assert await truth.charges() == []
    assert "was refunded" in truth.unanswered[payment["id"]]
    await told_at_last(house, payment, 900)


async def test_who_gives_no_answer_is_not_compared(house: House) -> None:
    payment = await house.create("wechatpay")
    await house.pay(payment)
    paid = (await house.until_status(payment["id"]))["id"]
    await house.sandbox.fault("wechatpay", "query", "http_500", reference=paid, times=5)
    truth = GatewayQueryTruth(house.gateways, house.database, [paid])
    try:
        assert await truth.charges() == []
    finally:
        await house.sandbox.control.delete("/control/faults")
    assert not truth.covers(paid)
    assert list(truth.unanswered) == [paid]


async def test_an_answer_about_other_money_is_none(house: House) -> None:
    payment = await house.create("alipay")
    await house.pay(payment)
    paid = (await house.until_status(payment["id"]))["id"]
    await house.sandbox.fault("alipay", "query", "wrong_amount", reference=paid)
    truth = GatewayQueryTruth(house.gateways, house.database, [paid])
    assert await truth.charges() == []
    assert "amount_mismatch" in truth.unanswered[paid]


async def test_a_gateway_that_is_switched_off_is_named(house: House) -> None:
    payment = await house.create("stripe")
    others = dict(house.gateways)
    del others[GatewayName.STRIPE]
    truth = GatewayQueryTruth(others, house.database, [payment["id"]])
    assert await truth.charges() == []
    assert truth.unanswered == {payment["id"]: "stripe has no keys here"}
    await house.command(payment["id"], "cancel")


async def test_a_sandbox_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(OutcomeUnknown, match=url):
        await SandboxTruth(url).charges()
