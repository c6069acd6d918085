"""An application and its payers, as `everbill demo` plays them, over HTTP alone."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx

AMOUNT: Final = 2900
_BASE: Final = "/api/v1/payment"
_POLL_SECONDS: Final = 0.1
_TIMEOUT_SECONDS: Final = 50.0
_TERMINAL: Final = ("succeeded", "failed", "canceled", "expired")
_RETURNED: Final = "payment.receipt_returned"
_PACKAGE: Final = "points_500"

METHODS: Final = {
    "stripe": ("card", "USD"),
    "alipay": ("qr", "CNY"),
    "wechatpay": ("native", "CNY"),
}


class JourneyFailed(Exception):
    """A journey did not come to the end it should have."""


@dataclass
class _Feed:
    """The application's events as far as they were read: what went back, by payment."""

    returned: dict[str, int] = field(default_factory=dict)
    cursor: str | None = None
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Shop:
    """An application with a key, and a payer's device: the sandbox's controls."""

    api: httpx.AsyncClient
    sandbox: httpx.AsyncClient
    _feed: _Feed = field(default_factory=_Feed)

    async def order(self, gateway: str, description: str, **fields: object) -> dict[str, Any]:
        """A payment with instructions for its payer."""
        method, currency = METHODS[gateway]
        answer = await self.api.post(
            f"{_BASE}/create",
            headers={"Idempotency-Key": secrets.token_hex(16)},
            json={
                "user_id": "demo_user",
                "amount": AMOUNT,
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

    async def buy_points(self, gateway: str, user_id: str) -> dict[str, Any]:
        """A payment for a package of points, with instructions for its payer."""
        method, currency = METHODS[gateway]
        order = {
            "user_id": user_id,
            "package": _PACKAGE,
            "currency": currency,
            "gateway": gateway,
            "method": method,
        }
        payment = await self._post("/points/purchase", order)
        return await self.until(payment["id"], lambda now: now["next_action"]["type"] != "none")

    async def spend(self, user_id: str, points: int) -> int:
        """The balance afterwards."""
        spent = await self._post(
            "/points/spend", {"user_id": user_id, "points": points, "reason": "A sticker"}
        )
        return int(spent["balance_after"])

    async def preview(self, payment: dict[str, Any], amount: int) -> int:
        """The balance of points that a refund of so much would leave."""
        preview = await self._post(
            "/refund/preview", {"payment_id": payment["id"], "amount": amount}
        )
        return int(preview["points"]["balance_after"])

    async def points_of(self, user_id: str) -> int:
        answer = await self.api.get(f"{_BASE}/points/{user_id}")
        return int(_taken(answer)["balance"])

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return _taken(await self.api.post(f"{_BASE}{path}", headers=headers, json=body))

    async def switch(self, payment: dict[str, Any], gateway: str) -> dict[str, Any]:
        """The payment with the instructions of the other gateway."""
        answer = await self.api.post(
            f"{_BASE}/{payment['id']}/switch",
            headers={"Idempotency-Key": secrets.token_hex(16)},
            json={"gateway": gateway, "method": METHODS[gateway][0]},
        )
        _taken(answer)
        return await self.until(payment["id"], lambda now: now["gateway"] == gateway)

    async def cancel(self, payment: dict[str, Any]) -> None:
        _taken(
            await self.api.post(
                f"{_BASE}/{payment['id']}/cancel",
                headers={"Idempotency-Key": secrets.token_hex(16)},
            )
        )

    async def read(self, payment_id: str) -> dict[str, Any]:
        return _taken(await self.api.get(f"{_BASE}/{payment_id}"))

    async def pay(self, payment: dict[str, Any], **options: object) -> None:
        await self._device("pay", payment, **options)

    async def dispute(self, payment: dict[str, Any]) -> None:
        """The cardholder tells the bank that the charge was not theirs."""
        deed = {"gateway": payment["gateway"], "reference": payment["id"]}
        _taken(await self.sandbox.post("/control/dispute", json=deed))

    async def decide(self, payment: dict[str, Any], outcome: str) -> None:
        """The bank decides the dispute, for the merchant `won` or `lost`."""
        deed = {"gateway": payment["gateway"], "reference": payment["id"], "outcome": outcome}
        _taken(await self.sandbox.post("/control/dispute/close", json=deed))

    async def decline(self, payment: dict[str, Any]) -> None:
        await self._device("decline", payment)

    async def fault(
        self, payment: dict[str, Any], operation: str, fault: str, **params: object
    ) -> None:
        """Have the sandbox misbehave for this payment, once if `times` does not say more."""
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

    async def until_returned(self, payment_id: str) -> int:
        """What went back of the money that no payment waited for, once anything has; in minor
        units, as it stands when time is up."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while payment_id not in self._feed.returned:
                    await self._read_events()
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            pass
        return self._feed.returned.get(payment_id, 0)

    async def _read_events(self) -> None:
        """The next page of the application's events, if there is one."""
        feed = self._feed
        async with feed.reading:
            wanted: dict[str, str | int] = {"limit": 100, "wait_seconds": 0}
            if feed.cursor is not None:
                wanted["after"] = feed.cursor
            page = _taken(await self.api.get(f"{_BASE}/events", params=wanted))
            for event in page["data"]:
                if event["type"] == _RETURNED:
                    before = feed.returned.get(event["object_id"], 0)
                    feed.returned[event["object_id"]] = before + event["data"]["amount"]
            feed.cursor = page["next_cursor"] or feed.cursor

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

    async def save_method(self, user_id: str, gateway: str, **terms: object) -> dict[str, Any]:
        """A saved method that its payer has consented to."""
        return await self.consent(await self.ask_method(user_id, gateway, **terms))

    async def ask_method(self, user_id: str, gateway: str, **terms: object) -> dict[str, Any]:
        """A saved method that waits for its payer's consent."""
        method = await self._post("/methods", {"user_id": user_id, "gateway": gateway, **terms})
        return await self._until_read(
            f"/methods/{method['id']}", lambda now: now["next_action"]["type"] != "none"
        )

    async def consent(self, method: dict[str, Any]) -> dict[str, Any]:
        await self._device("pay", method)
        return await self._until_read(
            f"/methods/{method['id']}", lambda now: now["status"] == "active"
        )

    async def subscribe(self, **wanted: object) -> dict[str, Any]:
        return await self._post("/subscription", wanted)

    async def command(
        self, subscription: dict[str, Any], name: str, **body: object
    ) -> dict[str, Any]:
        return await self._post(f"/subscription/{subscription['id']}/{name}", body)

    async def preview_command(
        self, subscription: dict[str, Any], name: str, **body: object
    ) -> dict[str, Any]:
        wanted = {"command": name, **body}
        return await self._post(f"/subscription/{subscription['id']}/preview", wanted)

    async def upcoming(self, subscription: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.api.get(f"{_BASE}/subscription/{subscription['id']}/upcoming")
        told: list[dict[str, Any]] = _taken(answer)["data"]
        return told

    async def until_subscription(
        self, subscription_id: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        return await self._until_read(f"/subscription/{subscription_id}", condition)

    async def advance(self, subscription: dict[str, Any], seconds: int) -> dict[str, Any]:
        """Move the subscription's own time on."""
        return await self._post(f"/subscription/{subscription['id']}/clock", {"seconds": seconds})

    async def history(self, user_id: str) -> list[dict[str, Any]]:
        """The payments of the user."""
        answer = await self.api.get(f"{_BASE}/history", params={"user_id": user_id, "limit": 100})
        found: list[dict[str, Any]] = _taken(answer)["data"]
        return found

    async def set_business_time(self, gateway: str, method_id: str, now: datetime) -> None:
        """By what time the gateway judges charges of this mandate."""
        wanted = {"gateway": gateway, "reference": method_id, "now": now.isoformat()}
        _taken(await self.sandbox.post("/control/clock", json=wanted))

    async def steer(self, gateway: str, method_id: str, **options: object) -> None:
        """What the next charges of this mandate come to."""
        wanted = {"gateway": gateway, "reference": method_id, **options}
        _taken(await self.sandbox.post("/control/mandate", json=wanted))

    async def _until_read(
        self, path: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        found = _taken(await self.api.get(f"{_BASE}{path}"))
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while not condition(found):
                    await asyncio.sleep(_POLL_SECONDS)
                    found = _taken(await self.api.get(f"{_BASE}{path}"))
        except TimeoutError:
            raise JourneyFailed(f"{path} never came to that: {found}") from None
        return found

    async def _device(self, deed: str, payment: dict[str, Any], **options: object) -> None:
        device = {"gateway": payment["gateway"], "next_action": payment["next_action"], **options}
        _taken(await self.sandbox.post(f"/control/{deed}", json=device))


def _taken(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise JourneyFailed(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}:"
            f" {answer.text[:500]}"
        )
    document: dict[str, Any] = answer.json()
    return document
