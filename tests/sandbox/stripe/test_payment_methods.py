"""PaymentMethods that customers have saved: shown, listed, detached."""

import pytest
import stripe

from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.stripe.saving import METHOD_ID, Saver, events
from tests.sandbox.test_stripe_api import plain


async def test_a_saved_card_is_shown(saver: Saver, client: stripe.StripeClient) -> None:
    saved = await saver.save("378282246310005")
    same = await saver.save("378282246310005")
    other = await saver.save()

    assert (saved.type, plain(saved.metadata)) == ("card", {})
    assert saved.card is not None
    assert same.card is not None
    assert other.card is not None
    assert (saved.card.brand, saved.card.last4) == ("amex", "0005")
    assert (saved.card.exp_month, saved.card.exp_year) == (12, 2034)
    assert saved.card.fingerprint == same.card.fingerprint != other.card.fingerprint
    whole = await client.v1.payment_methods.retrieve_async(saved.id, {"expand": ["customer"]})
    assert isinstance(whole.customer, stripe.Customer)
    assert whole.customer.id == saved.customer


async def test_a_customers_cards_are_listed(saver: Saver, client: stripe.StripeClient) -> None:
    await saver.save()
    customer = await saver.customer()
    ids: list[str] = []
    for _ in range(2):
        setup = await saver.ask(customer)
        done = await client.v1.setup_intents.confirm_async(
            setup.id, {"payment_method": "pm_card_visa"}
        )
        ids.insert(0, str(done.payment_method))

    of_customer = await client.v1.customers.payment_methods.list_async(customer, {"type": "card"})
    listed = await client.v1.payment_methods.list_async({"customer": customer, "limit": 1})
    rest = await client.v1.payment_methods.list_async(
        {"customer": customer, "starting_after": ids[0]}
    )
    one = await client.v1.customers.payment_methods.retrieve_async(customer, ids[0])

    assert [found.id for found in of_customer.data] == ids
    assert of_customer.url == f"/v1/customers/{customer}/payment_methods"
    assert ([found.id for found in listed.data], listed.has_more) == (ids[:1], True)
    assert [found.id for found in rest.data] == ids[1:]
    assert one.id == ids[0]


async def test_detaching_is_for_ever(
    saver: Saver, client: stripe.StripeClient, receiver: WebhookReceiver
) -> None:
    saved = await saver.save()
    await events(receiver, 4)

    detached = await client.v1.payment_methods.detach_async(saved.id)
    [told] = await events(receiver, 1)
    with pytest.raises(stripe.InvalidRequestError) as again:
        await client.v1.payment_methods.detach_async(saved.id)
    with pytest.raises(stripe.InvalidRequestError) as setup:
        await client.v1.setup_intents.create_async(
            {"customer": str(saved.customer), "payment_method": saved.id}
        )
    found = await client.v1.payment_methods.retrieve_async(saved.id)
    left = await client.v1.payment_methods.list_async({"customer": str(saved.customer)})

    assert detached.customer is found.customer is None
    assert left.data == []
    assert told["type"] == "payment_method.detached"
    assert told["data"]["object"]["customer"] is None
    assert told["data"]["previous_attributes"] == {"customer": saved.customer}
    assert (again.value.http_status, again.value.code) == (400, None)
    assert "not attached to a customer" in str(again.value.user_message)
    assert setup.value.http_status == 400
    assert "may not be used again" in str(setup.value.user_message)


async def test_a_used_card_is_nobodys(saver: Saver, client: stripe.StripeClient) -> None:
    paid = await client.v1.payment_intents.create_async(
        {
            "amount": 2900,
            "currency": "usd",
            "allowed_payment_method_types": ["card"],
            "payment_method": "pm_card_visa",
            "confirm": True,
        }
    )

    with pytest.raises(stripe.InvalidRequestError) as detached:
        await client.v1.payment_methods.detach_async(str(paid.payment_method))
    with pytest.raises(stripe.InvalidRequestError) as reused:
        await client.v1.payment_intents.create_async(
            {"amount": 2900, "currency": "usd", "payment_method": str(paid.payment_method)}
        )

    assert (detached.value.http_status, reused.value.http_status) == (400, 400)
    assert "may not be used again" in str(reused.value.user_message)


async def test_what_is_not_there(saver: Saver, client: stripe.StripeClient) -> None:
    saved, other = await saver.save(), await saver.customer()

    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await client.v1.payment_methods.retrieve_async("pm_nobody")
    with pytest.raises(stripe.InvalidRequestError) as foreign:
        await client.v1.customers.payment_methods.retrieve_async(other, saved.id)
    with pytest.raises(stripe.InvalidRequestError) as customer:
        await client.v1.customers.payment_methods.list_async("cus_nobody")
    with pytest.raises(stripe.InvalidRequestError) as filtered:
        await client.v1.payment_methods.list_async({"customer": "cus_nobody"})

    assert {problem.value.code for problem in (unknown, foreign, customer, filtered)} == {
        "resource_missing"
    }
    assert [problem.value.http_status for problem in (unknown, foreign, customer, filtered)] == [
        404,
        404,
        404,
        400,
    ]


async def test_webhooks_carry_the_saved_methods_reference(saver: Saver) -> None:
    await saver.sandbox.fault("stripe", "webhook", "never", reference=METHOD_ID, times=3)

    await saver.save()

    withheld = [w for w in await saver.sandbox.webhooks() if w["state"] == "withheld"]
    assert {w["event_type"] for w in withheld} == {
        "payment_method.attached",
        "setup_intent.created",
        "setup_intent.succeeded",
    }
