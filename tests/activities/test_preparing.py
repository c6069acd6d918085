"""Mandates made ready for a charge: announced or moved where their gateway wants that, once, and
left alone where they cannot carry it."""

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from activities.method import MethodActivities
from activities.preparing import PreparingActivities
from billing.method_messages import MethodOrder, OpenMethod, SettleMethod
from billing.payment import Failure, GatewayName, PaymentMethod, PaymentStatus
from billing.rails import ALIPAY_TRIES, alipay_window, wechat_window
from billing.subscription import StepKind
from billing.subscription_messages import Announced, PrepareCharge, PreparedCharge
from gateways.mandates import Mandate, MandateObservation, MandateRefused, MandateState
from storage.database import Database
from tests.activities.scripted import ScriptedGateway, order
from tests.activities.scripted_mandates import ENDED, ScriptedMandates, method_order

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)  # in Beijing
SIGNED = NOON - timedelta(days=90)
NOT_NOW = Failure(code="refused", message="not now")
UNREADY = PreparedCharge(is_ready=False)
_numbers = itertools.count(500)


class TellingMandates(ScriptedMandates):
    """Tells what it was given notice of (minor units), and to which days it was moved."""

    def __init__(self, seen: MandateObservation) -> None:
        super().__init__()
        self.seen = seen
        self.refuses = False
        self.announced: list[int] = []
        self.moved: list[date] = []

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        if self.refuses:
            raise MandateRefused(NOT_NOW)
        self.announced.append(amount_minor)

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        if self.refuses:
            raise MandateRefused(NOT_NOW)
        self.moved.append(charge_on)


class Desk:
    """One active mandate of a user of its own, and the worker that prepares it."""

    def __init__(self, database: Database, gateway: GatewayName, **seen: Any) -> None:
        standing = MandateObservation(MandateState.ACTIVE, "NORMAL", reference="agr_1", **seen)
        self._database = database
        self.mandates = TellingMandates(standing)
        self.gateway = gateway
        number = next(_numbers)
        self.method: MethodOrder = method_order(
            number,
            user_id=f"user_{number}",
            gateway=gateway,
            every_months=1 if seen.get("charge_on") else None,
        )
        scripted = ScriptedGateway()
        scripted.mandates = self.mandates
        gateways = {gateway: scripted}
        self.preparing = PreparingActivities(database, gateways)
        self._methods = MethodActivities(database, gateways)

    async def save(self) -> "Desk":
        now = SIGNED
        await self._methods.open(OpenMethod(order=self.method, now=now))
        await self._methods.settle(
            SettleMethod(method_id=self.method.method_id, gateway=self.gateway, now=now)
        )
        return self

    async def declined(self, at: datetime, *, was_asked: bool = True) -> None:
        """A payment charged to it that brought no money."""
        payment = order(next(_numbers)).model_copy(
            update={
                "user_id": self.method.user_id,
                "gateway": self.gateway,
                "method": PaymentMethod.SAVED,
                "payment_method_id": self.method.method_id,
                "created_at": at,
            }
        )
        async with self._database.begin() as work:
            await work.payments.insert(payment, at)
            word = "declined" if was_asked else None
            await work.attempts.set(payment.payment_id, 1, gateway_status=word, now=at)
            await work.payments.move(
                payment.payment_id, PaymentStatus.FAILED, failure=NOT_NOW, now=at
            )

    async def prepare(self, **changed: Any) -> PreparedCharge:
        values: dict[str, Any] = {
            "subscription_id": "sub_1",
            "gateway": self.gateway,
            "method_id": self.method.method_id,
            "kind": StepKind.RENEWAL,
            "amount": 1800,
            "currency": "CNY",
            "due_at": NOON,
            "number": 2,
            "now": NOON,
        }
        return await self.preparing.prepare(PrepareCharge(**(values | changed)))


@pytest.fixture
async def contract(database: Database) -> Desk:
    return await Desk(database, GatewayName.WECHATPAY, signed_at=SIGNED).save()


