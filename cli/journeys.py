"""The journeys of `everbill demo`: what an application and a payer would do, over HTTP alone."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cli.shop import AMOUNT, Shop

_ABANDONED_AFTER_SECONDS: Final = 6
_MID_SETTLEMENT_SECONDS: Final = 4
# More than a demo's journey asks for.
_REFUSALS_TO_CLOSE: Final = 20

_SPENT_POINTS: Final = 100

LATE: Final = ("alipay", "wechatpay")
"""The gateways where an order may be paid that was canceled here."""

_SWITCHED_FROM: Final = {"stripe": "alipay", "alipay": "wechatpay", "wechatpay": "alipay"}


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
    return Journey("refunded in full", await shop.read(payment["id"]), "succeeded", AMOUNT)


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
        expected_returned=AMOUNT,
    )


async def expired_then_paid(shop: Shop) -> Journey:
    """A card whose bank takes its time: at the deadline the money can be neither seen nor stopped.
    Orders at Alipay and WeChat Pay cannot be paid past theirs."""
    payment = await shop.order(
        "stripe", "Paid after its time", expires_in_seconds=_ABANDONED_AFTER_SECONDS
    )
    await shop.pay(payment, slow_bank=True)
    await shop.until_ended(payment["id"])
    await shop.pay(payment)
    returned = await shop.until_returned(payment["id"])
    return Journey(
        "expired, then paid",
        await shop.read(payment["id"]),
        "expired",
        returned=returned,
        expected_returned=AMOUNT,
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
        expected_returned=AMOUNT,
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
