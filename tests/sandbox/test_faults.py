"""Faults of calls, as a client meets them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.test_stripe_api import open_order


@pytest.fixture
async def merchant(sandbox: SandboxProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client with the secret key: it shows what is on the wire."""
    key = sandbox.environment["EVERBILL_STRIPE_SECRET_KEY"]
    async with httpx.AsyncClient(
        base_url=sandbox.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        yield client


async def create(merchant: httpx.AsyncClient) -> httpx.Response:
    return await merchant.post(
        "/v1/payment_intents",
        data={"amount": "2900", "currency": "usd", "metadata[payment_id]": "pay_01"},
    )


async def known(merchant: httpx.AsyncClient) -> list[dict[str, Any]]:
    orders = (await merchant.get("/control/orders")).json()["data"]
    assert isinstance(orders, list)
    return orders


@pytest.mark.parametrize(("fault", "orders"), [("cut_before", 0), ("cut_after", 1)])
async def test_a_cut_connection_has_no_answer(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess, fault: str, orders: int
) -> None:
    await sandbox.fault("stripe", "open", fault)

    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await create(merchant)

    assert len(await known(merchant)) == orders
    assert (await create(merchant)).status_code == 200


@pytest.mark.parametrize(("fault", "orders"), [("http_500", 0), ("http_500_after", 1)])
async def test_a_server_error_comes_before_or_after_the_deed(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess, fault: str, orders: int
) -> None:
    await sandbox.fault("stripe", "open", fault)

    answer = await create(merchant)

    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "api_error")
    assert len(await known(merchant)) == orders


async def test_too_many_requests_names_a_pause_and_does_nothing(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "open", "http_429", retry_after=7)

    answer = await create(merchant)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["error"]["code"] == "rate_limit"
    assert await known(merchant) == []


@pytest.mark.parametrize("fault", ["garbage", "truncated"])
async def test_a_broken_answer_is_not_json_but_the_deed_is_done(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess, fault: str
) -> None:
    await sandbox.fault("stripe", "open", fault)

    answer = await create(merchant)

    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"."):
        answer.json()
    assert len(await known(merchant)) == 1


async def test_a_slow_call_is_done_before_its_answer(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "open", "slow", seconds=3600)

    waiting = asyncio.create_task(create(merchant))
    while not await known(merchant):
        await asyncio.sleep(0.02)

    assert not waiting.done()
    waiting.cancel()


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        ("wrong_amount", {"amount", "amount_received"}),
        ("wrong_currency", {"currency"}),
        ("wrong_order", {"id", "metadata"}),
        ("unknown_status", {"status"}),
    ],
)
async def test_an_altered_answer_changes_nothing_else(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess, fault: str, changed: set[str]
) -> None:
    created = (await create(merchant)).json()
    await sandbox.pay(gateway="stripe", reference="pay_01")
    await sandbox.fault("stripe", "query", fault, times=2)

    altered = (await merchant.get(f"/v1/payment_intents/{created['id']}")).json()
    listed = (await merchant.get("/v1/payment_intents")).json()["data"][0]
    true = (await merchant.get(f"/v1/payment_intents/{created['id']}")).json()

    assert {name for name in true if true[name] != altered[name]} == changed
    assert listed == altered
    assert (true["amount"], true["status"]) == (2900, "succeeded")


async def test_faults_wait_for_their_operation_payment_and_turn(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "close", "http_500", reference="pay_01")
    await sandbox.fault("stripe", "close", "http_429", reference="pay_02")
    await sandbox.fault("stripe", "*", "http_500", times=2)

    statuses = [(await create(merchant)).status_code for _ in range(3)]
    intent = (await known(merchant))[0]["number"]
    statuses += [
        (await merchant.post(f"/v1/payment_intents/{intent}/cancel")).status_code for _ in range(2)
    ]

    assert statuses == [500, 500, 200, 500, 200]


async def test_faults_are_listed_cleared_and_kept_over_a_kill(
    merchant: httpx.AsyncClient, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("stripe", "open", "http_500", times=3)
    await create(merchant)
    await sandbox.restart()

    [waiting] = (await merchant.get("/control/faults")).json()["data"]
    cleared = (await merchant.delete("/control/faults")).json()

    assert (waiting["name"], waiting["operation"], waiting["times"]) == ("http_500", "open", 2)
    assert cleared == {"cleared": 1}
    assert (await create(merchant)).status_code == 200


@pytest.mark.parametrize(
    "wanted",
    [
        {"gateway": "paypal", "operation": "open", "fault": "slow"},
        {"gateway": "stripe", "operation": "repay", "fault": "slow"},
        {"gateway": "stripe", "operation": "open", "fault": "balance_insufficient"},
        {"gateway": "stripe", "operation": "open", "fault": "never"},
        {"gateway": "stripe", "operation": "webhook", "fault": "slow"},
        {"gateway": "stripe", "operation": "open", "fault": "wrong_merchant"},
        {"gateway": "stripe", "operation": "open", "fault": "slow", "times": 0},
        {"gateway": "stripe", "operation": "open", "fault": "slow", "second": 1},
    ],
)
async def test_a_fault_that_cannot_be_is_refused(
    sandbox: SandboxProcess, wanted: dict[str, Any]
) -> None:
    answer = await sandbox.control.post("/control/faults", json=wanted)

    assert answer.status_code == 422
    assert (await sandbox.control.get("/control/faults")).json()["data"] == []


async def test_a_payers_browser_meets_no_fault(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    await sandbox.fault("stripe", "*", "http_500")

    answer = await sandbox.control.post(
        f"/v1/payment_intents/{intent.id}/confirm",
        data={
            "key": sandbox.environment["EVERBILL_STRIPE_PUBLISHABLE_KEY"],
            "client_secret": intent.client_secret or "",
            "payment_method": "pm_card_visa",
        },
    )

    assert answer.json()["status"] == "succeeded"
