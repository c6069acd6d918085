"""Alipay's agreements, from the adapter to the sandbox in its own process."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from billing.errors import AnswerUntrusted, OutcomeUnknown
from billing.identifiers import METHOD, PAYMENT, make_id, mandate_number
from billing.payment import DeclineClass, GatewayName, PaymentMethod, Redirect
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
    MandateRefused,
    Mandates,
    MandateState,
    MandateTerms,
)
from gateways.registry import build_gateways
from runtime.settings import Settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.parties import make_order

_FIRST = date(2027, 3, 10)
_NOON = datetime(2027, 3, 10, 4, 0, tzinfo=UTC)
"""12:00 in Beijing of the first deduct date."""


def _new_id(prefix: str) -> str:
    return make_id(prefix, time.time_ns() // 1_000_000, secrets.token_bytes(10))


@dataclass
class Member:
    """A payer, what is known of their agreement, and the house that charges it."""

    sandbox: SandboxProcess
    gateway: Gateway
    mandate: Mandate

    @property
    def mandates(self) -> Mandates:
        assert self.gateway.mandates is not None
        return self.gateway.mandates

    async def asked(self) -> dict[str, Any]:
        """The next_action of the set-up."""
        months = self.mandate.rhythm_months
        terms = MandateTerms("CNY", 5000, months, _FIRST) if months else MandateTerms("CNY")
        order = MandateOrder(
            method_id=self.mandate.method_id,
            number=self.mandate.number,
            user_id="user 1",
            terms=terms,
            description="Gold membership",
            created_at=_NOON,
            return_url="https://shop.example.com/back?a=1&b=2",
        )
        outcome = await self.mandates.set_up(order)
        assert isinstance(outcome, Opened)
        assert isinstance(outcome.next_action, Redirect)
        return outcome.next_action.model_dump()

    async def sign(self) -> None:
        await self.sandbox.pay(gateway="alipay", next_action=await self.asked())
        seen = await self.mandates.query(self.mandate)
        assert seen.state is MandateState.ACTIVE
        self.mandate = replace(self.mandate, reference=seen.reference)

    async def control(self, what: str, **options: Any) -> None:
        wanted = {"gateway": "alipay", "reference": self.mandate.method_id, **options}
        answer = await self.sandbox.control.post(f"/control/{what}", json=wanted)
        assert answer.status_code == 200, answer.text

    async def at(self, moment: datetime) -> None:
        await self.control("clock", now=moment.isoformat())

    def order(self, **changes: Any) -> Order:
        payment_id = _new_id(PAYMENT)
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        known: dict[str, Any] = {
            "payment_id": payment_id,
            "number": payment_id,
            "mandate": self.mandate,
            "expires_at": expires_at,
        }
        return make_order(PaymentMethod.SAVED, **(known | changes))

    async def charge(self, order: Order | None = None) -> ObservedState:
        order = order or self.order()
        assert await self.gateway.open(order) == AlreadyOrdered()
        return (await self.gateway.query(order)).state

    async def refused(self, order: Order) -> tuple[str, str | None, DeclineClass | None]:
        """Its reason; no money was taken, nor will be."""
        outcome = await self.gateway.open(order)
        assert isinstance(outcome, Refused), outcome
        seen = await self.gateway.query(order)
        assert seen.state in (ObservedState.ABSENT, ObservedState.DEAD)
        failure = outcome.failure
        return failure.code, failure.decline_code, failure.advice

    async def taken(self, order: Order) -> int:
        """How often the order's money was taken."""
        charges = await self.sandbox.charges()
        return sum(charge["number"] == order.number for charge in charges)

    async def planned(self) -> date | None:
        return (await self.mandates.query(self.mandate)).charge_on


async def _member(
    sandbox: SandboxProcess, settings: Settings, months: int | None
) -> AsyncIterator[Member]:
    built = build_gateways(settings)
    method_id = _new_id(METHOD)
    mandate = Mandate(method_id, mandate_number(method_id), rhythm_months=months)
    member = Member(sandbox, built[GatewayName.ALIPAY], mandate)
    yield member
    for gateway in built.values():
        await gateway.aclose()


