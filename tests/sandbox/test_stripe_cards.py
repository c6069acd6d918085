"""Test cards: declines and 3-D Secure."""

import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.test_stripe_api import open_order


@pytest.mark.parametrize(
    ("token", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        (
            "pm_card_visa_chargeDeclinedInsufficientFunds",
            "card_declined",
            "insufficient_funds",
        ),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "incorrect_cvc"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", "processing_error"),
    ],
)
async def test_a_declined_card_leaves_the_intent_open(
    client: stripe.StripeClient,
    sandbox: SandboxProcess,
    token: str,
    code: str,
    decline_code: str,
) -> None:
    intent = await open_order(client)

    with pytest.raises(stripe.CardError) as declined:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": token})
    left = await client.v1.payment_intents.retrieve_async(intent.id)

    assert (declined.value.http_status, declined.value.code) == (402, code)
    assert declined.value.error is not None
    assert declined.value.error.decline_code == decline_code
    assert declined.value.error.payment_intent is not None
    assert declined.value.error.payment_intent.id == intent.id
    assert left.status == "requires_payment_method"
    assert left.last_payment_error is not None
    assert (left.last_payment_error.code, left.last_payment_error.decline_code) == (
        code,
        decline_code,
    )
    charge = await client.v1.charges.retrieve_async(str(left.latest_charge))
    assert (charge.status, charge.paid, charge.failure_code) == ("failed", False, code)
    assert await sandbox.charges() == []


