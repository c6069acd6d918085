"""Months of a subscription, its own clock moved on, on a real Temporal."""

import secrets
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.identifiers import mandate_number
from tests.api import saving
from tests.api.conftest import Shop
from tests.api.subscribing import active, advance, command, commanded, pay, read, signed_up

MONTH = timedelta(days=31)


async def by_agreement(shop: Shop, told: Shop) -> tuple[dict[str, Any], dict[str, Any]]:
    user = f"user_{secrets.token_hex(6)}"
    method = await saving.active(shop, told, gateway="alipay", user_id=user)
    subscription = await signed_up(shop, user_id=user, payment_method_id=method["id"])
    await advance(shop, subscription, timedelta(seconds=1))
    return method, await read(shop, subscription["id"])


async def test_three_renewals_each_for_its_own_period(shop: Shop, told: Shop) -> None:
    _, subscription = await by_agreement(shop, told)
    ends = [subscription["period"]["end"]]
    for number in range(2, 5):
        moved = await advance(shop, subscription, MONTH)
        found = moved["subscription"]
        assert (found["status"], found["period"]["number"]) == ("active", number)
        assert found["period"]["start"] == ends[-1]
        assert datetime.fromisoformat(moved["now"]) >= datetime.fromisoformat(ends[-1])
        ends.append(found["period"]["end"])
    payments = (await shop.get("/history", user_id=subscription["user_id"])).json()["data"]
    assert [one["status"] for one in payments] == ["succeeded"] * 4
    assert len({one["id"] for one in payments}) == 4


async def test_without_its_mandate_the_customer_is_asked_and_pays(shop: Shop, told: Shop) -> None:
    method, subscription = await by_agreement(shop, told)
    saving.payers(shop, "alipay").withdraw(method["id"])
    await saving.report(told, mandate_number=mandate_number(method["id"]))
    found = (await advance(shop, subscription, MONTH))["subscription"]
    assert (found["status"], found["access"]) == ("past_due", "grace")
    paying = await commanded(shop, found, "pay")
    assert paying["payment"]["amount"] == found["owed"]["total"]
    await pay(shop, paying["payment"])
    found = (await advance(shop, subscription, timedelta(seconds=1)))["subscription"]
    assert (found["status"], found["access"], found["owed"]) == ("active", "active", None)


async def test_unpaid_it_loses_access_and_expires(shop: Shop) -> None:
    subscription = await active(shop)
    ahead = await command(shop, subscription, "pay")
    assert (ahead.status_code, ahead.json()["code"]) == (409, "subscription_not_changeable")
    found = (await advance(shop, subscription, MONTH))["subscription"]
    assert found["status"] == "past_due"
    found = (await advance(shop, subscription, timedelta(days=10)))["subscription"]
    assert found["access"] == "restricted"
    found = (await advance(shop, subscription, MONTH))["subscription"]
    assert (found["status"], found["access"]) == ("expired", "ended")
    gone = await command(shop, subscription, "clock", seconds=60)
    assert (gone.status_code, gone.json()["code"]) == (409, "subscription_ended")


async def test_a_renewal_is_paid_ahead_by_hand(shop: Shop) -> None:
    subscription = await active(shop)
    end = datetime.fromisoformat(subscription["period"]["end"])
    moved = await advance(shop, subscription, timedelta(days=1))
    await advance(
        shop, subscription, end - datetime.fromisoformat(moved["now"]) - timedelta(days=2)
    )
    paying = await commanded(shop, subscription, "pay")
    await pay(shop, paying["payment"])
    assert (await read(shop, subscription["id"]))["period"]["number"] == 1
    found = (await advance(shop, subscription, timedelta(days=3)))["subscription"]
    assert (found["status"], found["period"]["number"]) == ("active", 2)


@pytest.mark.parametrize("seconds", [0, -1, 367 * 86_400, "1y", 1.5])
async def test_refuses_steps_that_are_none(shop: Shop, seconds: Any) -> None:
    subscription = await signed_up(shop)
    answer = await command(shop, subscription, "clock", seconds=seconds)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_is_for_the_sandbox_alone(shop: Shop) -> None:
    subscription = await signed_up(shop, gateway="stripe", currency="USD")
    answer = await command(shop, subscription, "clock", seconds=60)
    assert (answer.status_code, answer.json()["code"]) == (409, "clock_not_available")
