"""A payer who signs a contract at the sandbox, and the house that charges it."""

import secrets
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from billing.identifiers import PAYMENT, attempt_number, make_id
from billing.payment import DeclineClass, PaymentMethod, Redirect
from gateways.gateway import (
    AlreadyOrdered,
    Gateway,
    ObservedState,
    Opened,
    Order,
    Refused,
)
from gateways.mandates import (
    Mandate,
    MandateOrder,
    Mandates,
    MandateState,
    MandateTerms,
)
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.parties import make_order

NOON = datetime(2027, 3, 10, 4, 0, tzinfo=UTC)
"""12:00 in Beijing."""


def new_id(prefix: str) -> str:
    return make_id(prefix, time.time_ns() // 1_000_000, secrets.token_bytes(10))


@dataclass
class Member:
    """A payer, what is known of their contract, and the house that charges it."""

    sandbox: SandboxProcess
    gateway: Gateway
    mandate: Mandate

    @property
    def mandates(self) -> Mandates:
        assert self.gateway.mandates is not None
        return self.gateway.mandates

    async def asked(self) -> dict[str, Any]:
        """The next_action of the set-up."""
        order = MandateOrder(
            method_id=self.mandate.method_id,
            number=self.mandate.number,
            user_id="user 1 & 会员",
            terms=MandateTerms("CNY"),
            description="Gold membership",
            created_at=NOON,
            return_url="https://shop.example.com/back",
        )
        outcome = await self.mandates.set_up(order)
        assert outcome == await self.mandates.set_up(order)
        assert isinstance(outcome, Opened)
        assert isinstance(outcome.next_action, Redirect)
        return outcome.next_action.model_dump()

    async def sign(self) -> None:
        await self.sandbox.pay(gateway="wechatpay", next_action=await self.asked())
        seen = await self.mandates.query(self.mandate)
        assert seen.state is MandateState.ACTIVE
        self.mandate = replace(self.mandate, reference=seen.reference)

    async def at(self, moment: datetime) -> None:
        """Set business time."""
        await self.control("clock", now=moment.isoformat())

    async def control(self, what: str, **options: Any) -> None:
        wanted = {"gateway": "wechatpay", "reference": self.mandate.method_id, **options}
        answer = await self.sandbox.control.post(f"/control/{what}", json=wanted)
        assert answer.status_code == 200, answer.text

    async def announced(self, at: datetime) -> None:
        """Announce a charge then, and wait until it may be made."""
        await self.at(at)
        await self.mandates.announce(self.mandate, 2905, "CNY")
        await self.at(at + timedelta(days=3))

    def order(self, **changes: Any) -> Order:
        payment_id = new_id(PAYMENT)
        number = attempt_number(payment_id, 1)
        return make_order(
            PaymentMethod.SAVED,
            payment_id=payment_id,
            number=number,
            mandate=self.mandate,
            description="Gold ]]> <b> 会员\x00",
            **changes,
        )

    async def refused(self, order: Order) -> tuple[str, str | None, DeclineClass | None]:
        outcome = await self.gateway.open(order)
        assert isinstance(outcome, Refused), outcome
        assert (await self.gateway.query(order)).state is ObservedState.ABSENT
        failure = outcome.failure
        return failure.code, failure.decline_code, failure.advice

    async def charge(self, order: Order | None = None) -> ObservedState:
        order = order or self.order()
        assert await self.gateway.open(order) == AlreadyOrdered()
        return (await self.gateway.query(order)).state
