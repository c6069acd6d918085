"""The journeys of saved methods and subscriptions whose histories are kept, each through the whole
house, with the subscription's own time moved on."""

import secrets
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from cli import members
from cli.members import Member
from cli.shop import Shop
from tests.fixtures.house import BASE, METHODS, House
from tests.replay.steps import Journey

Json = dict[str, Any]


async def _saved(house: House, gateway: str) -> str:
    method = await _method(house, gateway)
    return str(method["id"])


async def _left(house: House, gateway: str) -> str:
    """Deleted before its payer consents."""
    shop = _shop(house)
    method = await shop.ask_method(_user(), gateway, **members.terms_of(gateway))
    await _delete(house, method)
    return str(method["id"])


async def _deleted(house: House, gateway: str) -> str:
    method = await _method(house, gateway)
    await _delete(house, method)
    return str(method["id"])


async def _made_default(house: House) -> str:
    method = await _method(house, "stripe")
    answer = await house.api.post(f"{BASE}/methods/{method['id']}/default")
    assert answer.status_code == 200, answer.text
    return str(method["id"])


async def _renewed(house: House, gateway: str) -> str:
    """Renewed once, and ended at once with the rest given back."""
    member = await _member(house, gateway)
    await members.until_renewed(_shop(house), member)
    return await _ended(house, member, at_period_end=False, refund=True)


async def _charged(house: House, gateway: str) -> str:
    """The payment of a renewal."""
    member = await _member(house, gateway)
    await members.until_renewed(_shop(house), member)
    payment_id = member.subscription["latest_payment_id"]
    await _ended(house, member, at_period_end=False)
    return str(payment_id)


async def _changed(house: House) -> str:
    """Upgraded, paused, resumed, another method, and ended with its period."""
    shop, member = _shop(house), await _member(house, "stripe")
    await members.upgraded(shop, member)
    await members.paused(shop, member)
    found = member.subscription
    await shop.command(found, "method", gateway="stripe", payment_method_id=member.method_id)
    return await _ended(house, member, at_period_end=True)


async def _recovered(house: House) -> str:
    """Declined for lack of funds, tried again, and paid."""
    shop, member = _shop(house), await _member(house, "stripe")
    await shop.steer("stripe", str(member.method_id), decline="insufficient_funds", times=1)
    await members.until(shop, member, lambda now: now["status"] == "past_due")
    await members.until(shop, member, lambda now: now["status"] == "active")
    return await _ended(house, member, at_period_end=False)


async def _paid_by_hand(house: House) -> str:
    """Its card is declined for good: the customer is asked, and pays."""
    shop, member = _shop(house), await _member(house, "stripe")
    await shop.steer("stripe", str(member.method_id), decline="stolen_card", times=1)
    await members.until(shop, member, lambda now: now["status"] == "past_due")
    member.subscription = await shop.command(member.subscription, "pay")
    await members.settled(shop, member)
    return await _ended(house, member, at_period_end=False)


async def _operated(house: House) -> str:
    shop, member = _shop(house), await _member(house, "stripe")
    await shop.steer("stripe", str(member.method_id), decline="stolen_card", times=1)
    await members.until(shop, member, lambda now: now["status"] == "past_due")
    await shop.command(member.subscription, "operate", action="waive", reason="our mistake")
    await shop.command(member.subscription, "operate", action="end", reason="asked to")
    return str(member.subscription["id"])


async def _never_paid(house: House) -> str:
    """By hand, and nobody pays the second period."""
    shop, member = _shop(house), await _member(house, "alipay", is_saved=False)
    await members.until(shop, member, lambda now: now["status"] == "expired")
    return str(member.subscription["id"])


async def _left_amid_a_renewal(house: House) -> str:
    """By hand: the code of the renewal is closed as it is canceled. That is taken back, the renewal
    paid ahead, and canceled again it ends with what is paid."""
    shop, member = _shop(house), await _member(house, "wechatpay", is_saved=False)
    found = member.subscription
    await members.until(shop, member, lambda now: now["next_at"] == now["period"]["end"])
    await shop.command(found, "pay")
    await shop.command(found, "cancel")
    await shop.until_subscription(found["id"], lambda now: now["payment"] is None)
    await shop.command(found, "resume")
    await shop.until_subscription(found["id"], lambda now: now["next_at"] == now["period"]["end"])
    paying = await shop.command(found, "pay")
    await shop.pay(paying["payment"])
    member.subscription = await shop.until_subscription(
        found["id"], lambda now: now["next_at"] is not None
    )
    return await _ended(house, member, at_period_end=True)