@pytest.fixture
async def agreement(database: Database) -> Desk:
    return await Desk(database, GatewayName.ALIPAY, charge_on=date(2026, 3, 12)).save()


class TestContract:
    async def test_is_announced_and_then_charged_in_its_days(self, contract: Desk) -> None:
        told = await contract.prepare(now=NOON - timedelta(days=3))
        assert (told.is_ready, contract.mandates.announced) == (False, [1800])
        assert told.announced is not None
        assert told.at is not None
        ready = await contract.prepare(now=told.at, announced=told.announced)
        assert (ready.is_ready, contract.mandates.announced) == (True, [1800])
        assert ready.until == wechat_window(told.announced).closes_at

    @pytest.mark.parametrize(
        "other", [{"number": 1}, {"method_id": "pm_other"}, {"amount": 1700}], ids=str
    )
    async def test_is_announced_anew_where_something_else_was(
        self, contract: Desk, other: dict[str, Any]
    ) -> None:
        given: dict[str, Any] = {
            "number": 2,
            "amount": 1800,
            "method_id": contract.method.method_id,
        } | other
        announced = Announced(sent_at=NOON - timedelta(days=4), **given)
        told = await contract.prepare(announced=announced)
        assert (told.is_ready, contract.mandates.announced) == (False, [1800])
        assert told.announced != announced

    async def test_is_not_called_by_night(self, contract: Desk) -> None:
        night = NOON + timedelta(hours=11)
        told = await contract.prepare(now=night)
        assert (told.is_ready, told.announced, contract.mandates.announced) == (False, None, [])
        assert told.at is not None
        assert timedelta(hours=7) < told.at - night < timedelta(hours=10)

    async def test_that_is_new_is_charged_at_once(self, database: Database) -> None:
        new = await Desk(database, GatewayName.WECHATPAY, signed_at=NOON).save()
        told = await new.prepare(kind=StepKind.SIGN_UP, now=NOON + timedelta(minutes=5))
        assert (told.is_ready, new.mandates.announced) == (True, [])
        assert told.until == NOON + timedelta(hours=12)

    async def test_does_not_carry_what_is_no_period(self, contract: Desk) -> None:
        assert await contract.prepare(kind=StepKind.CHANGE) == UNREADY

    async def test_is_not_announced_for_what_is_not_waited_for(self, contract: Desk) -> None:
        """The customer who resumes pays at once, by hand."""
        told = await contract.prepare(kind=StepKind.RESUMPTION, may_wait=False)
        assert (told, contract.mandates.announced) == (UNREADY, [])
        waiting = await contract.prepare(kind=StepKind.RESUMPTION)
        assert (waiting.announced is not None, contract.mandates.announced) == (True, [1800])

    async def test_that_takes_no_notice_carries_nothing(self, contract: Desk) -> None:
        contract.mandates.refuses = True
        assert await contract.prepare() == UNREADY


