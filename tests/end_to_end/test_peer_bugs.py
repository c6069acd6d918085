"""Money bugs that other billing engines have published, each shown not to be ours.

Here those of webhooks and races. Those of unanswered calls and of dead processes are in
`test_peer_bugs_of_silence.py`, those of late money in `test_late_money.py`, those of a gateway's
unknown words in `test_parking.py`.
"""

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError

from activities.payment import PaymentActivities
from billing.messages import Command, ReviewAction, ReviewDecision, SettlePayment
from billing.payment import GatewayName
from tests.end_to_end.claims import claimed
from tests.end_to_end.notices import ACCEPTED, TELLS_OF_MONEY, notice
from tests.end_to_end.outcomes import (
    events_of,
    has_paid_once,
    inbox_of,
    until_delivered,
    webhooks_of,
)
from tests.fixtures.house import BASE, METHODS, House
from workflows import PaymentWorkflow

GATEWAYS = tuple(METHODS)
RACES = 12
AT_ONCE = 6
WORDS = {
    "stripe": (
        "payment_intent.created",
        "payment_intent.requires_action",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
    ),
    "alipay": ("WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_CLOSED"),
    "wechatpay": ("NOTPAY", "SUCCESS", "CLOSED"),
}
COMMAND = Command(application="shop")
DECISION = ReviewDecision(action=ReviewAction.RETRY, reason="looks paid", reviewed_by="key_1")

each_gateway = pytest.mark.parametrize("gateway", GATEWAYS)


class TestTheWebhookCameFirst:
    """A webhook for a payment that is not there yet was answered `NotFound` and lost
    (lago-api #1373); a settlement arrived before its workflow existed (temporalex #44)."""

    @each_gateway
    async def test_paid_before_the_order_was_answered(self, house: House, gateway: str) -> None:
        await house.sandbox.fault(gateway, "open", "slow", seconds=1.5)
        user = f"early_{secrets.token_hex(4)}"
        creating = asyncio.create_task(house.create(gateway, user_id=user))
        payment_id = await self._at_the_gateway(house, gateway, user)
        assert (await house.read(payment_id))["status"] == "created"
        await house.sandbox.pay(gateway=gateway, reference=payment_id)
        assert (await creating)["id"] == payment_id
        await has_paid_once(house, payment_id)

    async def _at_the_gateway(self, house: House, gateway: str, user: str) -> str:
        """The payment's id as soon as the gateway has its order."""
        async with asyncio.timeout(30):
            while True:
                history = await house.api.get(f"{BASE}/history", params={"user_id": user})
                orders = await house.sandbox.control.get(
                    "/control/orders", params={"gateway": gateway, "limit": 20}
                )
                known = {order["reference"] for order in orders.json()["data"]}
                for payment in history.json()["data"]:
                    if payment["id"] in known:
                        return str(payment["id"])
                await asyncio.sleep(0.05)

    async def test_told_of_before_there_was_a_row_or_a_workflow(self, house: House) -> None:
        """The API died between its claim and Temporal; a gateway speaks of the order already."""
        await asyncio.gather(*(self._told_early(house, gateway) for gateway in GATEWAYS))

    async def _told_early(self, house: House, gateway: str) -> None:
        key = secrets.token_hex(16)
        payment_id = await claimed(house, gateway, key)
        answer = await notice(house, gateway, payment_id).post(house)
        assert (answer.status_code, answer.content) == ACCEPTED[gateway]
        assert await inbox_of(house, payment_id) == [None]
        again = await house.post_create(gateway, key=key)
        payment = again.json()
        assert (again.status_code, payment["id"]) == (201, payment_id)
        await until_delivered(house, payment_id)
        await house.pay(payment)
        await has_paid_once(house, payment_id)


class TestSeveralCompleteAtOnce:
    """The webhook and the page the payer returns to both completed the order, and sent two mails
    or charged twice (woocommerce-payments #3287 and #5188, pretix #1166, saleor #19220)."""

    @each_gateway
    async def test_webhook_refresh_poll_and_operator(self, house: House, gateway: str) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with slots:
                await self._race(house, gateway)

        await asyncio.gather(*(one() for _ in range(RACES)))

    async def _race(self, house: House, gateway: str) -> None:
        payment = await house.create(gateway)
        payment_id: str = payment["id"]
        await house.sandbox.fault(
            gateway, "webhook", "duplicate", reference=payment_id, copies=3, times=2
        )
        await house.pay(payment)
        workflow = house.client.get_workflow_handle_for(PaymentWorkflow.run, payment_id)
        worker = PaymentActivities(house.database, house.gateways)
        poll = SettlePayment(
            payment_id=payment_id, gateway=GatewayName(gateway), now=datetime.now(UTC)
        )
        outcomes = await asyncio.gather(
            notice(house, gateway, payment_id).post(house),
            house.command(payment_id, "refresh"),
            worker.settle(poll),
            worker.settle(poll),
            worker.settle(poll.model_copy(update={"thorough": True, "review": DECISION})),
            workflow.execute_update(PaymentWorkflow.refresh, COMMAND),
            workflow.execute_update(PaymentWorkflow.review, DECISION),
            house.resumption().resume(payment_id),
            return_exceptions=True,
        )
        ended_before = (RPCError, WorkflowUpdateFailedError)
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        assert not [each for each in failures if not isinstance(each, ended_before)]
        await has_paid_once(house, payment_id)


