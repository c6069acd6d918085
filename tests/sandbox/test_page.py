"""The page as a person uses it: what it shows and what its buttons do."""

import re

import stripe

from sandbox.page import format_amount
from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.test_stripe_api import ORDER, open_order


async def shown(sandbox: SandboxProcess) -> str:
    page = await sandbox.control.get("/")
    assert page.status_code == 200
    return page.text


async def test_orders_charges_and_webhooks_are_shown(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await open_order(client)
    await receiver.next()
    before = await shown(sandbox)
    await sandbox.pay(gateway="stripe", reference="pay_01")
    after = await shown(sandbox)

    assert "29.00 USD" in before
    assert "requires_payment_method" in before
    assert "Money taken (0)" in before
    assert "payment_intent.created" in before
    assert ">Pay<" in before
    assert "Money taken (1)" in after
    assert ">Pay<" not in after


async def test_the_buttons_do_what_they_say(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await open_order(client)
    created = await receiver.next()
    order = {"gateway": "stripe", "reference": "pay_01", "attempt": "1"}
    [webhook] = await sandbox.webhooks()

    declined = await sandbox.control.post("/page/decline", data=order)
    resent = await sandbox.control.post("/page/resend", data={"id": webhook["id"]})
    paid = await sandbox.control.post("/page/pay", data=order)
    again = await sandbox.control.post("/page/pay", data=order)

    assert {answer.status_code for answer in (declined, resent, paid, again)} == {303}
    assert "requires_payment_method" in declined.headers["Location"]
    assert "succeeded" in paid.headers["Location"]
    assert "already+succeeded" in again.headers["Location"]
    assert len(await sandbox.charges()) == 1
    bodies = [(await receiver.next()).body for _ in range(5)]
    assert created.body in bodies


async def test_faults_are_added_and_cleared(sandbox: SandboxProcess) -> None:
    fields = {"gateway": "stripe", "operation": "open", "fault": "slow", "times": "2"}
    optional = {"seconds": "1.5", "copies": "", "reference": ""}

    await sandbox.control.post("/page/faults", data=fields | optional)
    refused = await sandbox.control.post("/page/faults", data=fields | {"fault": "never"})
    unreadable = await sandbox.control.post("/page/faults", data=fields | {"times": "many"})
    page = await shown(sandbox)
    await sandbox.control.post("/page/faults/clear")

    assert "no+fault" in refused.headers["Location"]
    assert "times" in unreadable.headers["Location"]
    assert "Faults waiting (1)" in page
    assert "seconds=1.5" in page
    assert "Faults waiting (0)" in await shown(sandbox)


async def test_nothing_comes_from_elsewhere_and_everything_is_escaped(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await client.v1.payment_intents.create_async(
        {**ORDER, "description": '<script>alert("x")</script>'}
    )

    page = await shown(sandbox)
    noticed = (await sandbox.control.get("/", params={"notice": "<b>hello</b>"})).text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>hello" not in noticed
    assert not re.search(r'(src|href)="(?!http://127\.0\.0\.1)', page)


def test_amounts_are_written_as_people_write_them() -> None:
    assert format_amount(2900, "usd") == "29.00 USD"
    assert format_amount(5, "CNY") == "0.05 CNY"
    assert format_amount(2900, "JPY") == "2900 JPY"
    assert format_amount(-1001, "KWD") == "-1.001 KWD"
