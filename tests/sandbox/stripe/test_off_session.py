"""Charges of saved cards without the payer."""

import pytest
import stripe

from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.stripe.saving import Saver, events
from tests.sandbox.test_stripe_api import plain


async def test_it_succeeds_at_once(saver: Saver, receiver: WebhookReceiver) -> None:
    saved = await saver.save()
    await events(receiver, 4)

    paid = await saver.charge(saved)
    told = await events(receiver, 3)

    assert (paid.status, paid.amount_received) == ("succeeded", 2900)
    assert (paid.customer, paid.payment_method) == (saved.customer, saved.id)
    assert [event["type"] for event in told] == [
        "charge.succeeded",
        "payment_intent.created",
        "payment_intent.succeeded",
    ]
    [taken] = await saver.sandbox.charges()
    assert (taken["reference"], taken["amount"]) == ("pay_01", 2900)
    assert await saver.outcome(saved, "pay_02") == "succeeded"


@pytest.mark.parametrize(
    ("card", "outcome"),
    [
        ("4000000000000341", "generic_decline"),
        ("4000002500003155", "succeeded"),
        ("4000002760003184", "authentication_required"),
        ("4000000000003220", "authentication_required"),
        ("4000008260003178", "insufficient_funds"),
    ],
)
async def test_what_test_cards_do_once_saved(saver: Saver, card: str, outcome: str) -> None:
    saved = await saver.save(card)

    assert await saver.outcome(saved) == outcome
    assert len(await saver.sandbox.charges()) == (outcome == "succeeded")


async def test_a_decline_names_its_intent(saver: Saver, client: stripe.StripeClient) -> None:
    saved = await saver.save("4000000000000341")

    with pytest.raises(stripe.CardError) as declined:
        await saver.charge(saved, key="pay_01:1")
    with pytest.raises(stripe.CardError) as again:
        await saver.charge(saved, key="pay_01:1")

    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    assert declined.value.error is not None
    assert again.value.error is not None
    assert declined.value.error.payment_intent is not None
    assert again.value.error.payment_intent is not None
    named = declined.value.error.payment_intent
    assert again.value.error.payment_intent.id == named.id
    left = await client.v1.payment_intents.retrieve_async(named.id)
    assert (left.status, left.payment_method) == ("requires_payment_method", None)
    assert left.last_payment_error is not None
    assert left.last_payment_error.payment_method is not None
    assert left.last_payment_error.payment_method.id == saved.id
    listed = await client.v1.payment_intents.list_async({"customer": str(saved.customer)})
    assert [plain(found) for found in listed.data] == [plain(left)]


async def test_the_payer_authenticates_the_saved_card_afterwards(
    saver: Saver, client: stripe.StripeClient
) -> None:
    saved = await saver.save("4000002760003184")
    with pytest.raises(stripe.CardError) as wanted:
        await saver.charge(saved)
    assert (wanted.value.http_status, wanted.value.code) == (402, "authentication_required")
    assert wanted.value.error is not None
    assert wanted.value.error.payment_intent is not None
    intent_id = wanted.value.error.payment_intent.id

    waiting = await saver.sandbox.pay(gateway="stripe", reference="pay_01", payment_method=saved.id)
    done = await saver.authenticate("pay_01", succeeded=True)
    paid = await client.v1.payment_intents.retrieve_async(intent_id)

    assert (waiting["status"], done["status"]) == ("requires_action", "succeeded")
    assert (paid.status, paid.payment_method) == ("succeeded", saved.id)


async def test_on_session_a_card_set_up_is_authenticated_all_the_same(
    saver: Saver, client: stripe.StripeClient
) -> None:
    saved = await saver.save("4000002500003155")
    intent = await client.v1.payment_intents.create_async(
        {
            "amount": 2900,
            "currency": "usd",
            "allowed_payment_method_types": ["card"],
            "customer": str(saved.customer),
            "payment_method": saved.id,
        }
    )

    waiting = await client.v1.payment_intents.confirm_async(intent.id)

    assert (intent.status, waiting.status) == ("requires_confirmation", "requires_action")


async def test_a_card_of_somebody_else_is_refused(
    saver: Saver, client: stripe.StripeClient
) -> None:
    saved, other = await saver.save(), await saver.customer()
    terms: stripe.params.PaymentIntentCreateParams = {
        "amount": 2900,
        "currency": "usd",
        "allowed_payment_method_types": ["card"],
        "payment_method": saved.id,
        "off_session": True,
        "confirm": True,
    }

    with pytest.raises(stripe.InvalidRequestError) as foreign:
        await client.v1.payment_intents.create_async({**terms, "customer": other})
    with pytest.raises(stripe.InvalidRequestError) as without:
        await client.v1.payment_intents.create_async(terms)
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await client.v1.payment_intents.create_async({**terms, "payment_method": "pm_nobody"})
    payer = await saver.sandbox.control.post(
        "/control/pay",
        json={"gateway": "stripe", "reference": "pay_01", "payment_method": saved.id, "card": "4"},
    )

    for problem in (foreign.value, without.value, unknown.value):
        assert (problem.http_status, problem.param) == (400, "payment_method")
    assert f"belongs to the Customer {saved.customer}" in str(without.value.user_message)
    assert payer.status_code == 422
    assert (await client.v1.payment_intents.list_async()).data == []


async def test_a_detached_card_is_refused(saver: Saver, client: stripe.StripeClient) -> None:
    saved = await saver.save()
    intent = await client.v1.payment_intents.create_async(
        {
            "amount": 2900,
            "currency": "usd",
            "allowed_payment_method_types": ["card"],
            "customer": str(saved.customer),
            "payment_method": saved.id,
        }
    )
    await client.v1.payment_methods.detach_async(saved.id)

    with pytest.raises(stripe.InvalidRequestError) as charged:
        await saver.charge(saved)
    with pytest.raises(stripe.InvalidRequestError) as confirmed:
        await client.v1.payment_intents.confirm_async(intent.id)

    for problem in (charged.value, confirmed.value):
        assert problem.http_status == 400
        assert "may not be used again" in str(problem.user_message)
    assert await saver.sandbox.charges() == []
