"""Stripe's API as its own SDK and a browser see it."""

import asyncio
import re
from typing import Any

import httpx
import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess

ORDER: stripe.params.PaymentIntentCreateParams = {
    "amount": 2900,
    "currency": "usd",
    "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
    "metadata": {"payment_id": "pay_01", "attempt": "1"},
}


def plain(found: object) -> dict[str, Any]:
    """A Stripe object's content: two of them never compare as equal."""
    assert isinstance(found, stripe.StripeObject)
    return found.to_dict()


async def open_order(client: stripe.StripeClient) -> stripe.PaymentIntent:
    return await client.v1.payment_intents.create_async(ORDER)


async def test_an_intent_waits_for_a_payment_method(client: stripe.StripeClient) -> None:
    intent = await open_order(client)

    assert intent.status == "requires_payment_method"
    assert (intent.amount, intent.currency, intent.amount_received) == (2900, "usd", 0)
    assert plain(intent.metadata) == {"payment_id": "pay_01", "attempt": "1"}
    assert re.fullmatch(rf"{intent.id}_secret_\w+", intent.client_secret or "")
    assert intent.livemode is False
    found = await client.v1.payment_intents.retrieve_async(intent.id)
    assert plain(found) == plain(intent)


async def test_a_confirmed_card_pays(client: stripe.StripeClient, sandbox: SandboxProcess) -> None:
    intent = await open_order(client)

    paid = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa"}
    )

    assert (paid.status, paid.amount_received) == ("succeeded", 2900)
    charge = await client.v1.charges.retrieve_async(str(paid.latest_charge))
    assert (charge.status, charge.paid, charge.payment_intent) == ("succeeded", True, intent.id)
    [taken] = await sandbox.charges()
    assert taken["reference"] == "pay_01"
    assert (taken["amount"], taken["currency"], taken["refunded"]) == (2900, "USD", 0)
    assert taken["gateway_reference"] == charge.id


