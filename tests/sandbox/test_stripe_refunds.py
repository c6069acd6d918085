"""Refunds as Stripe's own SDK sees them."""

import json
from typing import Any

import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.test_stripe_api import open_order, plain


async def pay(client: stripe.StripeClient, card: str = "pm_card_visa") -> stripe.PaymentIntent:
    intent = await open_order(client)
    return await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": card})


async def refunded(sandbox: SandboxProcess) -> int:
    [charge] = await sandbox.charges()
    amount: int = charge["refunded"]
    return amount


async def test_parts_are_given_back_until_nothing_is_left(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await pay(client)
    charge_id = str(intent.latest_charge)

    first = await client.v1.refunds.create_async(
        {"payment_intent": intent.id, "amount": 900, "metadata": {"refund_id": "ref_01"}}
    )
    part = await client.v1.charges.retrieve_async(charge_id)
    rest = await client.v1.refunds.create_async({"charge": charge_id})
    whole = await client.v1.charges.retrieve_async(charge_id)

    assert (first.status, first.amount, first.currency) == ("succeeded", 900, "usd")
    assert (first.charge, first.payment_intent) == (charge_id, intent.id)
    assert plain(first.metadata) == {"refund_id": "ref_01"}
    assert (part.amount_refunded, part.refunded) == (900, False)
    assert rest.amount == 2000
    assert (whole.amount_refunded, whole.refunded) == (2900, True)
    assert await refunded(sandbox) == 2900
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"
    assert (await client.v1.balance.retrieve_async()).pending[0].amount == 0


async def test_refunds_are_read_and_survive_a_kill(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent, other = await pay(client), await pay(client)
    made = [
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": amount})
        for amount in (100, 200)
    ]
    await client.v1.refunds.create_async({"payment_intent": other.id})
    await sandbox.restart()

    found = await client.v1.refunds.list_async({"payment_intent": intent.id})
    by_charge = await client.v1.refunds.list_async(
        {"charge": str(intent.latest_charge), "limit": 1, "expand": ["data.charge"]}
    )

    assert [refund.id for refund in found.data] == [made[1].id, made[0].id]
    assert [refund.id for refund in by_charge.data] == [made[1].id]
    assert by_charge.has_more is True
    assert isinstance(by_charge.data[0].charge, stripe.Charge)
    assert plain(await client.v1.refunds.retrieve_async(made[0].id)) == plain(made[0])
    with pytest.raises(stripe.InvalidRequestError, match="No such refund"):
        await client.v1.refunds.retrieve_async("re_none")
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
        await client.v1.refunds.list_async({"payment_intent": "pi_none"})


async def test_more_than_is_left_is_refused(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await pay(client)
    await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 900})

    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded") as too_much:
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 2001})
    await client.v1.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError) as again:
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})

    assert (too_much.value.http_status, too_much.value.param) == (400, "amount")
    assert again.value.code == "charge_already_refunded"
    assert await refunded(sandbox) == 2900


@pytest.mark.parametrize(
    "wanted",
    [
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "all"},
        {"reason": "returned goods"},
        {"reference": "x"},
        {"charge": "ch_none"},
        {"payment_intent": "pi_none"},
        {"metadata[refund_id]": "x" * 501},
    ],
)
async def test_what_cannot_be_refunded_is_refused(
    client: stripe.StripeClient, sandbox: SandboxProcess, wanted: dict[str, str]
) -> None:
    intent = await pay(client)
    key = sandbox.environment["EVERBILL_STRIPE_SECRET_KEY"]

    answer = await sandbox.control.post(
        "/v1/refunds", data={"payment_intent": intent.id} | wanted, auth=(key, "")
    )

    assert answer.status_code in (400, 404)
    assert await refunded(sandbox) == 0


async def test_an_unpaid_order_has_nothing_to_refund(client: stripe.StripeClient) -> None:
    intent = await open_order(client)
    with pytest.raises(stripe.InvalidRequestError, match="successful charge"):
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError, match="One of the following params"):
        await client.v1.refunds.create_async({"amount": 1})


