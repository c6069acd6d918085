"""SetupIntents: asked for, confirmed by the payer, canceled."""

import pytest
import stripe

from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.stripe.saving import METHOD_ID, Saver, events
from tests.sandbox.test_stripe_api import plain


async def test_it_waits_for_the_payer(saver: Saver, client: stripe.StripeClient) -> None:
    customer = await saver.customer()
    params: stripe.params.SetupIntentCreateParams = {
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "customer": customer,
        "description": "Gold",
        "metadata": {"method_id": METHOD_ID},
    }
    setup = await client.v1.setup_intents.create_async(params, {"idempotency_key": "1:set_up"})
    again = await client.v1.setup_intents.create_async(params, {"idempotency_key": "1:set_up"})
    found = await client.v1.setup_intents.retrieve_async(setup.id)

    assert (setup.status, setup.usage, setup.customer, setup.payment_method_types) == (
        "requires_payment_method",
        "off_session",
        customer,
        ["card"],
    )
    assert str(setup.client_secret).startswith(f"{setup.id}_secret_")
    assert (setup.livemode, setup.payment_method, setup.last_setup_error) == (False, None, None)
    assert plain(again) == plain(found) == plain(setup)


async def test_a_browser_saves_a_card(
    saver: Saver, client: stripe.StripeClient, receiver: WebhookReceiver
) -> None:
    customer = await saver.customer()
    setup = await saver.ask(customer)
    form = {
        "key": saver.sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"],
        "client_secret": setup.client_secret or "",
        "payment_method_data[type]": "card",
        "payment_method_data[card][number]": "5555 5555 5555 4444",
        "payment_method_data[card][exp_month]": "7",
        "payment_method_data[card][exp_year]": "31",
    }
    path = f"/v1/setup_intents/{setup.id}"

    guessed = await saver.sandbox.control.post(
        f"{path}/confirm", data=form | {"client_secret": f"{setup.id}_secret_guess"}
    )
    answer = await saver.sandbox.control.post(f"{path}/confirm", data=form)
    seen = await saver.sandbox.control.get(
        path, params={"key": form["key"], "client_secret": form["client_secret"]}
    )
    found = await client.v1.setup_intents.retrieve_async(setup.id, {"expand": ["payment_method"]})
    told = await events(receiver, 4)

    assert guessed.status_code == 400
    assert answer.json()["status"] == seen.json()["status"] == "succeeded"
    assert not {"customer", "metadata"} & set(answer.json())
    assert str(found.latest_attempt).startswith("setatt_")
    method = found.payment_method
    assert isinstance(method, stripe.PaymentMethod)
    assert method.card is not None
    assert (method.id, method.customer) == (answer.json()["payment_method"], customer)
    assert (method.card.brand, method.card.last4) == ("mastercard", "4444")
    assert (method.card.exp_month, method.card.exp_year) == (7, 2031)
    assert [event["type"] for event in told] == [
        "customer.created",
        "payment_method.attached",
        "setup_intent.created",
        "setup_intent.succeeded",
    ]
    assert told[1]["data"]["object"]["customer"] == customer
    assert told[3]["data"]["object"]["payment_method"] == method.id


async def test_the_control_finds_it_by_its_client_secret(saver: Saver) -> None:
    setup = await saver.ask(await saver.customer())
    action = {
        "type": "client_secret",
        "client_secret": setup.client_secret,
        "publishable_key": saver.sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"],
    }

    declined = await saver.sandbox.decline(gateway="stripe", next_action=action)
    told = await saver.sandbox.pay(gateway="stripe", next_action=action)
    again = await saver.sandbox.control.post(
        "/control/pay", json={"gateway": "stripe", "next_action": action}
    )

    assert (declined["status"], declined["decline_code"]) == (
        "requires_payment_method",
        "generic_decline",
    )
    assert (told["reference"], told["number"], told["status"]) == (
        METHOD_ID,
        setup.id,
        "succeeded",
    )
    assert again.status_code == 409
    assert await saver.sandbox.charges() == []


async def test_a_declined_card_is_not_saved(
    saver: Saver, client: stripe.StripeClient, receiver: WebhookReceiver
) -> None:
    setup = await saver.ask(await saver.customer())

    with pytest.raises(stripe.CardError) as declined:
        await client.v1.setup_intents.confirm_async(
            setup.id, {"payment_method": "pm_card_visa_chargeDeclinedInsufficientFunds"}
        )
    left = await client.v1.setup_intents.retrieve_async(setup.id)
    told = await events(receiver, 3)

    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    assert declined.value.error is not None
    assert declined.value.error.decline_code == "insufficient_funds"
    assert declined.value.error.setup_intent is not None
    assert declined.value.error.setup_intent.id == setup.id
    assert (left.status, left.payment_method) == ("requires_payment_method", None)
    assert left.last_setup_error is not None
    assert left.last_setup_error.decline_code == "insufficient_funds"
    assert told[2]["type"] == "setup_intent.setup_failed"
    told_of = await client.v1.payment_methods.list_async({"customer": str(setup.customer)})
    assert told_of.data == []


