"""What a gateway allows of refunds, met over HTTP: refused with nothing changed, or waited for
under the one number. Nobody is called for a plain limit."""

import asyncio
import secrets
from collections import Counter
from typing import Any, Final

import pytest

from billing.payment import GatewayName
from gateways.gateway import Gateway, RefundObservation, RefundOrder
from tests.end_to_end.outcomes import attention_to, events_of, webhooks_of
from tests.end_to_end.stand_ins import StandIn, standing_in
from tests.end_to_end.test_refunds import given_back
from tests.fixtures.house import House

GATEWAYS: Final = ("alipay", "wechatpay")
PAUSES: Final = {"alipay": 3, "wechatpay": 60}
A_YEAR: Final = 365 * 86_400

Json = dict[str, Any]


class _Counting(StandIn):
    """Keeps when the gateway was first asked for each refund, in seconds of the loop's clock, and
    how often it has answered."""

    def __init__(self, inner: Gateway) -> None:
        super().__init__(inner)
        self.first_asked: dict[str, float] = {}
        self.answered: Counter[str] = Counter()

    async def refund(self, order: RefundOrder) -> RefundObservation:
        self.first_asked.setdefault(order.number, asyncio.get_running_loop().time())
        try:
            return await super().refund(order)
        finally:
            self.answered[order.number] += 1


async def silenced(house: House, payment: Json) -> None:
    """No webhook of it arrives from now on."""
    await house.sandbox.fault(
        payment["gateway"], "webhook", "never", reference=payment["id"], times=60
    )


async def told_at_last(house: House, payment: Json, refunded: int) -> None:
    """Its webhooks arrive after all, so that what was made there is known."""
    answer = await house.sandbox.control.delete("/control/faults")
    assert answer.status_code == 200, answer.text
    for webhook in await webhooks_of(house, payment["id"]):
        await house.sandbox.control.post(f"/control/webhooks/{webhook['id']}/resend")
    await house.until(payment["id"], lambda now: now["amount_refunded"] == refunded)


async def taken_long_ago(house: House, gateway: str, seconds: float) -> Json:
    """A payment that Everbill knows to lie so far back."""
    payment = await house.until_status((await house.create(gateway))["id"], "requires_action")
    await silenced(house, payment)
    await house.pay(payment)
    await house.sandbox.age(gateway, payment["id"], seconds)
    await house.command(payment["id"], "refresh")
    taken = await house.until_status(payment["id"], "succeeded")
    await house.sandbox.control.delete("/control/faults")
    return taken