@pytest.fixture
async def asked(sandbox: SandboxProcess, sandbox_settings: Settings) -> AsyncIterator[Member]:
    async for member in _member(sandbox, sandbox_settings, 1):
        yield member


@pytest.fixture
async def member(asked: Member) -> Member:
    await asked.sign()
    await asked.at(_NOON)
    return asked


@pytest.fixture
async def withheld(sandbox: SandboxProcess, sandbox_settings: Settings) -> AsyncIterator[Member]:
    async for member in _member(sandbox, sandbox_settings, None):
        await member.sign()
        yield member


async def test_an_agreement_is_unknown_until_signed_and_then_tells_its_plan(asked: Member) -> None:
    action = await asked.asked()
    assert (await asked.mandates.query(asked.mandate)).state is MandateState.ABSENT
    await asked.sandbox.decline(gateway="alipay", next_action=action)
    assert (await asked.mandates.query(asked.mandate)).state is MandateState.ABSENT
    await asked.sign()
    seen = await asked.mandates.query(asked.mandate)
    assert (seen.state, seen.status) == (MandateState.ACTIVE, "NORMAL")
    assert (seen.charge_on, seen.most_minor, seen.ends_at) == (_FIRST, 5000, None)
    page = (await asked.sandbox.control.get("/")).text
    assert f"next on {_FIRST}, at most 50.00" in page
    assert asked.mandate.method_id in page


async def test_a_page_that_was_changed_does_not_open(asked: Member) -> None:
    action = await asked.asked()
    forged = action | {"url": action["url"].replace("50.00", "90.00")}
    assert forged != action
    body = {"gateway": "alipay", "next_action": forged}
    answer = await asked.sandbox.control.post("/control/pay", json=body)
    assert answer.status_code == 422
    assert (await asked.mandates.query(asked.mandate)).state is MandateState.ABSENT


async def test_a_payer_signs_at_the_page_in_a_browser(asked: Member) -> None:
    url = (await asked.asked())["url"]
    http = asked.sandbox.control
    page = await http.get(url, follow_redirects=True)
    assert "Agree" in page.text
    assert "Signed" in (await http.post(str(page.url), data={"deed": "agree"})).text
    assert (await asked.mandates.query(asked.mandate)).state is MandateState.ACTIVE


@pytest.mark.parametrize("days", [-5, 0])
async def test_a_charge_within_the_window_is_paid_and_moves_the_plan(
    member: Member, days: int
) -> None:
    await member.at(_NOON + timedelta(days=days))
    assert await member.charge() is ObservedState.PAID
    assert await member.planned() == date(2027, 4, 10)
    window = ("outside_window", "CYCLE_PAY_DATE_NOT_MATCH", DeclineClass.SOFT)
    assert await member.refused(member.order()) == window
    await member.at(datetime(2027, 4, 7, 4, 0, tzinfo=UTC))
    assert await member.charge() is ObservedState.PAID


@pytest.mark.parametrize("days", [-6, 1])
async def test_a_charge_outside_the_window_is_refused(member: Member, days: int) -> None:
    await member.at(_NOON + timedelta(days=days))
    order = member.order()
    window = ("outside_window", "CYCLE_PAY_DATE_NOT_MATCH", DeclineClass.SOFT)
    assert await member.refused(order) == window
    assert await member.taken(order) == 0
    assert await member.planned() == _FIRST


async def test_a_charge_above_the_limit_is_refused(member: Member) -> None:
    cap = ("above_cap", "CYCLE_PAY_SINGLE_FEE_EXCEED", DeclineClass.NEEDS_CUSTOMER)
    assert await member.refused(member.order(amount_minor=5001)) == cap
    assert await member.charge(member.order(amount_minor=5000)) is ObservedState.PAID


async def test_a_declined_charge_is_closed_and_the_plan_stays(member: Member) -> None:
    await member.control("mandate", decline="BUYER_BALANCE_NOT_ENOUGH", times=1)
    order = member.order()
    declined = ("payment_declined", "BUYER_BALANCE_NOT_ENOUGH", DeclineClass.SOFT)
    assert await member.refused(order) == declined
    assert (await member.gateway.query(order)).state is ObservedState.DEAD
    assert await member.gateway.open(order) == AlreadyOrdered()
    assert await member.taken(order) == 0
    assert await member.planned() == _FIRST
    assert await member.charge() is ObservedState.PAID


