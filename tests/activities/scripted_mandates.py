"""Mandates that answer what the test says, and a method to ask them about."""

from datetime import UTC, date, datetime
from typing import Any

from billing.identifiers import METHOD, make_id
from billing.method import CardFace
from billing.method_messages import MethodOrder
from billing.payment import GatewayName, Redirect
from gateways.gateway import AlreadyOrdered, Opened, Refused
from gateways.mandates import Mandate, MandateObservation, MandateOrder, MandateState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGN_HERE = Redirect(url="https://gateway.example/sign")
CARD = CardFace(brand="visa", last4="4242", expires_month=4, expires_year=2028)
ACTIVE = MandateObservation(MandateState.ACTIVE, "NORMAL", reference="agr_1", card=CARD)
PENDING = MandateObservation(MandateState.PENDING, "TEMP")
ENDED = MandateObservation(MandateState.ENDED, "STOP")


def method_order(number: int = 1, **changed: Any) -> MethodOrder:
    values: dict[str, Any] = {
        "method_id": make_id(METHOD, number, b"\x05" * 10),
        "application": "shop",
        "user_id": "user_1",
        "gateway": GatewayName.ALIPAY,
        "currency": "CNY",
        "most_minor": 9900,
        "every_months": 1,
        "first_charge_on": date(2026, 2, 1),
        "return_url": "https://shop.example/back",
        "created_at": NOW,
    }
    return MethodOrder(**(values | changed))


class ScriptedMandates:
    """`set_up_answer` and `seen` are what it says, or raises; `customer` what it calls whoever is
    enrolled. `ends_when_revoked` says whether revoking does anything. The lists tell what it was
    asked, in order."""

    def __init__(self) -> None:
        self.customer: str | None = "cus_1"
        self.set_up_answer: Opened | Refused | AlreadyOrdered | Exception = Opened(
            SIGN_HERE, "set_1"
        )
        self.seen: MandateObservation | Exception = PENDING
        self.ends_when_revoked = True
        self.revoke_problem: Exception | None = None
        self.enrolled: list[tuple[str, str]] = []
        self.asked: list[MandateOrder] = []
        self.queried: list[Mandate] = []
        self.revoked: list[Mandate] = []

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> str | None:
        self.enrolled.append((application, user_id))
        return self.customer

    async def set_up(self, order: MandateOrder) -> Opened | Refused | AlreadyOrdered:
        self.asked.append(order)
        if isinstance(self.set_up_answer, Exception):
            raise self.set_up_answer
        return self.set_up_answer

    async def query(self, mandate: Mandate) -> MandateObservation:
        self.queried.append(mandate)
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    async def revoke(self, mandate: Mandate) -> None:
        self.revoked.append(mandate)
        if self.revoke_problem is not None:
            raise self.revoke_problem
        if self.ends_when_revoked:
            self.seen = ENDED

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        """It gives no notice."""

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        """It keeps no day."""
