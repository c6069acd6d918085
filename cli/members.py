"""The memberships of `everbill demo`: months of a subscription at each gateway, over HTTP alone.

The subscription's own time is moved on by its test clock, from one thing that happens by itself to
the next; the sandbox judges mandates by the same time.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from cli.shop import METHODS, JourneyFailed, Shop

_STEP: Final = timedelta(hours=1)
_BEYOND: Final = timedelta(minutes=1)
"""How far past an instant the clock is moved, so that what is due then has happened."""
_MOST_STEPS: Final = 60
_BEIJING: Final = timezone(timedelta(hours=8))
_EVENING: Final = 21
_RENEWALS: Final = 3
_MOST_MINOR: Final = 9900
_SOFT_DECLINES: Final = {
    "stripe": {"decline": "insufficient_funds", "times": 1},
    "alipay": {"decline": "BUYER_BALANCE_NOT_ENOUGH", "times": 1},
    "wechatpay": {"decline": "NOTENOUGH", "times": 1},
}


@dataclass
class Member:
    """One subscription as the API last told it, and what was seen of it on the way; amounts in
    minor units. `quoted` is what was told ahead to be charged, `charged` what the payments of its
    history come to; `tries` those of the renewal that was declined at first."""

    gateway: str
    method_id: str | None
    subscription: dict[str, Any]
    began_at: datetime
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    renewals: int = 0
    prorated: int = 0
    tries: int = 0
    paused_days: int = 0
    quoted: int = 0
    charged: int = 0
    payments: int = 0

    @property
    def held(self) -> bool:
        """Whether everything came as it should: nothing but what was told ahead was charged."""
        return (
            self.subscription["status"] == "canceled"
            and self.renewals >= _RENEWALS + 1
            and self.tries > 1
            and self.prorated > 0
            and self.charged == self.quoted
        )


async def membership(shop: Shop, gateway: str) -> Member:
    """Signed up, renewed three times, upgraded, declined and recovered, paused and resumed, and
    canceled with its period."""
    user_id = f"member_{secrets.token_hex(6)}"
    method = await shop.save_method(user_id, gateway, **terms_of(gateway))
    member = await signed_up(shop, gateway, user_id, method)
    for _ in range(_RENEWALS):
        await until_renewed(shop, member)
    await upgraded(shop, member)
    await shop.steer(gateway, method["id"], **_SOFT_DECLINES[gateway])
    await until(shop, member, lambda now: now["status"] == "past_due")
    member.quoted += member.subscription["owed"]["total"]
    await until(shop, member, lambda now: now["status"] == "active")
    member.renewals += 1
    await paused(shop, member)
    await shop.command(member.subscription, "cancel", at_period_end=True)
    await until(shop, member, lambda now: now["status"] == "canceled")
    payments = await shop.history(member.subscription["user_id"])
    paid = [one for one in payments if one["status"] == "succeeded"]
    member.payments = len(paid)
    member.charged = sum(one["amount"] for one in paid)
    member.tries = 1 + len([one for one in payments if one["status"] == "failed"])
    return member


def terms_of(gateway: str) -> dict[str, object]:
    """What payers are asked to consent to, where gateways must know."""
    if gateway == "stripe":
        return {}
    terms: dict[str, object] = {"most": _MOST_MINOR, "every_months": 1}
    if gateway == "alipay":
        terms["first_charge_on"] = datetime.now(_BEIJING).date().isoformat()
    return terms


async def signed_up(
    shop: Shop, gateway: str, user_id: str, method: dict[str, Any] | None
) -> Member:
    """One whose first payment is made: by the saved method, or by hand where that is not taken."""
    method_id = None if method is None else str(method["id"])
    subscription = await shop.subscribe(
        user_id=user_id,
        tier="BASIC",
        cycle="monthly",
        currency=METHODS[gateway][1],
        gateway=gateway,
        payment_method_id=method_id,
        trial_days=0,
    )
    member = Member(gateway, method_id, subscription, _time(subscription["created_at"]))
    member.quoted += subscription["plan"]["amount"]
    await settled(shop, member)
    return member


async def until_renewed(shop: Shop, member: Member) -> None:
    """The next period, which is charged as it was told ahead."""
    number = member.subscription["period"]["number"]
    told = await shop.upcoming(member.subscription)
    member.quoted += told[0]["amount"]
    await until(shop, member, lambda now: now["period"]["number"] > number)
    member.renewals += 1


async def upgraded(shop: Shop, member: Member) -> None:
    """In the middle of a period: what it costs is what was previewed, to the minor unit."""
    period = member.subscription["period"]
    middle = _time(period["start"]) + (_time(period["end"]) - _time(period["start"])) / 2
    await move_to(shop, member, middle)
    wanted = {"tier": "PREMIUM", "cycle": "monthly"}
    quote = await shop.preview_command(member.subscription, "change", **wanted)
    changing = await shop.command(
        member.subscription, "change", **wanted, quoted_at=quote["effective_at"]
    )
    member.prorated = quote["preview"]["total"]
    member.quoted += member.prorated
    member.subscription = changing
    await settled(shop, member)
    if member.subscription["plan"]["tier"] != "PREMIUM":
        raise JourneyFailed(f"{member.subscription['id']} was not upgraded once that was paid")


async def paused(shop: Shop, member: Member) -> None:
    """For twenty days, and resumed."""
    await shop.command(member.subscription, "pause")
    await move_to(shop, member, member.now + timedelta(days=20))
    member.subscription = await shop.command(member.subscription, "resume")
    member.paused_days = 20


async def settled(shop: Shop, member: Member) -> None:
    """The payment that it waits for is made, by hand where it was not charged."""
    member.subscription = await shop.until_subscription(
        member.subscription["id"],
        lambda now: now["payment"] is None or now["payment"]["status"] != "created",
    )
    payment = member.subscription["payment"]
    if payment is not None and payment["next_action"]["type"] != "none":
        await shop.pay(payment)
    member.subscription = await shop.until_subscription(
        member.subscription["id"],
        lambda now: now["payment"] is None and now["status"] != "incomplete",
    )


async def until(shop: Shop, member: Member, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Move on from one thing that happens by itself to the next, until the condition holds."""
    for _ in range(_MOST_STEPS):
        if condition(member.subscription):
            return
        next_at = member.subscription["next_at"]
        at = member.now if next_at is None else _time(next_at)
        await move_to(shop, member, (at if at > member.now else _later(member)) + _BEYOND)
    raise JourneyFailed(f"{member.subscription['id']} never came to that: {member.subscription}")


async def move_to(shop: Shop, member: Member, at: datetime) -> None:
    """The subscription's clock, and that by which its mandate is judged."""
    if member.method_id is not None:
        await shop.set_business_time(member.gateway, member.method_id, at)
    seconds = max(int((at - member.now).total_seconds()), 1)
    moved = await shop.advance(member.subscription, seconds)
    member.subscription, member.now = moved["subscription"], _time(moved["now"])


def _later(member: Member) -> datetime:
    """When what was due is tried again: WeChat Pay deducts by day only."""
    if member.gateway != "wechatpay":
        return member.now + _STEP
    local = member.now.astimezone(_BEIJING)
    morning = local.replace(hour=7, minute=5, second=0, microsecond=0)
    if local < morning:
        return morning
    return member.now + _STEP if local.hour < _EVENING else morning + timedelta(days=1)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