async def refused_at_once(house: House, payment: Json) -> str:
    """What the application is told, and that nothing was changed."""
    before = await given_back(house, payment["id"])
    key = secrets.token_hex(16)
    answers = [await house.post_refund(payment["id"], key=key, amount=500) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {409}
    problem = answers[0].json()
    assert problem["code"] == "payment_not_refundable"
    assert problem == {**answers[1].json(), "request_id": problem["request_id"]}
    assert await given_back(house, payment["id"]) == before
    assert await attention_to(house, payment["id"]) == []
    detail: str = problem["detail"]
    return detail


async def refused_by_the_gateway(house: House, payment: Json, word: str) -> None:
    """It fails, and what it had set aside is free again."""
    before = await house.read(payment["id"])
    answer = await house.post_refund(payment["id"], amount=500)
    assert answer.status_code == 201, answer.text
    refund = await house.until_refund(answer.json()["id"])
    assert refund["status"] == "failed"
    assert (refund["failure"]["code"], refund["failure"]["decline_code"]) == (
        "refund_refused",
        word,
    )
    assert await events_of(house, refund["id"]) == ["refund.created", "refund.failed"]
    assert await house.read(payment["id"]) == before
    assert await attention_to(house, payment["id"]) == []


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_one_too_late_is_refused_at_once(house: House, gateway: str) -> None:
    payment = await taken_long_ago(house, gateway, A_YEAR + 3600)
    detail = await refused_at_once(house, payment)
    assert "365 days ago" in detail
    async with house.database.begin() as work:
        assert await work.refunds.of_payment(payment["id"]) == []


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_one_on_the_last_day_is_made(house: House, gateway: str) -> None:
    payment = await taken_long_ago(house, gateway, A_YEAR - 3600)
    answer = await house.post_refund(payment["id"], amount=500)
    assert (await house.until_refund(answer.json()["id"]))["status"] == "succeeded"
    assert await given_back(house, payment["id"]) == 500


@pytest.mark.parametrize(
    ("gateway", "word"), [("alipay", "TRADE_HAS_FINISHED"), ("wechatpay", "TRADE_OVERDUE")]
)
async def test_the_gateway_finds_it_too_late(house: House, gateway: str, word: str) -> None:
    """Its clock counts: ours had an hour left."""
    payment = await taken_long_ago(house, gateway, A_YEAR - 3600)
    await house.sandbox.age(gateway, payment["id"], 7200)
    await refused_by_the_gateway(house, payment, word)
    assert await given_back(house, payment["id"]) == 0


async def test_the_fifty_first_is_refused_at_once(house: House) -> None:
    payment = await house.take("wechatpay")
    for _ in range(50):
        await house.sandbox.refund("wechatpay", payment["id"], amount=1)
    await house.until(payment["id"], lambda now: now["amount_refunded"] == 50)
    assert "50 refunds" in await refused_at_once(house, payment)


async def test_the_gateway_finds_it_the_fifty_first(house: House) -> None:
    """Of those made there, no webhook had come."""
    payment = await house.take("wechatpay")
    await silenced(house, payment)
    for _ in range(50):
        await house.sandbox.refund("wechatpay", payment["id"], amount=1)
    await house.sandbox.age("wechatpay", payment["id"], 60)
    await refused_by_the_gateway(house, payment, "INVALID_REQUEST")
    assert await given_back(house, payment["id"]) == 50
    await told_at_last(house, payment, 50)


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_too_soon_after_one_that_we_do_not_know(house: House, gateway: str) -> None:
    """The gateway says no until its pause is over; the one number is asked for until then."""
    payment = await house.take(gateway)
    await silenced(house, payment)
    counting = _Counting(house.gateways[GatewayName(gateway)])
    with standing_in(house, counting):
        await house.sandbox.refund(gateway, payment["id"], amount=900)
        asking = asyncio.create_task(house.post_refund(payment["id"], amount=500))
        async with asyncio.timeout(60):
            while not counting.answered.total():
                await asyncio.sleep(0.01)
        await house.sandbox.age(gateway, payment["id"], PAUSES[gateway])
        answer = await asking
        assert answer.status_code in (201, 202), answer.text
        refund_id = answer.json()["id"]
        assert await attention_to(house, payment["id"]) == []
        refund = await house.until_refund(refund_id, "succeeded", "failed", "needs_review")
    assert (refund["status"], refund["amount"]) == ("succeeded", 500)
    assert set(counting.answered) == {refund_id}
    assert counting.answered[refund_id] > 1, "the pause was over before it was asked for"
    assert await given_back(house, payment["id"]) == 1400
    told = await events_of(house, refund_id)
    assert "refund.needs_review" not in told
    assert told[-1] == "refund.succeeded"
    await told_at_last(house, payment, 1400)


@pytest.mark.parametrize(
    "gateway",
    [
        "alipay",
        pytest.param("wechatpay", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_our_own_wait_for_each_other(house: House, gateway: str) -> None:
    payment = await house.take(gateway)
    counting = _Counting(house.gateways[GatewayName(gateway)])
    with standing_in(house, counting):
        answers = await asyncio.gather(
            *(house.post_refund(payment["id"], amount=amount) for amount in (900, 500))
        )
        assert {answer.status_code for answer in answers} == {201}
        made = [await house.until_refund(answer.json()["id"]) for answer in answers]
    first, second = sorted(counting.first_asked.values())
    # The gateway makes us wait as well: that we do by ourselves shows in when we ask. What the
    # first one's way takes is not waited for.
    assert second - first > PAUSES[gateway] - 1
    assert [(one["status"], one["amount"]) for one in made] == [
        ("succeeded", 900),
        ("succeeded", 500),
    ]
    assert await given_back(house, payment["id"]) == 1400


async def test_the_promises_are_kept(house: House) -> None:
    await house.check_promises()
