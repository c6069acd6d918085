"""A gateway's words that make no sense, or that peers' state machines did not know."""

import asyncio
import itertools

import pytest

from activities.placing import order_of
from billing.payment import GatewayName
from gateways.gateway import ObservedState
from gateways.stripe.outcomes import state_of
from gateways.wechatpay.outcomes import TRADE_STATES
from tests.end_to_end.outcomes import attention_to, has_paid_once, until_status
from tests.end_to_end.stand_ins import AtTheBank, standing_in
from tests.fixtures.house import METHODS, House

GATEWAYS = tuple(METHODS)
LIES = {
    "wrong_amount": "amount_mismatch",
    "wrong_currency": "currency_mismatch",
    "wrong_merchant": "merchant_mismatch",
    "wrong_order": "order_mismatch",
    "unknown_status": "unknown_status",
}

each_gateway = pytest.mark.parametrize("gateway", GATEWAYS)


class TestStatusWordsNobodyKnew:
    """A gateway's `processing` or `canceled` was unknown to the state machine, and the payment
    stuck (lago-api #1223 and #3870)."""

    @pytest.mark.parametrize(
        ("gateway", "word", "state"),
        [
            ("stripe", "processing", state_of("processing")),
            ("stripe", "requires_capture", state_of("requires_capture")),
            ("wechatpay", "ACCEPT", TRADE_STATES["ACCEPT"]),
        ],
    )
    async def test_processing(
        self, house: House, gateway: str, word: str, state: ObservedState
    ) -> None:
        payment = await house.create(gateway)
        bank = AtTheBank(house.gateways[GatewayName(gateway)], word, state)
        with standing_in(house, bank):
            answer = await house.command(payment["id"], "refresh")
            assert answer.json()["status"] == "processing"
        await house.pay(payment)
        await has_paid_once(house, payment["id"])

    @each_gateway
    async def test_canceled_at_the_gateway_by_somebody_else(
        self, house: House, gateway: str
    ) -> None:
        payment = await house.create(gateway)
        if gateway == "alipay":
            await house.sandbox.decline(gateway=gateway, next_action=payment["next_action"])
        record = await house.record(payment["id"])
        await house.gateways[GatewayName(gateway)].close(order_of(record, record.attempts[0]))
        if gateway != "stripe":
            await house.command(payment["id"], "refresh")
        ended = await house.until_status(payment["id"])
        assert ended["status"] == "failed"
        assert ended["failure"]["code"] == "closed_by_gateway"
        assert await house.postings(payment["id"]) == 0


class TestAnswersOfOtherMoney:
    """Nothing is posted on the word of an answer about another amount, currency, merchant or order,
    or in a status that nobody knows; a person decides, and settles only what the gateway says."""

    async def test_each_is_parked(self, house: House) -> None:
        await asyncio.gather(
            *(
                self._parked(house, gateway, lie)
                for gateway, lie in itertools.product(GATEWAYS, LIES)
                # An answer of Stripe names no merchant: the key decides.
                if (gateway, lie) != ("stripe", "wrong_merchant")
            )
        )

    async def _parked(self, house: House, gateway: str, lie: str) -> None:
        payment = await house.create(gateway)
        payment_id: str = payment["id"]
        await house.sandbox.fault(gateway, "query", lie, reference=payment_id, times=2)
        await house.pay(payment)
        await until_status(house, payment_id, "needs_review")
        review = {"action": "retry", "reason": "ask again"}
        still = (await house.command(payment_id, "review", **review)).json()
        assert still["status"] == "needs_review"
        assert still["review"]["reason"] == LIES[lie]
        assert await attention_to(house, payment_id) == [LIES[lie]]
        assert await house.receipts(payment_id) == []
        assert await house.postings(payment_id) == 0
        settled = await house.command(payment_id, "review", **review)
        assert settled.json()["status"] == "succeeded"
        await has_paid_once(house, payment_id)
        assert await attention_to(house, payment_id) == []
