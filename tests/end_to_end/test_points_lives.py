"""Random lives of users over HTTP, each movement through its workflow, beside the reference."""

import asyncio
import random
import secrets
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.end_to_end.buyers import buy_points, holdings, make_user, movements, spend
from tests.fixtures.house import BASE, House
from tests.storage.points_model import Model, Refused

STEPS: Final = 50
LIVES_AT_ONCE: Final = 5

# The packages that a life is made of: points, bonus, and the price in USD (minor units).
PACKAGES: Final = {"points_100": (100, 5, 99), "points_500": (500, 50, 449)}

# Stripe wants no pause between two refunds of one payment.
GATEWAY: Final = "stripe"
POLICY: Final = "reduce"


@dataclass
class Life:
    """One user as the API shows them, and in the model."""

    house: House
    chance: random.Random
    user: str = field(default_factory=make_user)
    model: Model = field(default_factory=Model)

    async def step(self) -> None:
        deeds = [self.buy, self.spend, self.refund, self.fail]
        await self.chance.choices(deeds, [2, 4, 5, 3])[0]()
        found = await holdings(self.house, self.user)
        shown = found["balance"], found["spendable"], found["owed"]
        assert shown == (self.model.balance, self.model.spendable(now()), self.model.debt)
        assert [(lot["payment_id"], lot["kind"], lot["remaining"]) for lot in found["lots"]] == [
            lot[:3] for lot in self.model.lots() if lot[2] > 0
        ]

    async def buy(self) -> None:
        package = self.chance.choice(["points_100", "points_100", "points_500"])
        points, bonus, price = PACKAGES[package]
        payment = await buy_points(self.house, GATEWAY, self.user, package)
        assert (payment["amount"], payment["currency"]) == (price, "USD")
        self.model.buy(payment["id"], price, points, bonus, None, now())

    async def spend(self) -> None:
        points = self.chance.randint(1, 2 + max(1, self.model.spendable(now()) // 2))
        key, status_code = secrets.token_hex(16), 201
        try:
            self.model.spend(points, now())
        except Refused:
            status_code = 409
        answers = [await spend(self.house, self.user, points, key) for _ in range(2)]
        assert {answer.status_code for answer in answers} == {status_code}, answers[0].text
        assert answers[0].json() == answers[1].json()

    async def refund(self) -> None:
        refundable = [one for one in self.model.prices if self.model.left(one) > 0]
        if not refundable:
            return
        payment_id = self.chance.choice(refundable)
        left = self.model.left(payment_id)
        amount = self.chance.choice([left, self.chance.randint(1, left), 1])
        preview = await self.house.api.post(
            f"{BASE}/refund/preview", json={"payment_id": payment_id, "amount": amount}
        )
        answer = await self.house.post_refund(payment_id, amount=amount)
        refund_id = answer.json().get("id", "none")
        word, passed = None, 0
        try:
            passed = self.model.refund(refund_id, payment_id, amount, POLICY, now())
        except Refused as refusal:
            word = refusal.word
        if word is not None:
            for each in (preview, answer):
                assert (each.status_code, each.json()["code"]) == (409, word), each.text
            return
        assert (await self.house.until_refund(refund_id))["amount"] == passed
        told = preview.json()
        assert (told["amount"], told["points"]["balance_after"]) == (passed, self.model.balance)

    async def fail(self) -> None:
        """The bank sends the money of a payment's latest refund back."""
        standing = {one.payment_id: name for name, one in self.model.refunds.items() if one.stands}
        if not standing:
            return
        payment_id, refund_id = self.chance.choice(list(standing.items()))
        answer = await self.house.sandbox.control.post(
            "/control/refunds",
            json={"gateway": GATEWAY, "reference": payment_id, "outcome": "fail"},
        )
        assert answer.status_code == 200, answer.text
        await self.house.until_refund(refund_id, "failed")
        self.model.fail(refund_id, now())


def now() -> datetime:
    """Nothing of these lives expires in them."""
    return datetime.now(UTC)


@pytest.mark.parametrize(
    ("lives", "steps"),
    [
        (2, 15),
        pytest.param(50, STEPS, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
async def test_lives_agree_with_the_reference(house: House, lives: int, steps: int) -> None:
    seed = secrets.randbits(32)
    sys.stdout.write(f"seed {seed}\n")
    places = asyncio.Semaphore(LIVES_AT_ONCE)

    async def live(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        async with places:
            life = Life(house, chance)
            for _ in range(steps):
                await life.step()
            told = await movements(house, life.user)
            assert [one[:2] for one in told] == life.model.movements

    async with asyncio.TaskGroup() as living:
        for number in range(lives):
            living.create_task(live(number))
