"""Users who buy points over HTTP, spend them and look at what is left."""

import secrets
from typing import Any

import httpx

from tests.fixtures.house import BASE, METHODS, House

PACKAGE = "points_500"
POINTS, BONUS = 500, 50
CREDITED = [("purchase", POINTS, POINTS), ("bonus", BONUS, POINTS + BONUS)]
_UNAVAILABLE = 503


def make_user() -> str:
    return f"buyer_{secrets.token_hex(6)}"


async def order_points(
    house: House,
    gateway: str,
    user_id: str,
    package: str = PACKAGE,
    *,
    method: str | None = None,
) -> dict[str, Any]:
    """A purchase of the package that waits for its payer, as the gateway's first method or another;
    sent again, under the same key, while nobody can say yes."""
    first, currency = METHODS[gateway]
    wanted = {
        "user_id": user_id,
        "package": package,
        "currency": currency,
        "gateway": gateway,
        "method": method or first,
    }
    headers, answer = {"Idempotency-Key": secrets.token_hex(16)}, None
    while answer is None or answer.status_code == _UNAVAILABLE:
        answer = await house.api.post(f"{BASE}/points/purchase", json=wanted, headers=headers)
    assert answer.status_code in (201, 202), answer.text
    return await house.until_status(answer.json()["id"], "requires_action")


async def buy_points(
    house: House, gateway: str, user_id: str, package: str = PACKAGE
) -> dict[str, Any]:
    payment = await order_points(house, gateway, user_id, package)
    await house.pay(payment)
    payment = await house.until_status(payment["id"])
    assert payment["status"] == "succeeded"
    return payment


async def spend(house: House, user_id: str, points: int, key: str | None = None) -> httpx.Response:
    return await house.api.post(
        f"{BASE}/points/spend",
        json={"user_id": user_id, "points": points, "reason": "a hint"},
        headers={"Idempotency-Key": key or secrets.token_hex(16)},
    )


async def holdings(house: House, user_id: str) -> dict[str, Any]:
    answer = await house.api.get(f"{BASE}/points/{user_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def movements(house: House, user_id: str) -> list[tuple[str, int, int]]:
    """Kind, amount and balance after, oldest first."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await house.api.get(
            f"{BASE}/points/{user_id}/transactions", params={"limit": 100, **cursor}
        )
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        if not page["has_more"]:
            return [(one["kind"], one["amount"], one["balance_after"]) for one in found[::-1]]
        cursor = {"cursor": page["next_cursor"]}