class TestTheSameOrderAgain:
    """Customers were charged two to four times, and nobody could reproduce it
    (craftcms/commerce-stripe #207); the key was made anew for each try (akash-network #3449)."""

    @each_gateway
    async def test_a_hundred_times_at_once(self, house: House, gateway: str) -> None:
        key, user = secrets.token_hex(16), f"again_{secrets.token_hex(4)}"
        answers = await asyncio.gather(
            *(house.post_create(gateway, key=key, user_id=user) for _ in range(100))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        flagged = [answer for answer in answers if "Idempotent-Replayed" in answer.headers]
        assert len(flagged) >= 99
        history = await house.api.get(f"{BASE}/history", params={"user_id": user})
        [payment] = history.json()["data"]
        orders = await house.sandbox.control.get("/control/orders", params={"gateway": gateway})
        known = [each for each in orders.json()["data"] if each["reference"] == payment["id"]]
        assert len(known) == 1
        await house.pay(payment)
        await has_paid_once(house, payment["id"])


class TestEventsInAnyOrder:
    """A late `created` overwrote `closed` (polar's backfill of disputes), a late `failed` flipped a
    paid invoice (frappe/press #277), and state went backwards (cashier-stripe #1201)."""

    @each_gateway
    async def test_every_order_of_what_a_gateway_can_tell(self, house: House, gateway: str) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(words: Sequence[str]) -> None:
            async with slots:
                await self._told_in_order(house, gateway, words)

        await asyncio.gather(*(one(words) for words in itertools.permutations(WORDS[gateway])))

    async def _told_in_order(self, house: House, gateway: str, words: Sequence[str]) -> None:
        payment = await house.create(gateway)
        payment_id: str = payment["id"]
        await house.sandbox.fault(gateway, "webhook", "never", reference=payment_id, times=9)
        await house.sandbox.decline(gateway=gateway, next_action=payment["next_action"])
        await house.pay(payment)
        for word in words:
            answer = await notice(house, gateway, payment_id, word).post(house)
            assert (answer.status_code, answer.content) == ACCEPTED[gateway]
        await until_delivered(house, payment_id)
        await has_paid_once(house, payment_id)

    async def test_a_decline_that_is_told_after_the_money(self, house: House) -> None:
        """Stripe's own payment_failed of the first try arrives when the second has paid."""
        payment = await house.create("stripe")
        payment_id: str = payment["id"]
        await house.sandbox.fault("stripe", "webhook", "never", reference=payment_id, times=2)
        await house.sandbox.decline(gateway="stripe", next_action=payment["next_action"])
        await house.pay(payment)
        await has_paid_once(house, payment_id)
        before = await events_of(house, payment_id)
        withheld = [
            each for each in await webhooks_of(house, payment_id) if each["state"] == "withheld"
        ]
        assert "payment_intent.payment_failed" in {each["event_type"] for each in withheld}
        for each in withheld:
            await house.sandbox.control.post(f"/control/webhooks/{each['id']}/resend")
        await self._all_taken(house, payment_id)
        await until_delivered(house, payment_id)
        late = await house.read(payment_id)
        assert (late["status"], late["failure"]) == ("succeeded", None)
        assert await events_of(house, payment_id) == before

    async def _all_taken(self, house: House, payment_id: str) -> None:
        async with asyncio.timeout(30):
            while any(
                each["state"] != "delivered" for each in await webhooks_of(house, payment_id)
            ):
                await asyncio.sleep(0.05)


class TestTheSameWebhookAgain:
    """One delivery, repeated, granted the credits twice (opencode #28402, cashier-mollie #321) or
    wrote its rows again, since the answer was not the one the gateway wants (easywechat #1911)."""

    @each_gateway
    async def test_a_hundred_times_at_once_and_once_more_later(
        self, house: House, gateway: str
    ) -> None:
        payment = await house.create(gateway)
        payment_id: str = payment["id"]
        await house.sandbox.fault(
            gateway, "webhook", "duplicate", reference=payment_id, copies=99, times=2
        )
        await house.pay(payment)
        await has_paid_once(house, payment_id)
        told = await self._told(house, payment_id, tries=100)
        assert all(each["accepted"] for each in told["tries"])
        await until_delivered(house, payment_id)
        await house.sandbox.control.post(f"/control/webhooks/{told['id']}/resend")
        again = await self._told(house, payment_id, tries=101)
        assert again["tries"][-1]["accepted"]
        await has_paid_once(house, payment_id)

    async def _told(self, house: House, payment_id: str, tries: int) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                for each in await webhooks_of(house, payment_id):
                    if each["event_type"] in TELLS_OF_MONEY and len(each["tries"]) >= tries:
                        return each
                await asyncio.sleep(0.1)


class TestNoWebhookEver:
    """The webhook endpoint could not be reached, and the invoice that was paid stayed open
    (Paymenter #1260)."""

    async def test_a_poll_settles_it(self, house: House) -> None:
        await asyncio.gather(*(self._never_told(house, gateway) for gateway in GATEWAYS))

    async def _never_told(self, house: House, gateway: str) -> None:
        payment = await house.create(gateway)
        payment_id: str = payment["id"]
        await house.sandbox.fault(gateway, "webhook", "never", reference=payment_id, times=9)
        await house.pay(payment)
        await has_paid_once(house, payment_id)
        assert await inbox_of(house, payment_id) == []
        told = [
            each["event_type"] for each in await webhooks_of(house, payment_id) if each["tries"]
        ]
        assert not set(told) & set(TELLS_OF_MONEY)