async def test_a_key_is_one_refund(client: stripe.StripeClient, sandbox: SandboxProcess) -> None:
    intent = await pay(client)
    wanted: stripe.params.RefundCreateParams = {"payment_intent": intent.id, "amount": 900}

    first = await client.v1.refunds.create_async(wanted, {"idempotency_key": "key"})
    await sandbox.restart()
    second = await client.v1.refunds.create_async(wanted, {"idempotency_key": "key"})
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.refunds.create_async({**wanted, "amount": 901}, {"idempotency_key": "key"})

    assert plain(second) == plain(first)
    assert await refunded(sandbox) == 900


async def test_an_empty_account_is_told_again_under_the_same_key(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await pay(client)
    await sandbox.fault("stripe", "refund", "balance_insufficient", reference="pay_01")

    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await client.v1.refunds.create_async(
                {"payment_intent": intent.id}, {"idempotency_key": "key"}
            )
        assert refused.value.code == "balance_insufficient"
    assert await refunded(sandbox) == 0
    await client.v1.refunds.create_async({"payment_intent": intent.id}, {"idempotency_key": "2"})
    assert await refunded(sandbox) == 2900


async def events(receiver: WebhookReceiver, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The types and objects of the next webhooks, without those of the payment itself."""
    bodies = [json.loads((await receiver.next()).body) for _ in range(count + 3)]
    return [(body["type"], body["data"]["object"]) for body in bodies[3:]]


async def test_a_refund_has_its_events(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await pay(client)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 900})

    (created, told), (_, charge) = await events(receiver, 2)
    assert (created, told) == ("refund.created", plain(refund))
    assert (charge["object"], charge["amount_refunded"]) == ("charge", 900)
    listed = await client.v1.events.list_async({"types": ["charge.refunded"]})
    assert len(listed.data) == 1


async def test_a_refund_may_be_pending_first(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await pay(client, "pm_card_pendingRefund")

    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})

    assert refund.status == "pending"
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "succeeded"
    assert [(name, told.get("status")) for name, told in await events(receiver, 4)] == [
        ("refund.created", "pending"),
        ("charge.refunded", "succeeded"),
        ("refund.updated", "succeeded"),
        ("charge.refund.updated", "succeeded"),
    ]
    assert await refunded(sandbox) == 2900


@pytest.mark.parametrize("by", ["card", "control"])
async def test_a_refund_may_fail_after_it_succeeded(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver, by: str
) -> None:
    intent = await pay(client, "pm_card_refundFail" if by == "card" else "pm_card_visa")

    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    if by == "control":
        assert await refunded(sandbox) == 2900
        wanted = {"gateway": "stripe", "reference": "pay_01", "outcome": "fail"}
        told = await sandbox.control.post("/control/refunds", json=wanted)
        assert (told.json()["number"], told.json()["status"]) == (refund.id, "failed")
        assert (await sandbox.control.post("/control/refunds", json=wanted)).status_code == 409

    assert refund.status == "succeeded"
    failed = await client.v1.refunds.retrieve_async(refund.id)
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert await refunded(sandbox) == 0
    assert [name for name, _ in await events(receiver, 5)] == [
        "refund.created",
        "charge.refunded",
        "refund.updated",
        "charge.refund.updated",
        "refund.failed",
    ]


@pytest.mark.parametrize(
    ("fault", "field", "value"),
    [
        ("wrong_amount", "amount", 2901),
        ("wrong_currency", "currency", "eur"),
        ("unknown_status", "status", "requires_reflection"),
    ],
)
@pytest.mark.parametrize("operation", ["refund", "refund_query"])
async def test_a_fault_alters_the_answer_alone(
    client: stripe.StripeClient,
    sandbox: SandboxProcess,
    operation: str,
    fault: str,
    field: str,
    value: object,
) -> None:
    intent = await pay(client)
    await sandbox.fault("stripe", operation, fault, reference="pay_01")

    made = await client.v1.refunds.create_async({"payment_intent": intent.id})
    [listed] = (await client.v1.refunds.list_async({"payment_intent": intent.id})).data
    found = await client.v1.refunds.retrieve_async(made.id)

    altered, others = (made, [listed]) if operation == "refund" else (listed, [made])
    assert plain(altered)[field] == value
    assert all(plain(other) == plain(found) for other in others)
    assert plain(found)[field] != value