async def test_a_browser_confirms_with_its_client_secret(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    form = {
        "key": sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"],
        "client_secret": intent.client_secret or "",
        "payment_method_data[type]": "card",
        "payment_method_data[card][number]": "4242424242424242",
        "payment_method_data[card][exp_month]": "12",
        "payment_method_data[card][exp_year]": "34",
        "payment_method_data[card][cvc]": "123",
    }

    wrong = await sandbox.control.post(
        f"/v1/payment_intents/{intent.id}/confirm",
        data=form | {"client_secret": f"{intent.id}_secret_guess"},
    )
    answer = await sandbox.control.post(f"/v1/payment_intents/{intent.id}/confirm", data=form)

    assert wrong.status_code == 400
    assert answer.json()["status"] == "succeeded"
    assert "metadata" not in answer.json()
    assert len(await sandbox.charges()) == 1


async def test_a_canceled_intent_takes_no_money(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)

    canceled = await client.v1.payment_intents.cancel_async(
        intent.id, {"cancellation_reason": "abandoned"}
    )
    with pytest.raises(stripe.InvalidRequestError) as again:
        await client.v1.payment_intents.cancel_async(intent.id)
    with pytest.raises(stripe.InvalidRequestError) as late:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    refused = await sandbox.control.post(
        "/control/pay", json={"gateway": "stripe", "reference": "pay_01"}
    )

    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    assert again.value.code == late.value.code == "payment_intent_unexpected_state"
    assert again.value.http_status == 400
    assert refused.status_code == 409
    assert await sandbox.charges() == []


async def test_a_paid_intent_is_neither_canceled_nor_paid_again(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")

    with pytest.raises(stripe.InvalidRequestError) as cancel:
        await client.v1.payment_intents.cancel_async(intent.id)
    again = await sandbox.control.post(
        "/control/pay", json={"gateway": "stripe", "reference": "pay_01"}
    )

    assert cancel.value.error is not None
    assert cancel.value.error.payment_intent is not None
    assert cancel.value.error.payment_intent.status == "succeeded"
    assert again.status_code == 409
    assert len(await sandbox.charges()) == 1


async def test_search_finds_by_all_of_the_metadata_named(client: stripe.StripeClient) -> None:
    async def found(query: str) -> list[str]:
        page = await client.v1.payment_intents.search_async({"query": query})
        return [intent.id for intent in page.data]

    first = await open_order(client)
    metadata = {"payment_id": "pay_01", "attempt": "2"}
    second = await client.v1.payment_intents.create_async({**ORDER, "metadata": metadata})
    of_payment = 'metadata["payment_id"]:"pay_01"'

    assert await found(of_payment) == [second.id, first.id]
    assert await found(f'{of_payment} AND metadata["attempt"]:"1"') == [first.id]
    assert await found(f'{of_payment} AND metadata["attempt"]:"3"') == []
    with pytest.raises(stripe.InvalidRequestError, match="search query"):
        await found("status:'succeeded'")


async def test_search_goes_page_by_page(client: stripe.StripeClient) -> None:
    made = [(await open_order(client)).id for _ in range(3)]
    query = 'metadata["payment_id"]:"pay_01"'
    found: list[str] = []
    page: str | None = None
    for is_last in (False, False, True):
        wanted: stripe.params.PaymentIntentSearchParams = {"query": query, "limit": 1}
        if page is not None:
            wanted["page"] = page
        result = await client.v1.payment_intents.search_async(wanted)
        found += [intent.id for intent in result.data]
        page = result.next_page
        assert (result.has_more, page is None) == (not is_last, is_last)
    assert found == made[::-1]
    with pytest.raises(stripe.InvalidRequestError, match="page"):
        await client.v1.payment_intents.search_async({"query": query, "page": "unheard of"})


async def test_lists_go_newest_first_and_page_by_page(client: stripe.StripeClient) -> None:
    made = [(await open_order(client)).id for _ in range(5)]

    first = await client.v1.payment_intents.list_async({"limit": 2})
    listed = [
        intent.id
        async for intent in (
            await client.v1.payment_intents.list_async({"limit": 2})
        ).auto_paging_iter()
    ]
    future = await client.v1.payment_intents.list_async({"created": {"gt": first.data[0].created}})
    past = await client.v1.payment_intents.list_async({"created": {"gte": 1}, "limit": 100})

    assert (len(first.data), first.has_more) == (2, True)
    assert listed == made[::-1]
    assert future.data == []
    assert (len(past.data), past.has_more) == (5, False)


async def test_expansion_puts_the_charge_in_place(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")

    found = await client.v1.payment_intents.retrieve_async(intent.id, {"expand": ["latest_charge"]})
    listed = await client.v1.payment_intents.list_async({"expand": ["data.latest_charge"]})
    charges = await client.v1.charges.list_async({"payment_intent": intent.id})

    assert isinstance(found.latest_charge, stripe.Charge)
    assert plain(listed.data[0].latest_charge) == plain(found.latest_charge)
    assert [charge.id for charge in charges.data] == [found.latest_charge.id]


@pytest.mark.parametrize(
    ("changed", "param", "code"),
    [
        ({"amount": 49}, "amount", "amount_too_small"),
        ({"amount": 100_000_000}, "amount", "amount_too_large"),
        ({"amount": "29.00"}, "amount", "parameter_invalid_integer"),
        ({"currency": "USD"}, "currency", None),
        ({"currency": "xxx"}, "currency", None),
        ({"surprise": "1"}, "surprise", "parameter_unknown"),
        ({"metadata": {"k" * 41: "v"}}, f"metadata[{'k' * 41}]", None),
    ],
)
async def test_what_stripe_refuses_is_refused(
    client: stripe.StripeClient, changed: dict[str, object], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as problem:
        await client.v1.payment_intents.create_async({**ORDER, **changed})  # type: ignore[typeddict-item]

    assert (problem.value.param, problem.value.code) == (param, code)
    assert (await client.v1.payment_intents.list_async()).data == []


async def test_a_server_side_confirmation_needs_a_return_url_where_payers_may_be_redirected(
    client: stripe.StripeClient,
) -> None:
    intent = await client.v1.payment_intents.create_async({"amount": 2900, "currency": "usd"})

    with pytest.raises(stripe.InvalidRequestError) as problem:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})

    assert problem.value.param == "return_url"


async def test_unknown_objects_and_routes_are_not_found(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as intent:
        await client.v1.payment_intents.retrieve_async("pi_nobody")
    with pytest.raises(stripe.InvalidRequestError) as route:
        await client.v1.products.create_async({"name": "Gold"})

    assert (intent.value.http_status, intent.value.code) == (404, "resource_missing")
    assert route.value.http_status == 404


async def test_keys_are_checked(client: stripe.StripeClient, sandbox: SandboxProcess) -> None:
    await open_order(client)
    async with httpx.AsyncClient(base_url=sandbox.url) as anybody:
        nobody = await anybody.get("/v1/balance")
        wrong = await anybody.get(
            "/v1/balance", headers={"Authorization": "Bearer sk_test_wrong_1234"}
        )
        browser = await anybody.get(
            "/v1/payment_intents",
            auth=(sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"], ""),
        )
    balance = await client.v1.balance.retrieve_async()

    assert nobody.status_code == wrong.status_code == 401
    assert wrong.json()["error"]["message"] == "Invalid API Key provided: sk_test_******1234"
    assert (browser.status_code, browser.json()["error"]["code"]) == (403, "secret_key_required")
    assert balance.object == "balance"


async def test_answers_name_their_request_and_version(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    answer = await sandbox.control.get(
        "/v1/balance",
        headers={
            "Authorization": f"Bearer {sandbox.environment['EVERBILL_STRIPE_SECRET_KEY']}",
            "Stripe-Version": "2025-01-27.acacia",
        },
    )

    assert answer.headers["Request-Id"].startswith("req_")
    assert answer.headers["Stripe-Version"] == "2025-01-27.acacia"


async def test_the_synchronous_client_works_as_well(sandbox: SandboxProcess) -> None:
    http_client = stripe.HTTPXClient(allow_sync_methods=True)
    client = stripe.StripeClient(
        sandbox.environment["EVERBILL_STRIPE_SECRET_KEY"],
        base_addresses={"api": sandbox.url},
        http_client=http_client,
    )

    intent = await asyncio.to_thread(client.v1.payment_intents.create, ORDER)
    http_client.close()  # type: ignore[no-untyped-call]
    await http_client.close_async()  # type: ignore[no-untyped-call]

    assert intent.status == "requires_payment_method"
