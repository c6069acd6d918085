"""Steps by which tests save a method, have its gateway report on it, and charge it."""

import asyncio
import secrets
from typing import Any

import httpx
from sqlalchemy import select

from api.app import BASE
from billing.identifiers import mandate_number
from storage.tables import webhook_inbox
from tests.api.conftest import Shop
from tests.api.paper import PaperMandates

NOBODY = "pm_01hf7yat00fzzvzzzzzzzzzzzz"


def wanted(**changes: Any) -> dict[str, Any]:
    body = {"user_id": "user_1", "gateway": "stripe", "return_url": "https://shop.example/back"}
    return {name: value for name, value in (body | changes).items() if value is not ...}


async def asked(shop: Shop, key: str | None = None, **changes: Any) -> httpx.Response:
    return await shop.post("/methods", wanted(**changes), key or secrets.token_hex(16))


async def pending(shop: Shop, **changes: Any) -> dict[str, Any]:
    answer = await asked(shop, **changes)
    assert answer.status_code == 201, answer.text
    method: dict[str, Any] = answer.json()
    return method


async def delete(shop: Shop, method_id: str, **params: Any) -> httpx.Response:
    return await shop.http.delete(f"{BASE}/methods/{method_id}", params=params)


async def read(shop: Shop, method_id: str) -> dict[str, Any]:
    answer = await shop.get(f"/methods/{method_id}")
    assert answer.status_code == 200, answer.text
    method: dict[str, Any] = answer.json()
    return method


def payers(shop: Shop, gateway: str = "stripe") -> PaperMandates:
    return shop.gateway(gateway).payers


async def report(told: Shop, **names: str) -> str | None:
    """Have the webhook delivered; what became of it."""
    event_id = f"evt_{secrets.token_hex(8)}"
    body = {"event_id": event_id, "event_type": "mandate.updated", "number": None, **names}
    answer = await told.post("/webhook/stripe", body)
    assert answer.status_code == 200
    await told.stack.context.deliveries.drain()
    async with told.stack.database.single() as work:
        outcome: str | None = await work.connection.scalar(
            select(webhook_inbox.c.outcome).where(webhook_inbox.c.event_id == event_id)
        )
    return outcome


async def until_status(shop: Shop, method_id: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (method := await read(shop, method_id))["status"] != status:
            await asyncio.sleep(0.02)
    return method


async def active(shop: Shop, told: Shop, **changes: Any) -> dict[str, Any]:
    method = await pending(shop, **changes)
    payers(shop, method["gateway"]).consent(method["id"])
    assert await report(told, mandate_number=mandate_number(method["id"])) == "delivered"
    await shop.stack.context.client.get_workflow_handle(method["id"]).result()
    return await until_status(shop, method["id"], "active")


async def charge(
    shop: Shop, method: dict[str, Any], key: str | None = None, **changes: Any
) -> httpx.Response:
    order = {
        "gateway": "stripe",
        "method": "saved",
        "currency": "USD",
        "payment_method_id": method["id"],
    }
    return await shop.create(key, **(order | changes))


async def charged(shop: Shop, method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = await charge(shop, method, **changes)
    assert answer.status_code == 201, answer.text
    payment: dict[str, Any] = answer.json()
    return payment
