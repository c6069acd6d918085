"""Stripe's idempotency keys: the first answer, whatever it was, for 24 hours."""

import asyncio
import sqlite3
import time

import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.test_stripe_api import ORDER, open_order, plain


async def create(client: stripe.StripeClient, key: str, amount: int = 2900) -> stripe.PaymentIntent:
    return await client.v1.payment_intents.create_async(
        {**ORDER, "amount": amount}, {"idempotency_key": key}
    )


async def test_a_repeated_key_replays_the_first_answer(client: stripe.StripeClient) -> None:
    first = await create(client, "key")
    second = await create(client, "key")

    assert plain(second) == plain(first)
    assert second.last_response is not None
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert first.last_response is not None
    assert second.last_response.headers["Original-Request"] == first.last_response.request_id
    assert len((await client.v1.payment_intents.list_async()).data) == 1


async def test_the_key_survives_a_kill(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    first = await create(client, "key")
    await sandbox.restart()

    assert plain(await create(client, "key")) == plain(first)


async def test_a_key_is_for_one_request_only(client: stripe.StripeClient) -> None:
    intent = await create(client, "key")

    with pytest.raises(stripe.IdempotencyError) as other_amount:
        await create(client, "key", 3000)
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.payment_intents.cancel_async(intent.id, {}, {"idempotency_key": "key"})

    assert other_amount.value.http_status == 400
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status != "canceled"


async def test_a_decline_is_replayed_and_a_new_key_tries_again(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)

    codes = []
    for key in ("first", "first"):
        with pytest.raises(stripe.CardError) as declined:
            await client.v1.payment_intents.confirm_async(
                intent.id, {"payment_method": "pm_card_chargeDeclined"}, {"idempotency_key": key}
            )
        codes.append(declined.value.error.charge if declined.value.error else None)
    charges = await client.v1.charges.list_async()
    paid = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa"}, {"idempotency_key": "second"}
    )

    assert codes[0] == codes[1] is not None
    assert len(charges.data) == 1
    assert paid.status == "succeeded"
    assert len(await sandbox.charges()) == 1


async def test_a_refusal_before_execution_is_not_kept(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await create(client, "key", 1)

    assert (await create(client, "key")).amount == 2900


async def test_a_second_request_while_the_first_runs_is_a_conflict(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "open", "slow", seconds=3)
    first = asyncio.create_task(create(client, "key"))
    while not (await sandbox.control.get("/control/orders")).json()["data"]:
        await asyncio.sleep(0.02)

    with pytest.raises(stripe.APIError) as conflict:
        await create(client, "key")

    assert (conflict.value.http_status, code_of(conflict.value)) == (
        409,
        "idempotency_key_in_use",
    )
    assert plain(await create_when_free(client)) == plain(await first)


def code_of(problem: stripe.StripeError) -> str | None:
    return problem.error.code if problem.error else None


async def create_when_free(client: stripe.StripeClient) -> stripe.PaymentIntent:
    while True:
        try:
            return await create(client, "key")
        except stripe.APIError as problem:
            if code_of(problem) != "idempotency_key_in_use":
                raise
            await asyncio.sleep(0.1)


async def test_a_failure_after_execution_is_replayed_too(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "open", "http_500_after")

    for _ in range(2):
        with pytest.raises(stripe.APIError) as problem:
            await create(client, "key")
        assert problem.value.http_status == 500

    assert len((await client.v1.payment_intents.list_async()).data) == 1


async def test_a_failure_that_stripe_did_not_keep_is_answered_on_repeat(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "open", "http_500_after", stored=False)

    with pytest.raises(stripe.APIError):
        await create(client, "key")
    repeated = await create(client, "key")

    [only] = (await client.v1.payment_intents.list_async()).data
    assert repeated.id == only.id


async def test_a_key_is_new_after_a_day(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    first = await create(client, "key")
    await sandbox.kill()
    book = sqlite3.connect(sandbox.folder / "book.sqlite3")
    with book:
        book.execute(
            "UPDATE documents SET document = json_set(document, '$.at', ?)"
            " WHERE kind = 'stripe_key'",
            (int(time.time()) - 24 * 3600,),
        )
    book.close()
    await sandbox.start()

    assert (await create(client, "key")).id != first.id