async def test_another_card_pays_after_a_decline(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await open_order(client)

    declined = await sandbox.decline(
        gateway="stripe", reference="pay_01", decline_code="insufficient_funds"
    )
    paid = await sandbox.pay(gateway="stripe", reference="pay_01")

    assert (declined["status"], declined["decline_code"]) == (
        "requires_payment_method",
        "insufficient_funds",
    )
    assert (paid["status"], paid["decline_code"]) == ("succeeded", None)
    assert len(await sandbox.charges()) == 1


async def test_decline_codes_without_a_test_card_can_be_asked_for(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)

    await sandbox.decline(gateway="stripe", reference="pay_01", decline_code="do_not_honor")
    left = await client.v1.payment_intents.retrieve_async(intent.id)

    assert left.last_payment_error is not None
    assert left.last_payment_error.decline_code == "do_not_honor"


async def test_the_client_secret_finds_the_order(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    action = {
        "type": "client_secret",
        "client_secret": intent.client_secret,
        "publishable_key": sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"],
    }
    foreign = action | {"publishable_key": "pk_test_other"}
    guessed = action | {"client_secret": f"{intent.client_secret}x"}

    refusals = [
        (await sandbox.control.post("/control/pay", json={"gateway": "stripe", **deed})).status_code
        for deed in (
            {"next_action": foreign},
            {"next_action": guessed},
            {"reference": "pay_unknown"},
            {"reference": "pay_01", "attempt": 2},
            {"next_action": action, "surprise": True},
        )
    ]
    paid = await sandbox.pay(gateway="stripe", next_action=action)

    assert refusals == [422, 404, 404, 404, 422]
    assert (paid["reference"], paid["status"]) == ("pay_01", "succeeded")


async def test_a_payer_passes_the_banks_page(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    waiting = await client.v1.payment_intents.confirm_async(
        intent.id,
        {
            "payment_method": "pm_card_authenticationRequired",
            "return_url": "http://127.0.0.1/done?order=7",
        },
    )
    assert waiting.status == "requires_action"
    assert waiting.next_action is not None
    assert waiting.next_action.type == "redirect_to_url"
    assert waiting.next_action.redirect_to_url is not None
    page = str(waiting.next_action.redirect_to_url.url)
    assert await sandbox.charges() == []

    shown = await sandbox.control.get(page)
    stranger = await sandbox.control.get(page.replace("source=src_", "source=src_x"))
    done = await sandbox.control.post(page, data={"outcome": "succeeded"})
    again = await sandbox.control.post(page, data={"outcome": "succeeded"})

    assert "Complete" in shown.text
    assert stranger.status_code == 404
    assert done.status_code == 303
    assert done.headers["Location"].startswith("http://127.0.0.1/done?order=7&payment_intent=pi_")
    assert "redirect_status=succeeded" in done.headers["Location"]
    assert again.status_code == 409
    assert len(await sandbox.charges()) == 1


async def test_a_payer_fails_the_banks_check_and_may_try_again(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    waiting = await sandbox.pay(gateway="stripe", reference="pay_01", card="4000002500003155")

    failed = await sandbox.control.post(
        "/control/authenticate",
        json={"gateway": "stripe", "reference": "pay_01", "succeeded": False},
    )
    left = await client.v1.payment_intents.retrieve_async(intent.id)
    await sandbox.pay(gateway="stripe", reference="pay_01", card="4000002500003155")
    passed = await sandbox.control.post(
        "/control/authenticate", json={"gateway": "stripe", "reference": "pay_01"}
    )

    assert (waiting["status"], failed.json()["status"]) == (
        "requires_action",
        "requires_payment_method",
    )
    assert left.last_payment_error is not None
    assert left.last_payment_error.code == "payment_intent_authentication_failure"
    assert passed.json()["status"] == "succeeded"
    assert len(await sandbox.charges()) == 1


async def test_a_card_may_decline_after_the_banks_check(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01", card="4000008260003178")

    passed = await sandbox.control.post(
        "/control/authenticate", json={"gateway": "stripe", "reference": "pay_01"}
    )

    assert passed.json()["decline_code"] == "insufficient_funds"
    assert await sandbox.charges() == []


async def test_off_session_a_card_that_needs_the_payer_is_declined(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    with pytest.raises(stripe.CardError) as declined:
        await client.v1.payment_intents.create_async(
            {
                "amount": 2900,
                "currency": "usd",
                "payment_method": "pm_card_authenticationRequired",
                "allowed_payment_method_types": ["card"],
                "confirm": True,
                "off_session": True,
            }
        )

    assert declined.value.code == "authentication_required"
    [intent] = (await client.v1.payment_intents.list_async()).data
    assert intent.status == "requires_payment_method"


@pytest.mark.parametrize(
    ("number", "extra", "code"),
    [
        ("4242424242424241", {}, "incorrect_number"),
        ("4111111111111111", {}, "card_declined"),
        ("4242424242424242", {"exp_month": "13"}, "invalid_expiry_month"),
        ("4242424242424242", {"exp_month": "1", "exp_year": "2020"}, "invalid_expiry_year"),
        ("4000000000000127", {"cvc": "123"}, "incorrect_cvc"),
        ("4000000000000127", {}, None),
    ],
)
async def test_typed_cards_are_checked(
    client: stripe.StripeClient,
    sandbox: SandboxProcess,
    number: str,
    extra: dict[str, str],
    code: str | None,
) -> None:
    intent = await open_order(client)
    form = {
        "key": sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"],
        "client_secret": intent.client_secret or "",
        "payment_method_data[type]": "card",
        "payment_method_data[card][number]": number,
    } | {f"payment_method_data[card][{name}]": value for name, value in extra.items()}

    answer = await sandbox.control.post(f"/v1/payment_intents/{intent.id}/confirm", data=form)

    assert answer.status_code == (402 if code else 200)
    assert answer.json().get("error", {}).get("code") == code


async def test_a_slow_bank_leaves_the_money_on_its_way(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    """Neither canceled nor confirmed once more meanwhile; it answers at the payer's next deed."""
    intent = await open_order(client)

    waiting = await sandbox.pay(gateway="stripe", reference="pay_01", slow_bank=True)
    with pytest.raises(stripe.InvalidRequestError) as uncanceled:
        await client.v1.payment_intents.cancel_async(intent.id)
    with pytest.raises(stripe.InvalidRequestError) as unconfirmed:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    taken_meanwhile = await sandbox.charges()
    paid = await sandbox.pay(gateway="stripe", reference="pay_01")

    assert (waiting["status"], paid["status"]) == ("processing", "succeeded")
    assert taken_meanwhile == []
    assert [uncanceled.value.code, unconfirmed.value.code] == [
        "payment_intent_unexpected_state"
    ] * 2
    assert [charge["amount"] for charge in await sandbox.charges()] == [intent.amount]


async def test_a_slow_bank_may_decline_in_the_end(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await open_order(client)

    card = "4000000000009995"
    await sandbox.pay(gateway="stripe", reference="pay_01", card=card, slow_bank=True)
    declined = await sandbox.pay(gateway="stripe", reference="pay_01")

    assert (declined["status"], declined["decline_code"]) == (
        "requires_payment_method",
        "insufficient_funds",
    )
    assert await sandbox.charges() == []