class TestAgreement:
    async def test_is_charged_within_its_window(self, agreement: Desk) -> None:
        told = await agreement.prepare()
        assert (told.is_ready, agreement.mandates.moved) == (True, [])
        assert told.until == datetime(2026, 3, 12, 16, tzinfo=UTC)  # its midnight in Beijing

    async def test_waits_for_its_window(self, agreement: Desk) -> None:
        early = NOON - timedelta(days=20)
        told = await agreement.prepare(now=early, due_at=early)
        assert not told.is_ready
        assert told.at is not None
        assert early < told.at < NOON

    async def test_is_not_waited_for_beyond_what_a_late_date_takes(self, agreement: Desk) -> None:
        """One of a longer rhythm, or to which something else was charged, would bring no money for
        months, and nobody would be asked for it."""
        early = NOON - timedelta(days=28)
        assert await agreement.prepare(now=early, due_at=early) == UNREADY
        assert await agreement.prepare(kind=StepKind.PAYMENT, now=early, due_at=early) == UNREADY

    async def test_that_missed_its_date_is_moved_and_charged(self, agreement: Desk) -> None:
        late = NOON + timedelta(days=6)
        told = await agreement.prepare(now=late)
        [moved] = agreement.mandates.moved
        assert moved > date(2026, 3, 12)
        assert told.at is not None

    async def test_that_is_not_moved_carries_nothing(self, agreement: Desk) -> None:
        agreement.mandates.refuses = True
        assert await agreement.prepare(now=NOON + timedelta(days=6)) == UNREADY

    async def test_whose_tries_are_used_up_waits_for_another_window(self, agreement: Desk) -> None:
        deduct_on = date(2026, 3, 12)
        opened = alipay_window(deduct_on).opens_at
        await agreement.declined(opened - timedelta(hours=1))
        await agreement.declined(opened + timedelta(hours=2), was_asked=False)
        for hours in range(1, ALIPAY_TRIES):
            await agreement.declined(opened + timedelta(hours=hours))
        assert (await agreement.prepare()).is_ready
        await agreement.declined(NOON)
        later = NOON + timedelta(hours=1)
        assert await agreement.prepare(now=later, may_wait=False) == UNREADY
        assert agreement.mandates.moved == []
        told = await agreement.prepare(now=later)
        [moved] = agreement.mandates.moved
        assert not told.is_ready
        assert told.at is not None
        assert told.at > alipay_window(deduct_on).closes_at
        agreement.mandates.seen = MandateObservation(
            MandateState.ACTIVE, "NORMAL", reference="agr_1", charge_on=moved
        )
        again = await agreement.prepare(now=later + timedelta(hours=1))
        assert (again.is_ready, again.at) == (False, told.at)
        assert (await agreement.prepare(now=told.at)).is_ready
        assert agreement.mandates.moved == [moved]

    async def test_that_missed_its_date_after_many_tries_waits_too(self, agreement: Desk) -> None:
        closed = alipay_window(date(2026, 3, 12)).closes_at
        for hours in range(1, ALIPAY_TRIES + 1):
            await agreement.declined(closed - timedelta(hours=hours))
        told = await agreement.prepare(now=closed + timedelta(hours=8))
        [moved] = agreement.mandates.moved
        assert alipay_window(moved).opens_at > closed
        assert told.at is not None
        assert (told.is_ready, alipay_window(moved).contains(told.at)) == (False, True)

    async def test_without_a_rhythm_is_charged_when_due(self, database: Database) -> None:
        free = await Desk(database, GatewayName.ALIPAY).save()
        assert (await free.prepare(kind=StepKind.CHANGE)).is_ready
        early = await free.prepare(now=NOON - timedelta(days=1))
        assert (early.is_ready, early.at) == (False, NOON)


@pytest.mark.parametrize(
    ("gateway", "seen"),
    [
        (GatewayName.WECHATPAY, {"signed_at": SIGNED}),
        (GatewayName.ALIPAY, {"charge_on": date(2026, 3, 12)}),
    ],
)
async def test_what_has_ended_or_is_signed_for_less_carries_nothing(
    database: Database, gateway: GatewayName, seen: dict[str, Any]
) -> None:
    mandated = await Desk(database, gateway, **seen).save()
    assert mandated.method.most_minor == 9900
    assert await mandated.prepare(amount=9901) == UNREADY
    assert mandated.mandates.announced == []
    assert await mandated.prepare(amount=9900) != UNREADY
    mandated.mandates.seen = ENDED
    assert await mandated.prepare() == UNREADY


async def test_a_card_has_no_windows_and_the_limit_of_its_consent(database: Database) -> None:
    card = await Desk(database, GatewayName.STRIPE).save()
    night = NOON + timedelta(hours=12)
    assert await card.prepare(amount=9900, now=night) == PreparedCharge(is_ready=True, at=night)
    assert await card.prepare(amount=9901) == UNREADY