async def test_a_charge_under_way_is_asked_about_and_paid_later(member: Member) -> None:
    await member.control("mandate", decline="10003")
    order = member.order()
    assert await member.charge(order) is ObservedState.PENDING
    await member.sandbox.pay(gateway="alipay", reference=order.payment_id)
    assert (await member.gateway.query(order)).state is ObservedState.PAID
    assert await member.planned() == date(2027, 4, 10)


async def test_a_plan_moves_later_and_never_earlier(member: Member) -> None:
    later = _FIRST + timedelta(days=4)
    await member.mandates.postpone(member.mandate, later)
    await member.mandates.postpone(member.mandate, later)
    assert await member.planned() == later
    for wrong in (_FIRST, date(2027, 3, 29)):
        with pytest.raises(MandateRefused):
            await member.mandates.postpone(member.mandate, wrong)
    await member.at(_NOON + timedelta(days=4))
    assert await member.charge() is ObservedState.PAID
    assert await member.planned() == date(2027, 4, 14)


@pytest.mark.parametrize("by_payer", [True, False])
async def test_an_agreement_that_ended_is_charged_no_more(member: Member, by_payer: bool) -> None:
    if by_payer:
        await member.control("mandate", end=True)
    await member.mandates.revoke(member.mandate)
    await member.mandates.revoke(replace(member.mandate, reference=None))
    assert (await member.mandates.query(member.mandate)).state is MandateState.ENDED
    hooks = await member.sandbox.webhooks()
    ends = [each for each in hooks if each["number"] == member.mandate.number]
    assert [each["event_type"] for each in ends] == ["dut_user_unsign", "dut_user_sign"]
    assert ends[0]["url"].endswith("/api/v1/payment/webhook/alipay")
    order = member.order()
    ended = ("mandate_ended", "AGREEMENT_STATUS_NOT_NORMAL", DeclineClass.HARD)
    assert await member.refused(order) == ended


@pytest.mark.parametrize("fault", ["cut_before", "cut_after", "http_500", "bad_signature"])
async def test_a_charge_whose_answer_was_lost_is_repeated_and_taken_once(
    member: Member, fault: str
) -> None:
    order = member.order()
    await member.sandbox.fault(
        gateway="alipay", operation="open", fault=fault, reference=order.payment_id
    )
    with pytest.raises(OutcomeUnknown):
        await member.gateway.open(order)
    assert await member.charge(order) is ObservedState.PAID
    assert await member.taken(order) == 1


async def test_a_move_whose_answer_was_lost_is_repeated(member: Member) -> None:
    later = _FIRST + timedelta(days=4)
    method_id = member.mandate.method_id
    await member.sandbox.fault(
        gateway="alipay", operation="mandate", fault="cut_after", reference=method_id
    )
    with pytest.raises(OutcomeUnknown):
        await member.mandates.postpone(member.mandate, later)
    await member.mandates.postpone(member.mandate, later)
    assert await member.planned() == later


async def test_an_answer_about_another_agreement_is_not_believed(member: Member) -> None:
    method_id = member.mandate.method_id
    await member.sandbox.fault(
        gateway="alipay", operation="mandate", fault="wrong_order", reference=method_id
    )
    with pytest.raises(AnswerUntrusted):
        await member.mandates.query(member.mandate)


async def test_general_withholding_is_charged_at_any_time(withheld: Member) -> None:
    seen = await withheld.mandates.query(withheld.mandate)
    assert (seen.charge_on, seen.most_minor) == (None, None)
    for _ in range(2):
        assert await withheld.charge() is ObservedState.PAID
    await withheld.mandates.postpone(withheld.mandate, _FIRST)
    await withheld.mandates.revoke(withheld.mandate)
    assert (await withheld.mandates.query(withheld.mandate)).state is MandateState.ENDED
