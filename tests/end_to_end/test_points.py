"""Points over HTTP: bought on every gateway, spent by many at once, taken back with their money."""

import asyncio
from typing import Any

import pytest

from tests.end_to_end.buyers import (
    BONUS,
    POINTS,
    buy_points,
    holdings,
    make_user,
    movements,
    order_points,
    spend,
)
from tests.end_to_end.outcomes import until_delivered
from tests.fixtures.house import BASE, METHODS, House

GATEWAYS = tuple(METHODS)


async def preview(house: House, payment_id: str, **fields: int) -> dict[str, Any]:
    answer = await house.api.post(
        f"{BASE}/refund/preview", json={"payment_id": payment_id, **fields}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_bought_and_credited_once_though_told_again(house: House, gateway: str) -> None:
    user = make_user()
    payment = await order_points(house, gateway, user)
    await house.sandbox.fault(
        gateway, "webhook", "duplicate", reference=payment["id"], copies=3, times=2
    )
    await house.pay(payment)
    await house.until_status(payment["id"], "succeeded")
    await until_delivered(house, payment["id"], least=1)
    await house.command(payment["id"], "refresh")
    assert await movements(house, user) == [("purchase", 500, 500), ("bonus", 50, 550)]
    found = await holdings(house, user)
    assert (found["balance"], found["spendable"], found["owed"]) == (550, 550, 0)
    assert [(lot["payment_id"], lot["kind"], lot["remaining"]) for lot in found["lots"]] == [
        (payment["id"], "paid", POINTS),
        (payment["id"], "bonus", BONUS),
    ]
    customer = (await house.api.get(f"{BASE}/customer/{user}")).json()
    assert (customer["points_balance"], customer["created_at"]) == (550, payment["created_at"])


async def test_many_spends_at_once_take_what_there_is(house: House) -> None:
    user = make_user()
    await buy_points(house, "wechatpay", user)
    answers = await asyncio.gather(*(spend(house, user, 45) for _ in range(20)))
    spent = [answer.json() for answer in answers if answer.status_code == 201]
    assert len(spent) == (POINTS + BONUS) // 45
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} == {
        "insufficient_points"
    }
    assert len({one["id"] for one in spent}) == len(spent)
    left = sorted((one["balance_after"] for one in spent), reverse=True)
    assert left == [550 - 45 * turn for turn in range(1, len(spent) + 1)]
    found = await holdings(house, user)
    assert found["balance"] == 10
    # The oldest first: what was paid for goes before the bonus that came with it.
    assert [(lot["kind"], lot["remaining"]) for lot in found["lots"]] == [("bonus", 10)]


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_a_refund_takes_points_back_as_its_preview_says(house: House, gateway: str) -> None:
    user = make_user()
    payment = await buy_points(house, gateway, user)
    part = payment["amount"] // 5
    said = await preview(house, payment["id"], amount=part)
    assert said["points"]["bonus"] == BONUS
    before = await holdings(house, user)
    answer = await house.post_refund(payment["id"], amount=part)
    refund = await house.until_refund(answer.json()["id"])
    assert (refund["status"], refund["amount"]) == ("succeeded", said["amount"])
    found = await holdings(house, user)
    assert found["balance"] == said["points"]["balance_after"]
    taken = before["balance"] - found["balance"]
    assert taken == said["points"]["bonus"] + said["points"]["paid"]
    assert [(lot["kind"], lot["remaining"]) for lot in found["lots"]] == [
        ("paid", POINTS - said["points"]["paid"])
    ]


async def test_a_refund_after_spending_is_reduced_to_what_is_left(house: House) -> None:
    """The shipped catalog's policy."""
    user = make_user()
    payment = await buy_points(house, "stripe", user)
    assert (await spend(house, user, 440)).status_code == 201
    said = await preview(house, payment["id"])
    assert (said["amount"], said["points"]["policy"]) == (payment["amount"] // 5, "reduce")
    answer = await house.post_refund(payment["id"])
    refund = await house.until_refund(answer.json()["id"])
    assert refund["amount"] == said["amount"]
    [charge] = await house.charges(payment["id"])
    assert charge["refunded"] == said["amount"]
    balance = (await holdings(house, user))["balance"]
    assert balance == said["points"]["balance_after"]
    told = await movements(house, user)
    assert told[-1] == ("clawback", balance - 110, balance)


async def test_nothing_goes_back_once_every_point_is_spent(house: House) -> None:
    user = make_user()
    payment = await buy_points(house, "stripe", user)
    assert (await spend(house, user, 550)).status_code == 201
    asked = {"payment_id": payment["id"]}
    previewed = await house.api.post(f"{BASE}/refund/preview", json=asked)
    refused = await house.post_refund(payment["id"])
    for answer in (previewed, refused):
        assert (answer.status_code, answer.json()["code"]) == (409, "points_already_spent")
    [charge] = await house.charges(payment["id"])
    assert charge["refunded"] == 0
    assert [kind for kind, _, _ in await movements(house, user)] == ["purchase", "bonus", "spend"]