async def _signed_again(house: House) -> tuple[str, str]:
    """Changed to a plan above what its payer had signed for, who signs again: the subscription, and
    what was signed."""
    shop, user_id = _shop(house), _user()
    terms = members.terms_of("alipay") | {"most": 2500}
    method = await shop.save_method(user_id, "alipay", **terms)
    member = await members.signed_up(shop, "alipay", user_id, method)
    changed = await shop.command(member.subscription, "change", tier="BASIC", cycle="quarterly")
    signed = await shop.consent(changed["signature"])
    await shop.until_subscription(
        changed["id"], lambda now: now["payment_method_id"] == signed["id"]
    )
    return await _ended(house, member, at_period_end=False), str(signed["id"])


async def _signed_for(house: House) -> str:
    subscription_id, _ = await _signed_again(house)
    return subscription_id


async def _signing(house: House) -> str:
    _, method_id = await _signed_again(house)
    return method_id


async def _above_its_card(house: House) -> str:
    """The card may be charged less than the plan costs: the first period is paid by hand."""
    shop, user_id = _shop(house), _user()
    method = await shop.save_method(user_id, "stripe", currency="USD", most=100)
    member = await members.signed_up(shop, "stripe", user_id, method)
    return await _ended(house, member, at_period_end=False)


async def _made_dearer(house: House) -> str:
    """Announced to its contract, then changed to a dearer plan: announced anew, and charged in the
    days of that notice."""
    shop, member = _shop(house), await _member(house, "wechatpay")
    await members.until(shop, member, lambda now: now["next_at"] == now["period"]["end"])
    late = datetime.fromisoformat(member.subscription["period"]["end"]) - timedelta(days=2)
    await members.move_to(shop, member, late)
    wanted = {"tier": "PREMIUM", "cycle": "monthly", "when": "period_end"}
    member.subscription = await shop.command(member.subscription, "change", **wanted)
    await members.until_renewed(shop, member)
    return await _ended(house, member, at_period_end=False)


def _shop(house: House) -> Shop:
    return Shop(house.api, house.sandbox.control)


def _user() -> str:
    return f"member_{secrets.token_hex(6)}"


async def _method(house: House, gateway: str, user_id: str | None = None) -> Json:
    return await _shop(house).save_method(user_id or _user(), gateway, **members.terms_of(gateway))


async def _member(house: House, gateway: str, *, is_saved: bool = True) -> Member:
    user_id = _user()
    method = await _method(house, gateway, user_id) if is_saved else None
    return await members.signed_up(_shop(house), gateway, user_id, method)


async def _delete(house: House, method: Json) -> None:
    answer = await house.api.delete(f"{BASE}/methods/{method['id']}")
    assert answer.status_code == 200, answer.text


async def _ended(house: House, member: Member, **body: object) -> str:
    shop = _shop(house)
    await shop.command(member.subscription, "cancel", **body)
    if body["at_period_end"]:
        await members.until(shop, member, lambda now: now["status"] == "canceled")
    return str(member.subscription["id"])


METHOD_JOURNEYS: Final[dict[str, Journey]] = {
    **{f"method-saved-{gateway}": Journey(partial(_saved, gateway=gateway)) for gateway in METHODS},
    **{
        f"method-deleted-{gateway}": Journey(partial(_deleted, gateway=gateway), has_after=True)
        for gateway in METHODS
    },
    "method-left-alipay": Journey(partial(_left, gateway="alipay")),
    "method-default-stripe": Journey(_made_default, has_after=True),
    "method-signed-again": Journey(_signing),
}
MEMBER_JOURNEYS: Final[dict[str, Journey]] = {
    **{f"member-{gateway}": Journey(partial(_renewed, gateway=gateway)) for gateway in METHODS},
    "member-changed": Journey(_changed),
    "member-recovered": Journey(_recovered),
    "member-paid-by-hand": Journey(_paid_by_hand),
    "member-operated": Journey(_operated),
    "member-never-paid": Journey(_never_paid),
    "member-left-amid-a-renewal": Journey(_left_amid_a_renewal),
    "member-signed-again": Journey(_signed_for),
    "member-above-its-card": Journey(_above_its_card),
    "member-made-dearer": Journey(_made_dearer),
}
CHARGE_JOURNEYS: Final[dict[str, Journey]] = {
    f"charged-{gateway}": Journey(partial(_charged, gateway=gateway)) for gateway in METHODS
}
