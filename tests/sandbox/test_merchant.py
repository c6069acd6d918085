"""What a merchant does at the gateways' dashboards, by the controls."""

from typing import Any

import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.test_stripe_api import open_order, plain
from tests.sandbox.test_stripe_refunds import pay, refunded

PATHS = ("/control/refund", "/control/close")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gateway", ["stripe", "alipay", "wechatpay"])
async def test_an_order_that_is_not_there(sandbox: SandboxProcess, gateway: str, path: str) -> None:
    answer = await sandbox.control.post(path, json={"gateway": gateway, "reference": "nobody's"})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "wanted", [{"gateway": "paypal", "reference": "x"}, {"gateway": "stripe"}, {"amount": 0}]
)
async def test_what_makes_no_sense(sandbox: SandboxProcess, wanted: dict[str, Any]) -> None:
    assert (await sandbox.control.post("/control/refund", json=wanted)).status_code == 422


class TestStripe:
    async def test_a_refund_carries_nothing_of_ours(
        self, client: stripe.StripeClient, sandbox: SandboxProcess
    ) -> None:
        intent = await pay(client)
        reference = intent.metadata["payment_id"]
        part = await sandbox.refund("stripe", reference, amount=900)
        made = await client.v1.refunds.retrieve_async(part["number"])
        assert (made.amount, plain(made.metadata), made.payment_intent) == (900, {}, intent.id)
        await sandbox.refund("stripe", reference)
        assert await refunded(sandbox) == 2900
        again = {"gateway": "stripe", "reference": reference}
        assert (await sandbox.control.post("/control/refund", json=again)).status_code == 409
        assert (await sandbox.control.post("/control/close", json=again)).status_code == 409

    async def test_an_unpaid_order_is_closed(
        self, client: stripe.StripeClient, sandbox: SandboxProcess
    ) -> None:
        intent = await open_order(client)
        told = await sandbox.close("stripe", intent.metadata["payment_id"])
        assert (told["number"], told["status"]) == (intent.id, "canceled")
        assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "canceled"
