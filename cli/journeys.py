"""The journeys of `everbill demo`: what an application and a payer would do, over HTTP alone."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

_BASE: Final = "/api/v1/payment"
_POLL_SECONDS: Final = 0.1
_TIMEOUT_SECONDS: Final = 50.0
_ABANDONED_AFTER_SECONDS: Final = 6
_MID_SETTLEMENT_SECONDS: Final = 4
_TERMINAL: Final = ("succeeded", "failed", "canceled", "expired")

METHODS: Final = {
    "stripe": ("card", "USD"),
    "alipay": ("qr", "CNY"),
    "wechatpay": ("native", "CNY"),
}


class JourneyFailed(Exception):
    """A journey did not come to the end it should have."""


@dataclass(frozen=True)
class Journey:
    """What happened: the payment as the API last told it, and what it should have come to."""

    story: str
    payment: dict[str, Any]
    expected: str
    expected_refunded: int = 0

    @property
    def held(self) -> bool:
        stands = self.payment["status"], self.payment["amount_refunded"]
        return stands == (self.expected, self.expected_refunded)


@dataclass(frozen=True)
class Shop:
    """An application with a key, and a payer's device: the sandbox's controls."""

    api: httpx.AsyncClient
    sandbox: httpx.AsyncClient

    async def order(self, gateway: str, description: str, **fields: object) -> dict[str, Any]:
        method, currency = METHODS[gateway]
        answer = await self.api.post(
            f"{_BASE}/create",
            headers={"Idempotency-Key": secrets.token_hex(16)},
            json={
                "user_id": "demo_user",
                "amount": 2900,
                "currency": currency,
                "gateway": gateway,
                "method": method,
                "description": description,
                **fields,
            },
        )
        payment = _taken(answer)
        if payment["next_action"]["type"] == "none":
            payment = await self.until(
                payment["id"], lambda now: now["next_action"]["type"] != "none"
            )
        return payment

    async def read(self, payment_id: str) -> dict[str, Any]:
        return _taken(await self.api.get(f"{_BASE}/{payment_id}"))

    async def pay(self, payment: dict[str, Any]) -> None:
        await self._device("pay", payment)

    async def decline(self, payment: dict[str, Any]) -> None:
        await self._device("decline", payment)

    async def fault(
        self, payment: dict[str, Any], operation: str, fault: str, **params: object
    ) -> None:
        """Have the sandbox misbehave once for this payment."""
        _taken(
            await self.sandbox.post(
                "/control/faults",
                json={
                    "gateway": payment["gateway"],
                    "operation": operation,
                    "fault": fault,
                    "reference": payment["id"],
                    **params,
                },
            )
        )

    async def until(
        self, payment_id: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The payment once the condition holds; as it stands when time is up."""
        payment = await self.read(payment_id)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while not condition(payment):
                    await asyncio.sleep(_POLL_SECONDS)
                    payment = await self.read(payment_id)
        except TimeoutError:
            pass
        return payment

    async def until_ended(self, payment_id: str) -> dict[str, Any]:
        return await self.until(payment_id, lambda now: now["status"] in _TERMINAL)

    async def refund(self, payment: dict[str, Any], amount: int | None) -> None:
        """Give back, all that is left without an amount; returns once the gateway has done it."""
        answer = await self.api.post(
            f"{_BASE}/refund",
            headers={"Idempotency-Key": secrets.token_hex(16)},
            json={"payment_id": payment["id"], "amount": amount, "reason": "Changed their mind"},
        )
        refund = _taken(answer)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while refund["status"] not in ("succeeded", "failed"):
                    await asyncio.sleep(_POLL_SECONDS)
                    refund = _taken(await self.api.get(f"{_BASE}/refund/{refund['id']}"))
        except TimeoutError:
            pass

    async def _device(self, deed: str, payment: dict[str, Any]) -> None:
        _taken(
            await self.sandbox.post(
                f"/control/{deed}",
                json={"gateway": payment["gateway"], "next_action": payment["next_action"]},
            )
        )


async def paid(shop: Shop, gateway: str) -> Journey:
    payment = await shop.order(gateway, "A month of BASIC")
    await shop.pay(payment)
    return Journey("paid", await shop.until_ended(payment["id"]), "succeeded")


async def declined_then_expired(shop: Shop, gateway: str) -> Journey:
    payment = await shop.order(
        gateway, "Declined, then left", expires_in_seconds=_ABANDONED_AFTER_SECONDS
    )
    await shop.decline(payment)
    return Journey("declined, expired", await shop.until_ended(payment["id"]), "expired")


async def webhook_first_and_twice(shop: Shop, gateway: str) -> Journey:
    payment = await shop.order(gateway, "Reported early and twice")
    await shop.fault(payment, "webhook", "before_answer")
    await shop.fault(payment, "webhook", "duplicate", copies=2)
    await shop.pay(payment)
    return Journey("webhook first, x2", await shop.until_ended(payment["id"]), "succeeded")


async def refunded_in_part(shop: Shop, gateway: str) -> Journey:
    payment = await _paid(shop, gateway, "Partly given back")
    await shop.refund(payment, 900)
    return Journey("refunded in part", await shop.read(payment["id"]), "succeeded", 900)


async def refunded_in_full(shop: Shop, gateway: str) -> Journey:
    payment = await _paid(shop, gateway, "Given back")
    await shop.refund(payment, None)
    return Journey("refunded in full", await shop.read(payment["id"]), "succeeded", 2900)


async def _paid(shop: Shop, gateway: str, description: str) -> dict[str, Any]:
    payment = await shop.order(gateway, description)
    await shop.pay(payment)
    return await shop.until_ended(payment["id"])


async def paid_while_the_worker_dies(
    shop: Shop, gateways: list[str], kill_worker: Callable[[], Awaitable[None]]
) -> list[Journey]:
    """Every gateway is slow to answer the settlement's question; meanwhile the worker is killed."""
    payments = [await shop.order(gateway, "Paid through a crash") for gateway in gateways]
    for payment in payments:
        await shop.fault(payment, "query", "slow", seconds=_MID_SETTLEMENT_SECONDS)
    await asyncio.gather(*(shop.pay(payment) for payment in payments))
    await asyncio.sleep(_MID_SETTLEMENT_SECONDS / 4)
    await kill_worker()
    ended = await asyncio.gather(*(shop.until_ended(payment["id"]) for payment in payments))
    return [Journey("worker killed", payment, "succeeded") for payment in ended]


def _taken(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise JourneyFailed(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}:"
            f" {answer.text[:500]}"
        )
    document: dict[str, Any] = answer.json()
    return document
