"""A payment from the application's order to the ledger, over HTTP, on every gateway."""

import asyncio

import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.api.history.v1 import History
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from tests.fixtures.house import METHODS, House

GATEWAYS = tuple(METHODS)
MAX_EVENTS = 30
MAX_BYTES = 12_000


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_paid(house: House, gateway: str) -> None:
    payment = await house.create(gateway)
    assert payment["status"] == "requires_action"
    assert payment["next_action"]["type"] != "none"
    await house.pay(payment)
    paid = await house.until_status(payment["id"])
    assert paid["status"] == "succeeded"
    assert paid["next_action"] == {"type": "none"}
    assert paid["paid_at"] is not None
    [receipt] = await house.receipts(payment["id"])
    assert receipt.kept
    assert receipt.amount_minor == 2900
    assert receipt.gateway_reference == paid["gateway_reference"]
    assert len(await house.charges(payment["id"])) == 1
    assert await house.postings(payment["id"]) == 1
    assert await house.events(payment["id"]) == [
        "payment.created",
        "payment.requires_action",
        "payment.succeeded",
    ]


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_a_plain_payment_stays_small(house: House, gateway: str) -> None:
    payment = await house.create(gateway)
    await house.pay(payment)
    await house.until_status(payment["id"])
    handle = house.client.get_workflow_handle(payment["id"])
    await handle.result()
    history = await handle.fetch_history()
    size = History(events=history.events).ByteSize()
    kinds = [event.event_type for event in history.events]
    assert len(history.events) <= MAX_EVENTS, kinds
    assert size <= MAX_BYTES


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_canceled(house: House, gateway: str) -> None:
    payment = await house.create(gateway)
    answer = await house.command(payment["id"], "cancel")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "canceled"
    again = await house.command(payment["id"], "cancel")
    assert (again.status_code, again.json()["status"]) == (200, "canceled")
    assert await house.postings(payment["id"]) == 0


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_too_late_to_cancel(house: House, gateway: str) -> None:
    payment = await house.create(gateway)
    await house.pay(payment)
    await house.until_status(payment["id"])
    answer = await house.command(payment["id"], "cancel")
    assert answer.status_code == 409
    assert answer.json()["code"] == "payment_not_cancelable"


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_abandoned_expires(house: House, gateway: str) -> None:
    payment = await house.create(gateway, expires_in_seconds=5)
    expired = await house.until_status(payment["id"])
    assert expired["status"] == "expired"
    assert expired["next_action"] == {"type": "none"}


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_declined_then_paid(house: House, gateway: str) -> None:
    payment = await house.create(gateway)
    await house.sandbox.decline(gateway=gateway, next_action=payment["next_action"])
    if gateway == "stripe":
        tried = await house.until(payment["id"], lambda now: now["failure"] is not None)
        assert tried["status"] == "requires_action"
        assert tried["failure"]["decline_code"] == "generic_decline"
    await house.pay(payment)
    paid = await house.until_status(payment["id"])
    assert paid["status"] == "succeeded"
    assert paid["failure"] is None


async def test_wrong_amount_is_parked_and_posts_nothing(house: House) -> None:
    payment = await house.create("wechatpay")
    reference = payment["id"]
    await house.sandbox.fault("wechatpay", "query", "wrong_amount", reference=reference, times=50)
    await house.pay(payment)
    parked = await house.until_status(reference, "needs_review")
    assert parked["review"]["reason"] == "amount_mismatch"
    assert await house.postings(reference) == 0
    assert (await house.command(reference, "cancel")).status_code == 409
    still = await house.command(reference, "review", action="retry", reason="look again")
    assert still.json()["status"] == "needs_review"
    await house.sandbox.control.delete("/control/faults")
    settled = await house.command(reference, "review", action="retry", reason="it was a fault")
    assert settled.status_code == 200, settled.text
    assert settled.json()["status"] == "succeeded"
    assert await house.postings(reference) == 1


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_resumed_from_the_row_alone(house: House, gateway: str) -> None:
    payment = await house.create(gateway)
    handle = house.client.get_workflow_handle(payment["id"])
    await handle.terminate("lost")
    await house.pay(payment)
    assert await house.resumption().resume(payment["id"])
    paid = await house.until_status(payment["id"])
    assert paid["status"] == "succeeded"
    assert len(await house.charges(payment["id"])) == 1
    assert await house.postings(payment["id"]) == 1
    await handle.result()
    assert not await house.resumption().resume(payment["id"])


async def test_the_sweep_starts_what_is_not_running(house: House) -> None:
    payments = [await house.create(gateway) for gateway in GATEWAYS]
    for payment in payments:
        await house.client.get_workflow_handle(payment["id"]).terminate("lost")
    assert await house.resumption().sweep() >= len(payments)
    for payment in payments:
        description = await house.client.get_workflow_handle(payment["id"]).describe()
        assert description.status is WorkflowExecutionStatus.RUNNING
        await house.command(payment["id"], "cancel")


async def test_nothing_readable_in_the_history(house: House) -> None:
    payment = await house.create("stripe", description="A very readable description")
    history = await house.client.get_workflow_handle(payment["id"]).fetch_history()
    text = str(MessageToDict(History(events=history.events)))
    assert "readable" not in text
    assert payment["next_action"]["client_secret"] not in text
    await house.command(payment["id"], "cancel")


async def test_refresh_of_an_ended_payment_asks_again(house: House) -> None:
    """Canceled, closed at the gateway, and nobody reports: the return page's refresh does."""
    payment = await house.create("wechatpay")
    await house.command(payment["id"], "cancel")
    await house.client.get_workflow_handle(payment["id"]).result()
    answer = await house.command(payment["id"], "refresh")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    after = house.client.get_workflow_handle(f"{payment['id']}/after")
    async with asyncio.timeout(20):
        while True:
            try:
                await after.result()
                break
            except RPCError:
                await asyncio.sleep(0.1)
    assert (await house.read(payment["id"]))["status"] == "canceled"
