"""Many refunds of one payment at once, over HTTP, down to the gateway's own books."""

import asyncio
import random
import secrets
import sys
from typing import Any, Final

import httpx
import pytest

from billing.payment import GatewayName
from gateways.gateway import Gateway, RefundObservation, RefundOrder
from tests.end_to_end.stand_ins import StandIn, standing_in
from tests.fixtures.house import House

CAPTURED: Final = 10_000
_UNAVAILABLE: Final = 503

# WeChat Pay and Alipay want pauses between refunds of one payment: Stripe takes all at once.
GATEWAY: Final = GatewayName.STRIPE

Json = dict[str, Any]


class Counting(StandIn):
    """Keeps what was asked of the gateway, each refund once, however often it was repeated."""

    def __init__(self, inner: Gateway) -> None:
        super().__init__(inner)
        self.asked: dict[str, int] = {}

    async def refund(self, order: RefundOrder) -> RefundObservation:
        self.asked[order.number] = order.amount_minor
        return await super().refund(order)


@pytest.mark.parametrize(
    ("rounds", "at_once"),
    [
        (1, 24),
        pytest.param(5, 100, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
async def test_refunds_at_once_never_exceed_what_was_captured(
    house: House, rounds: int, at_once: int
) -> None:
    seed = secrets.randbits(32)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    for _ in range(rounds):
        # About half of them fit, or nearly all, or hardly one.
        largest = chance.choice([CAPTURED * 4 // at_once, CAPTURED * 2 // at_once, CAPTURED])
        await _race(house, [chance.randint(1, largest) for _ in range(at_once)])


async def _race(house: House, amounts: list[int]) -> None:
    payment = await house.take("stripe", amount=CAPTURED)
    counting = Counting(house.gateways[GATEWAY])
    with standing_in(house, counting):
        answers = await asyncio.gather(
            *(_refund(house, payment["id"], amount) for amount in amounts)
        )
        granted = [answer.json() for answer in answers if answer.status_code in (201, 202)]
        ended = await asyncio.gather(*(house.until_refund(refund["id"]) for refund in granted))
    refused = [
        (answer.status_code, answer.json()["code"], amount)
        for answer, amount in zip(answers, amounts, strict=True)
        if answer.status_code not in (201, 202)
    ]
    total = sum(refund["amount"] for refund in granted)
    assert total <= CAPTURED
    assert {(status, code) for status, code, _ in refused} <= {(409, "refund_exceeds_payment")}
    assert all(amount > CAPTURED - total for *_, amount in refused), "one that fits was refused"
    assert {refund["status"] for refund in ended} == {"succeeded"}
    assert counting.asked == {refund["id"]: refund["amount"] for refund in granted}
    assert await _made(house, payment) == sorted(counting.asked.values())
    [charge] = await house.charges(payment["id"])
    assert charge["refunded"] == total
    assert (await house.read(payment["id"]))["amount_refunded"] == total


async def _refund(house: House, payment_id: str, amount: int) -> httpx.Response:
    """As an application would: sent again, under the same key, while nobody can say yes."""
    key, answer = secrets.token_hex(16), None
    while answer is None or answer.status_code == _UNAVAILABLE:
        answer = await house.post_refund(payment_id, key=key, amount=amount)
    return answer


async def _made(house: House, payment: Json) -> list[int]:
    """The amounts of all refunds that the gateway has of the payment, in order of size."""
    wanted = {"charge": payment["gateway_reference"], "limit": "100"}
    headers = {"Authorization": f"Bearer {house.environment['EVERBILL_STRIPE_SECRET_KEY']}"}
    answer = await house.sandbox.control.get("/v1/refunds", params=wanted, headers=headers)
    assert answer.status_code == 200, answer.text
    assert not answer.json()["has_more"]
    return sorted(refund["amount"] for refund in answer.json()["data"])
