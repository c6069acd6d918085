"""Canceled at the period's end while a renewal waits, is shown as a code, or is paid ahead: over
HTTP, on a real Temporal."""

import secrets
from datetime import datetime, timedelta
from typing import Any

from billing.identifiers import mandate_number
from tests.api import saving
from tests.api.conftest import Shop
from tests.api.subscribing import (
    active,
    advance,
    command,
    commanded,
    customer,
    pay,
    read,
    signed_up,
)

Json = dict[str, Any]
DAY = timedelta(days=1)


def end_of(subscription: Json) -> datetime:
    return datetime.fromisoformat(subscription["period"]["end"])


async def advance_to(shop: Shop, subscription: Json, to: datetime) -> Json:
    moved = await advance(shop, subscription, timedelta(seconds=1))
    left = to - datetime.fromisoformat(moved["now"]) + timedelta(seconds=1)
    moved = await advance(shop, subscription, left)
    found: Json = moved["subscription"]
    return found


async def shown_a_code(shop: Shop) -> Json:
    """One that was asked for its renewal, and has its code two days ahead."""
    subscription = await active(shop)
    await advance_to(shop, subscription, end_of(subscription) - 2 * DAY)
    return await commanded(shop, subscription, "pay")


async def previewed(shop: Shop, subscription: Json) -> Json:
    answer = await command(shop, subscription, "preview", command="cancel")
    assert answer.status_code == 200, answer.text
    quote: Json = answer.json()
    return quote


async def forecast(shop: Shop, subscription: Json) -> list[tuple[str, datetime, int]]:
    answer = await shop.get(f"/subscription/{subscription['id']}/upcoming")
    assert answer.status_code == 200, answer.text
    return [
        (one["kind"], datetime.fromisoformat(one["at"]), one["amount"])
        for one in answer.json()["data"]
    ]


async def granted(shop: Shop, subscription: Json) -> tuple[str, str, datetime | None]:
    known = await customer(shop, subscription["user_id"])
    until = known["tier_until"]
    return known["tier"], known["tier_reason"], until and datetime.fromisoformat(until)


async def test_while_a_window_is_waited_for_it_ends_at_once(shop: Shop, told: Shop) -> None:
    user_id = f"user_{secrets.token_hex(6)}"
    subscription = await active(shop, user_id=user_id)
    end = end_of(subscription)
    day = (end + 12 * DAY).date()
    terms = {"most": 9900, "every_months": 1, "first_charge_on": day.isoformat()}
    method = await saving.active(shop, told, gateway="alipay", user_id=user_id, **terms)
    saving.payers(shop, "alipay").days[mandate_number(method["id"])] = day
    body = {"gateway": "alipay", "payment_method_id": method["id"]}
    await commanded(shop, subscription, "method", **body)
    found = await advance_to(shop, subscription, end + DAY)
    assert (found["status"], found["period"]["number"], found["payment"]) == ("active", 1, None)
    assert await granted(shop, found) == ("BASIC", "renewing", None)
    quote = await previewed(shop, found)
    assert datetime.fromisoformat(quote["effective_at"]) > end
    assert quote["subscription"]["status"] == "canceled"
    found = await commanded(shop, found, "cancel")
    assert (found["status"], found["ends_at"]) == ("canceled", None)
    assert datetime.fromisoformat(found["ended_at"]) > end
    assert await granted(shop, found) == ("FREE", "none", None)
    [_] = (await shop.get("/history", user_id=user_id)).json()["data"]


async def test_a_code_is_closed_and_it_ends_with_its_period(shop: Shop) -> None:
    subscription = await shown_a_code(shop)
    payment, end = subscription["payment"], end_of(subscription)
    assert datetime.fromisoformat((await previewed(shop, subscription))["effective_at"]) == end
    found = await commanded(shop, subscription, "cancel")
    assert (found["status"], found["cancel_at_period_end"], found["payment"]) == (
        "active",
        True,
        None,
    )
    assert datetime.fromisoformat(found["ends_at"]) == end
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "failed"
    assert await granted(shop, found) == ("BASIC", "ending", end)
    assert await forecast(shop, found) == [("cancellation", end, 0)]
    found = await advance_to(shop, found, end + timedelta(minutes=1))
    assert (found["status"], end_of(found)) == ("canceled", end)


async def test_a_code_of_what_is_owed_is_closed_and_it_ends(shop: Shop) -> None:
    subscription = await active(shop)
    found = await advance_to(shop, subscription, end_of(subscription) + DAY)
    assert found["status"] == "past_due"
    await commanded(shop, found, "pay")
    found = await commanded(shop, found, "cancel")
    assert (found["status"], found["access"], found["payment"]) == ("canceled", "ended", None)


async def test_paid_ahead_it_ends_with_what_is_paid(shop: Shop) -> None:
    subscription = await shown_a_code(shop)
    await pay(shop, subscription["payment"])
    end = end_of(subscription)
    [(_, _, amount), (_, next_end, _), *_] = await forecast(shop, subscription)
    assert amount == 0
    quote = await previewed(shop, subscription)
    assert datetime.fromisoformat(quote["effective_at"]) == next_end
    assert quote["preview"]["total"] == 0
    found = await commanded(shop, subscription, "cancel")
    assert (found["cancel_at_period_end"], end_of(found)) == (True, end)
    assert datetime.fromisoformat(found["ends_at"]) == next_end
    assert datetime.fromisoformat(found["next_at"]) == end
    assert await granted(shop, found) == ("BASIC", "ending", next_end)
    ahead = [("renewal", end, 0), ("cancellation", next_end, 0)]
    assert await forecast(shop, found) == ahead

    back = await commanded(shop, found, "resume")
    assert (back["cancel_at_period_end"], back["ends_at"]) == (False, None)
    assert await granted(shop, back) == ("BASIC", "paid", end)
    refused = await command(shop, back, "pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "subscription_not_changeable")
    assert f"until that begins, at {end:%Y-%m-%d %H:%M} UTC" in refused.json()["detail"]

    await commanded(shop, back, "cancel")
    found = await advance_to(shop, back, end + DAY)
    assert (found["period"]["number"], found["cancel_at_period_end"]) == (2, True)
    found = await advance_to(shop, found, next_end + timedelta(minutes=1))
    assert found["status"] == "canceled"


async def test_before_the_first_payment_it_says_what_to_do(shop: Shop) -> None:
    subscription = await signed_up(shop)
    refused = await command(shop, subscription, "cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "subscription_not_changeable")
    assert "cancel it now (at_period_end false)" in refused.json()["detail"]
    found = await commanded(shop, subscription, "cancel", at_period_end=False)
    assert found["status"] == "canceled"
    assert (await read(shop, subscription["id"]))["ends_at"] is None