async def test_a_payer_passes_the_banks_page(
    saver: Saver, client: stripe.StripeClient, receiver: WebhookReceiver
) -> None:
    setup = await saver.ask(await saver.customer())
    waiting = await client.v1.setup_intents.confirm_async(
        setup.id,
        {
            "payment_method": "pm_card_authenticationRequiredOnSetup",
            "return_url": "http://127.0.0.1/done",
        },
    )
    assert waiting.status == "requires_action"
    assert waiting.next_action is not None
    assert waiting.next_action.redirect_to_url is not None
    page = str(waiting.next_action.redirect_to_url.url)

    shown = await saver.sandbox.control.get(page)
    done = await saver.sandbox.control.post(page, data={"outcome": "succeeded"})
    again = await saver.sandbox.control.post(page, data={"outcome": "succeeded"})
    saved = await client.v1.setup_intents.retrieve_async(setup.id)
    told = await events(receiver, 5)

    assert "save this card" in shown.text
    assert done.headers["Location"].startswith(
        f"http://127.0.0.1/done?setup_intent={setup.id}&setup_intent_client_secret="
    )
    assert done.headers["Location"].endswith("&redirect_status=succeeded")
    assert again.status_code == 409
    assert (saved.status, saved.next_action) == ("succeeded", None)
    assert "setup_intent.requires_action" in [event["type"] for event in told]


async def test_a_payer_fails_the_banks_check_and_may_try_again(
    saver: Saver, client: stripe.StripeClient
) -> None:
    setup = await saver.ask(await saver.customer())
    await saver.sandbox.pay(gateway="stripe", reference=METHOD_ID, card="4000002760003184")

    failed = await saver.authenticate(METHOD_ID, succeeded=False)
    left = await client.v1.setup_intents.retrieve_async(setup.id)
    saved = await saver.sandbox.pay(gateway="stripe", reference=METHOD_ID)

    assert failed["status"] == "requires_payment_method"
    assert left.last_setup_error is not None
    assert left.last_setup_error.code == "setup_intent_authentication_failure"
    assert saved["status"] == "succeeded"


async def test_created_and_confirmed_in_one_call(saver: Saver, client: stripe.StripeClient) -> None:
    customer = await saver.customer()
    params: stripe.params.SetupIntentCreateParams = {"customer": customer, "confirm": True}

    with pytest.raises(stripe.InvalidRequestError) as without:
        await client.v1.setup_intents.create_async(params)
    params["payment_method"] = "pm_card_visa"
    with pytest.raises(stripe.InvalidRequestError) as stranded:
        await client.v1.setup_intents.create_async(params)
    params["return_url"] = "http://127.0.0.1/done"
    setup = await client.v1.setup_intents.create_async(params)

    assert (without.value.param, stranded.value.param) == ("payment_method", "return_url")
    assert setup.status == "succeeded"


async def test_canceling(
    saver: Saver, client: stripe.StripeClient, receiver: WebhookReceiver
) -> None:
    setup = await saver.ask(await saver.customer())

    canceled = await client.v1.setup_intents.cancel_async(
        setup.id, {"cancellation_reason": "abandoned"}
    )
    with pytest.raises(stripe.InvalidRequestError) as again:
        await client.v1.setup_intents.cancel_async(setup.id)
    with pytest.raises(stripe.InvalidRequestError) as late:
        await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": "pm_card_visa"})
    told = await events(receiver, 3)

    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    for problem in (again.value, late.value):
        assert problem.code == "setup_intent_unexpected_state"
        assert problem.error is not None
        assert problem.error.setup_intent is not None
        assert problem.error.setup_intent.id == setup.id
    assert [event["type"] for event in told] == [
        "customer.created",
        "setup_intent.canceled",
        "setup_intent.created",
    ]


async def test_they_are_listed_per_customer(saver: Saver, client: stripe.StripeClient) -> None:
    customer = await saver.customer()
    first = await saver.ask(customer)
    await saver.ask(await saver.customer(), "pm_other")
    second = await saver.ask(customer)

    page = await client.v1.setup_intents.list_async({"customer": customer, "limit": 1})
    rest = await client.v1.setup_intents.list_async(
        {"customer": customer, "starting_after": second.id}
    )
    later = await client.v1.setup_intents.list_async({"created": {"gte": second.created + 1}})

    assert ([found.id for found in page.data], page.has_more) == ([second.id], True)
    assert ([found.id for found in rest.data], rest.has_more) == ([first.id], False)
    assert later.data == []


async def test_what_stripe_refuses(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await client.v1.setup_intents.retrieve_async("seti_nobody")
    with pytest.raises(stripe.InvalidRequestError) as usage:
        await client.v1.setup_intents.create_async({"usage": "sometimes"})
    setup = await client.v1.setup_intents.create_async({"allowed_payment_method_types": ["card"]})
    with pytest.raises(stripe.InvalidRequestError) as empty:
        await client.v1.setup_intents.confirm_async(setup.id)
    with pytest.raises(stripe.InvalidRequestError) as reason:
        await client.v1.setup_intents.cancel_async(
            setup.id,
            {"cancellation_reason": "fraudulent"},
        )

    assert (unknown.value.http_status, unknown.value.code) == (404, "resource_missing")
    assert usage.value.param == "usage"
    assert empty.value.code == "setup_intent_unexpected_state"
    assert reason.value.param == "cancellation_reason"


async def test_faults_of_its_answers(saver: Saver, client: stripe.StripeClient) -> None:
    setup = await saver.ask(await saver.customer())

    await saver.sandbox.fault("stripe", "mandate", "wrong_order", reference=METHOD_ID)
    other = await client.v1.setup_intents.retrieve_async(setup.id)
    await saver.sandbox.fault("stripe", "mandate", "unknown_status", reference=METHOD_ID)
    odd = await client.v1.setup_intents.retrieve_async(setup.id)

    assert other.id != setup.id
    assert other.metadata is not None
    assert other.metadata["method_id"] != METHOD_ID
    assert odd.status == "requires_reflection"
