"""Customers, whom saved cards belong to."""

import pytest
import stripe

from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.stripe.saving import events
from tests.sandbox.test_stripe_api import ORDER, plain


async def test_a_customer_is_made_once_per_key(
    client: stripe.StripeClient, receiver: WebhookReceiver
) -> None:
    params: stripe.params.CustomerCreateParams = {
        "description": "One of ours",
        "metadata": {"user_id": "u1"},
    }
    made = await client.v1.customers.create_async(params, {"idempotency_key": "customer:1"})
    again = await client.v1.customers.create_async(params, {"idempotency_key": "customer:1"})
    found = await client.v1.customers.retrieve_async(made.id)
    [event] = await events(receiver, 1)

    assert made.id.startswith("cus_")
    assert (made.description, plain(made.metadata)) == ("One of ours", {"user_id": "u1"})
    assert plain(again) == plain(found) == plain(made)
    assert (event["type"], event["data"]["object"]["id"]) == ("customer.created", made.id)
    assert event["request"]["idempotency_key"] == "customer:1"


async def test_customers_are_listed_newest_first(client: stripe.StripeClient) -> None:
    first, second, third = [await client.v1.customers.create_async({}) for _ in range(3)]

    page = await client.v1.customers.list_async({"limit": 2})
    rest = await client.v1.customers.list_async({"starting_after": page.data[-1].id})
    later = await client.v1.customers.list_async({"created": {"gt": third.created}})

    assert [found.id for found in page.data] == [third.id, second.id]
    assert (page.has_more, page.url) == (True, "/v1/customers")
    assert ([found.id for found in rest.data], rest.has_more) == ([first.id], False)
    assert later.data == []


async def test_what_stripe_refuses(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await client.v1.customers.retrieve_async("cus_nobody")
    with pytest.raises(stripe.InvalidRequestError) as surprise:
        await client.v1.customers.create_async({"surprise": "1"})  # type: ignore[arg-type]
    with pytest.raises(stripe.InvalidRequestError) as payment:
        await client.v1.payment_intents.create_async({**ORDER, "customer": "cus_nobody"})
    with pytest.raises(stripe.InvalidRequestError) as setup:
        await client.v1.setup_intents.create_async({"customer": "cus_nobody"})

    assert (unknown.value.http_status, unknown.value.code) == (404, "resource_missing")
    assert (surprise.value.code, surprise.value.param) == ("parameter_unknown", "surprise")
    for refused in (payment.value, setup.value):
        assert (refused.http_status, refused.code, refused.param) == (
            400,
            "resource_missing",
            "customer",
        )
