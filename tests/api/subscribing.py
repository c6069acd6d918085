"""Steps by which tests sign users up, have them pay, and command their subscriptions."""

import asyncio
import secrets
from datetime import timedelta
from typing import Any

import httpx

from billing.messages import Command
from tests.api.conftest import Shop
from workflows.payment import PaymentWorkflow

NOBODY = "sub_01hf7yat00fzzvzzzzzzzzzzzz"


def wanted(**changes: Any) -> dict[str, Any]:
    body = {
        "user_id": f"user_{secrets.token_hex(6)}",
        "tier": "BASIC",
        "cycle": "monthly",
        "currency": "CNY",
        "gateway": "alipay",
        "trial_days": 0,
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


async def asked(shop: Shop, key: str | None = None, **changes: Any) -> httpx.Response:
    return await shop.post("/subscription", wanted(**changes), key or secrets.token_hex(16))


async def signed_up(shop: Shop, **changes: Any) -> dict[str, Any]:
    answer = await asked(shop, **changes)
    assert answer.status_code == 201, answer.text
    subscription: dict[str, Any] = answer.json()
    return subscription


async def pay(shop: Shop, payment: dict[str, Any]) -> None:
    """The payer pays, and the payment's process asks."""
    shop.gateway(payment["gateway"]).pay(payment["id"])
    handle = shop.stack.context.client.get_workflow_handle(payment["id"])
    await handle.execute_update(PaymentWorkflow.refresh, Command(application=shop.name))


async def active(shop: Shop, **changes: Any) -> dict[str, Any]:
    """One whose first payment was made by hand."""
    subscription = await signed_up(shop, **changes)
    await pay(shop, subscription["payment"])
    return await until(shop, subscription["id"], "active")


async def command(
    shop: Shop, subscription: dict[str, Any], name: str, key: str | None = None, **body: Any
) -> httpx.Response:
    return await shop.post(
        f"/subscription/{subscription['id']}/{name}", body, key or secrets.token_hex(16)
    )


async def commanded(
    shop: Shop, subscription: dict[str, Any], name: str, **body: Any
) -> dict[str, Any]:
    answer = await command(shop, subscription, name, **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def read(shop: Shop, subscription_id: str) -> dict[str, Any]:
    answer = await shop.get(f"/subscription/{subscription_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def customer(shop: Shop, user_id: str) -> dict[str, Any]:
    answer = await shop.get(f"/customer/{user_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def advance(shop: Shop, subscription: dict[str, Any], by: timedelta) -> dict[str, Any]:
    """Its own time is moved on; where that stands then, and the subscription."""
    answer = await command(shop, subscription, "clock", seconds=int(by.total_seconds()))
    assert answer.status_code == 200, answer.text
    moved: dict[str, Any] = answer.json()
    return moved


async def until(shop: Shop, subscription_id: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (found := await read(shop, subscription_id))["status"] != status:
            await asyncio.sleep(0.05)
    return found


async def versions(shop: Shop, subscription_id: str) -> int:
    async with shop.stack.database.single() as work:
        record = await work.subscriptions.find(subscription_id)
    assert record is not None
    return record.standing.version
