"""The journeys of `everbill demo`: what an application and a payer would do, over HTTP alone."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

_BASE: Final = "/api/v1/payment"
_POLL_SECONDS: Final = 0.1
_TIMEOUT_SECONDS: Final = 50.0
_ABANDONED_AFTER_SECONDS: Final = 6
_MID_SETTLEMENT_SECONDS: Final = 4
_TERMINAL: Final = ("succeeded", "failed", "canceled", "expired")
_AMOUNT: Final = 2900
_RETURNED: Final = "payment.receipt_returned"
# More than a demo's journey asks for.
_REFUSALS_TO_CLOSE: Final = 20

_PACKAGE: Final = "points_500"
_SPENT_POINTS: Final = 100

METHODS: Final = {
    "stripe": ("card", "USD"),
    "alipay": ("qr", "CNY"),
    "wechatpay": ("native", "CNY"),
}

LATE: Final = ("alipay", "wechatpay")
"""The gateways where an order may be paid that was canceled here."""

_SWITCHED_FROM: Final = {"stripe": "alipay", "alipay": "wechatpay", "wechatpay": "alipay"}


class JourneyFailed(Exception):
    """A journey did not come to the end it should have."""


@dataclass(frozen=True)
class Journey:
    """What happened, and what it should have come to; amounts in minor units.

    `payment` is as the API last told it; `returned` is what the API's events say went back because
    no payment waited for it; `points` is its user's balance, where it was made for points.
    """

    story: str
    payment: dict[str, Any]
    expected: str
    expected_refunded: int = 0
    returned: int = 0
    expected_returned: int = 0
    expected_dispute: str | None = None
    points: int | None = None
    expected_points: int | None = None

    @property
    def dispute(self) -> str | None:
        dispute = self.payment["dispute"]
        return None if dispute is None else str(dispute["status"])

    @property
    def held(self) -> bool:
        return (
            self.payment["status"],
            self.payment["amount_refunded"],
            self.returned,
            self.dispute,
            self.points,
        ) == (
            self.expected,
            self.expected_refunded,
            self.expected_returned,
            self.expected_dispute,
            self.expected_points,
        )


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
                "amount": _AMOUNT,
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

    async def pay(self, payment: dict[str, Any]) -> None:
        await self._device("pay", payment)

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
    return Journey("refunded in full", await shop.read(payment["id"]), "succeeded", _AMOUNT)


async def canceled_then_paid(shop: Shop, gateway: str) -> Journey:
    """What cannot be closed there stays payable: Alipay knows no code before it is scanned, and
    WeChat Pay may refuse to close a new order. A canceled intent of Stripe cannot be paid."""
    payment = await shop.order(gateway, "Canceled, and paid all the same")
    await _keep_open(shop, payment)
    await shop.cancel(payment)
    await shop.until_ended(payment["id"])
    await shop.pay(payment)
    returned = await shop.until_returned(payment["id"])
    return Journey(
        "canceled, then paid",
        await shop.read(payment["id"]),
        "canceled",
        returned=returned,
        expected_returned=_AMOUNT,
    )


async def paid_on_two_rails(shop: Shop, gateway: str) -> Journey:
    """Switched to this gateway from another, and paid on both at once."""
    other = _SWITCHED_FROM[gateway]
    first = await shop.order(other, "Paid at two gateways", currency="CNY")
    await _keep_open(shop, first)
    second = await shop.switch(first, gateway)
    await asyncio.gather(shop.pay(first), shop.pay(second))
    returned = await shop.until_returned(first["id"])
    return Journey(
        f"paid on two rails ({other} first)",
        await shop.until_ended(first["id"]),
        "succeeded",
        returned=returned,
        expected_returned=_AMOUNT,
    )


async def points_spent_and_taken_back(shop: Shop, gateway: str) -> Journey:
    """Half of their price is refunded: as many points go as the preview said."""
    user_id = f"demo_{secrets.token_hex(8)}"
    payment = await shop.buy_points(gateway, user_id)
    await shop.pay(payment)
    payment = await shop.until_ended(payment["id"])
    await shop.spend(user_id, _SPENT_POINTS)
    half = payment["amount"] // 2
    expected = await shop.preview(payment, half)
    await shop.refund(payment, half)
    return Journey(
        "points spent, taken back",
        await shop.read(payment["id"]),
        "succeeded",
        half,
        points=await shop.points_of(user_id),
        expected_points=expected,
    )


async def disputed(shop: Shop, outcome: str) -> Journey:
    payment = await _paid(shop, "stripe", "Disputed by the cardholder")
    await shop.dispute(payment)
    await shop.until(payment["id"], lambda now: now["dispute"] is not None)
    await shop.decide(payment, outcome)
    return Journey(
        f"disputed, {outcome}",
        await shop.until(payment["id"], lambda now: now["dispute"]["status"] == outcome),
        "succeeded",
        expected_dispute=outcome,
    )


async def _keep_open(shop: Shop, payment: dict[str, Any]) -> None:
    if payment["gateway"] == "wechatpay":
        await shop.fault(payment, "close", "close_too_early", times=_REFUSALS_TO_CLOSE)


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
