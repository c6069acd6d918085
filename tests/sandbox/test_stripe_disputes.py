"""Disputes as Stripe's own SDK sees them, and the bank's controls."""

import json
from typing import Any

import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.test_stripe_api import open_order, plain
from tests.sandbox.test_stripe_refunds import pay


async def disputed(sandbox: SandboxProcess) -> int:
    [charge] = await sandbox.charges()
    amount: int = charge["disputed"]
    return amount


async def listed(client: stripe.StripeClient, intent: stripe.PaymentIntent) -> list[stripe.Dispute]:
    return (await client.v1.disputes.list_async({"payment_intent": intent.id})).data


async def events(receiver: WebhookReceiver, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The types and objects of the next webhooks, without those of the payment itself."""
    bodies = [json.loads((await receiver.next()).body) for _ in range(count + 3)]
    return [(body["type"], body["data"]["object"]) for body in bodies[3:]]


async def test_a_dispute_takes_the_money_at_once(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await pay(client)
    assert await listed(client, intent) == []

    told = await sandbox.dispute(reference="pay_01", reason="product_not_received")
    assert [(name, body["id"], body["status"]) for name, body in await events(receiver, 2)] == [
        ("charge.dispute.created", told["number"], "needs_response"),
        ("charge.dispute.funds_withdrawn", told["number"], "needs_response"),
    ]
    await sandbox.restart()

    [dispute] = await listed(client, intent)
    assert (dispute.id, dispute.status) == (told["number"], "needs_response")
    assert dispute.id.startswith("dp_")
    assert (dispute.amount, dispute.currency) == (2900, "usd")
    assert (dispute.reason, dispute.is_charge_refundable) == ("product_not_received", False)
    assert (dispute.charge, dispute.payment_intent) == (intent.latest_charge, intent.id)
    assert dispute.evidence_details.due_by == dispute.created + 9 * 24 * 3600
    [withdrawn] = dispute.balance_transactions
    assert (withdrawn.amount, withdrawn.fee, withdrawn.net) == (-2900, 1500, -4400)
    assert plain(await client.v1.disputes.retrieve_async(dispute.id)) == plain(dispute)
    assert (await client.v1.charges.retrieve_async(str(intent.latest_charge))).disputed is True
    assert (await client.v1.balance.retrieve_async()).pending[0].amount == 0
    assert await disputed(sandbox) == 2900


async def test_a_won_dispute_brings_the_money_back(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await pay(client)
    await sandbox.dispute(reference="pay_01", amount=1000)
    assert await disputed(sandbox) == 1000

    told = await sandbox.close_dispute("pay_01", "won")

    [dispute] = await listed(client, intent)
    assert (told["status"], dispute.status) == ("won", "won")
    assert [(one.amount, one.fee) for one in dispute.balance_transactions] == [
        (-1000, 1500),
        (1000, 0),
    ]
    assert await disputed(sandbox) == 0
    assert [name for name, _ in (await events(receiver, 4))[2:]] == [
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    assert (await client.v1.refunds.create_async({"payment_intent": intent.id})).amount == 2900


@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_a_dispute_has_is_not_refunded(
    client: stripe.StripeClient, sandbox: SandboxProcess, is_lost: bool
) -> None:
    intent = await pay(client)
    await sandbox.dispute(reference="pay_01", amount=1000)
    if is_lost:
        await sandbox.close_dispute("pay_01", "lost")

    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 100})

    assert refused.value.code == "charge_disputed"
    assert await disputed(sandbox) == 1000
    assert [charge["refunded"] for charge in await sandbox.charges()] == [0]


async def test_an_inquiry_takes_nothing_until_it_is_a_chargeback(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await pay(client)

    await sandbox.dispute(reference="pay_01", amount=2900, inquiry=True)
    [inquiry] = await listed(client, intent)
    await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 100})
    before = await disputed(sandbox)
    wanted = {"gateway": "stripe", "reference": "pay_01", "outcome": "lost"}
    lost = await sandbox.control.post("/control/dispute/close", json=wanted)
    await sandbox.dispute(reference="pay_01")

    assert (inquiry.status, inquiry.balance_transactions) == ("warning_needs_response", [])
    assert inquiry.is_charge_refundable is True
    assert (before, lost.status_code) == (0, 409)
    [chargeback] = await listed(client, intent)
    assert (chargeback.id, chargeback.status) == (inquiry.id, "needs_response")
    assert await disputed(sandbox) == 2900
    names = [name for name, _ in await events(receiver, 5)]
    assert (names[0], *names[3:]) == (
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.funds_withdrawn",
    )


async def test_an_inquiry_may_be_dropped(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await pay(client)
    await sandbox.dispute(reference="pay_01", inquiry=True)

    await sandbox.close_dispute("pay_01", "won")

    [dispute] = await listed(client, intent)
    assert (dispute.status, dispute.balance_transactions) == ("warning_closed", [])
    assert await disputed(sandbox) == 0


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("pm_card_createDispute", "fraudulent"),
        ("pm_card_createDisputeProductNotReceived", "product_not_received"),
    ],
)
async def test_a_test_card_is_disputed_right_after_the_charge(
    client: stripe.StripeClient, sandbox: SandboxProcess, token: str, reason: str
) -> None:
    intent = await pay(client, token)

    [dispute] = await listed(client, intent)

    assert (intent.status, dispute.reason) == ("succeeded", reason)
    assert await disputed(sandbox) == 2900


async def test_a_payer_types_the_disputed_card(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await open_order(client)

    paid = await sandbox.pay(gateway="stripe", reference="pay_01", card="4000000000000259")

    assert paid["status"] == "succeeded"
    assert await disputed(sandbox) == 2900


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"reference": "pay_02"}, 404),
        ({"reference": "pay_01", "amount": 2901}, 409),
        ({"reference": "pay_01", "reason": "bored"}, 422),
        ({"reference": "pay_01", "amount": 0}, 422),
    ],
)
async def test_what_cannot_be_disputed_is_refused(
    client: stripe.StripeClient, sandbox: SandboxProcess, wanted: dict[str, Any], status: int
) -> None:
    await pay(client)

    answer = await sandbox.control.post("/control/dispute", json={"gateway": "stripe", **wanted})

    assert answer.status_code == status
    assert await disputed(sandbox) == 0


async def test_one_dispute_at_a_time(client: stripe.StripeClient, sandbox: SandboxProcess) -> None:
    unpaid = {"gateway": "stripe", "reference": "pay_01"}
    await open_order(client)
    assert (await sandbox.control.post("/control/dispute", json=unpaid)).status_code == 409
    assert (
        await sandbox.control.post("/control/dispute/close", json=unpaid | {"outcome": "won"})
    ).status_code == 409
    await sandbox.pay(gateway="stripe", reference="pay_01")
    await sandbox.dispute(reference="pay_01")
    assert (await sandbox.control.post("/control/dispute", json=unpaid)).status_code == 409
    await sandbox.close_dispute("pay_01", "won")
    await sandbox.dispute(reference="pay_01")
    assert await disputed(sandbox) == 2900


@pytest.mark.parametrize(
    ("fault", "field", "value"),
    [
        ("wrong_amount", "amount", 2901),
        ("wrong_currency", "currency", "eur"),
        ("unknown_status", "status", "requires_reflection"),
    ],
)
async def test_a_fault_alters_the_answer_alone(
    client: stripe.StripeClient, sandbox: SandboxProcess, fault: str, field: str, value: object
) -> None:
    intent = await pay(client)
    await sandbox.dispute(reference="pay_01")
    await sandbox.fault("stripe", "dispute_query", fault, reference="pay_01")

    [altered] = await listed(client, intent)
    [true] = await listed(client, intent)

    assert plain(altered)[field] == value
    assert plain(true)[field] != value


async def test_what_stripe_does_not_know_is_missing(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such dispute"):
        await client.v1.disputes.retrieve_async("dp_none")
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
        await client.v1.disputes.list_async({"payment_intent": "pi_none"})
