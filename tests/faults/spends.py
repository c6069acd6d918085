"""Spends of points that a core worker does not live to answer."""

import secrets

import httpx

from billing.payment import GatewayName
from tests.end_to_end.buyers import buy_points, movements, spend
from tests.faults.cells import SPEND
from tests.faults.crash_points import CrashPoint, CrashPoints
from tests.fixtures.house import House

_CREATED = 201
_UNAVAILABLE = 503


async def play(
    house: House, points: CrashPoints, place: str, amount: int, status_code: int
) -> None:
    """A spend through the death of the core worker that carries it out: sent again under its
    key, it gets the one answer there is, and its points are gone once, or not at all."""
    user_id = f"{SPEND}-{status_code}-{place}"
    await buy_points(house, GatewayName.STRIPE, user_id)
    before = await movements(house, user_id)
    point, key = CrashPoint(SPEND, place, user_id), secrets.token_hex(16)
    points.arm(point)
    answers = [await _spend(house, user_id, amount, key) for _ in range(2)]
    assert points.has_fired(point)
    assert [answer.status_code for answer in answers] == [status_code] * 2, answers[0].text
    assert answers[0].json() == answers[1].json()
    after = await movements(house, user_id)
    spent = [("spend", -amount, before[-1][2] - amount)] if status_code == _CREATED else []
    assert after == before + spent


async def _spend(house: House, user_id: str, amount: int, key: str) -> httpx.Response:
    while True:
        answer = await spend(house, user_id, amount, key)
        if answer.status_code != _UNAVAILABLE:
            return answer
