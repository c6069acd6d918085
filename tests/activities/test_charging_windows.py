"""Charges by mandate that are asked for later than they were decided upon: never outside their
window, whatever keeps the worker from the call."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from billing.errors import OutcomeUnknown
from billing.payment import DeclineClass, GatewayName, PaymentStatus
from embedded.postgres import PostgresServer
from gateways.gateway import AlreadyOrdered, ObservedState
from storage.database import Database
from tests.activities.charging_desk import Desk
from tests.activities.scripted import NOW
from tests.fixtures.database import DatabaseUrls, fresh_copy

EVENING = datetime(2026, 1, 2, 13, 50, tzinfo=UTC)  # 21:50 in Beijing
NIGHT = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)
MORNING = datetime(2026, 1, 2, 23, 5, tzinfo=UTC)
LIFE = timedelta(hours=23)


class LateDesk(Desk):
    """A worker whose wall time is `now`, and whose windows close at `until`."""

    def __init__(self, database: Database, gateway: GatewayName) -> None:
        super().__init__(database, gateway=gateway, clock=lambda: self.now)
        self.now = EVENING
        self.answers(AlreadyOrdered())
        self.gateway.states[1] = ObservedState.PAID
        self.ordered()

    def ordered(self, until: datetime | None = None, *, clock_ahead: int = 0) -> None:
        ahead = timedelta(seconds=clock_ahead)
        self.order = self.order.model_copy(
            update={
                "expires_at": NOW + LIFE + ahead,
                "charge_until": until,
                "clock_ahead": clock_ahead,
            }
        )

    async def pause(self) -> timedelta:
        """The charge is not asked for; how long until Temporal has it tried again."""
        with pytest.raises(ApplicationError) as held:
            await self.charge()
        assert held.value.type == "outside_window"
        assert held.value.next_retry_delay is not None
        return held.value.next_retry_delay


@pytest.fixture(scope="module")
async def database_urls(
    postgres_server: PostgresServer, template_urls: DatabaseUrls
) -> AsyncIterator[DatabaseUrls]:
    """One database for all tests: each has a user of its own."""
    async with fresh_copy(postgres_server, template_urls) as urls:
        yield urls


@pytest.fixture
async def contract(database: Database) -> LateDesk:
    made = LateDesk(database, GatewayName.WECHATPAY)
    await made.save()
    return made


@pytest.fixture
async def agreement(database: Database) -> LateDesk:
    made = LateDesk(database, GatewayName.ALIPAY)
    await made.save()
    return made


async def test_by_day_it_is_asked_for_at_once(contract: LateDesk) -> None:
    assert (await contract.charge()).payment.status is PaymentStatus.SUCCEEDED
    assert len(contract.orders) == 1


@pytest.mark.parametrize("at", [NIGHT, EVENING + timedelta(minutes=9, seconds=30)], ids=str)
async def test_by_night_it_waits_for_the_morning(contract: LateDesk, at: datetime) -> None:
    contract.now = at
    assert await contract.pause() == MORNING - at
    assert contract.orders == []
    contract.now = MORNING
    assert (await contract.charge()).payment.status is PaymentStatus.SUCCEEDED
    assert len(contract.orders) == 1


async def test_night_is_by_the_clock_of_the_subscription(contract: LateDesk) -> None:
    contract.ordered(clock_ahead=12 * 3600)
    contract.now = NIGHT
    assert (await contract.charge()).payment.status is PaymentStatus.SUCCEEDED
    assert len(contract.orders) == 1


@pytest.mark.parametrize("until", [NIGHT, MORNING], ids=["last day", "first hours"])
async def test_a_window_that_opens_no_more_is_a_soft_decline(
    contract: LateDesk, until: datetime
) -> None:
    contract.ordered(until)
    contract.now = NIGHT
    for _ in range(2):
        payment = (await contract.charge()).payment
        assert payment.status is PaymentStatus.FAILED
        assert payment.failure is not None
        assert (payment.failure.code, payment.failure.advice) == (
            "outside_window",
            DeclineClass.SOFT,
        )
    assert contract.orders == []


async def test_a_morning_that_comes_too_late_is_a_soft_decline(contract: LateDesk) -> None:
    contract.order = contract.order.model_copy(update={"expires_at": NIGHT + timedelta(hours=8)})
    contract.now = NIGHT
    assert (await contract.charge()).payment.status is PaymentStatus.FAILED
    assert contract.orders == []


async def test_an_agreement_is_charged_by_night_and_not_after_its_date(
    agreement: LateDesk,
) -> None:
    agreement.ordered(until=NIGHT)
    agreement.now = NIGHT
    payment = (await agreement.charge()).payment
    assert payment.failure is not None
    assert (payment.failure.code, agreement.orders) == ("outside_window", [])


async def test_an_agreement_knows_no_night(agreement: LateDesk) -> None:
    agreement.ordered(until=MORNING)
    agreement.now = NIGHT
    assert (await agreement.charge()).payment.status is PaymentStatus.SUCCEEDED


class TestWithAnUnknownOutcome:
    @pytest.fixture(autouse=True)
    async def asked(self, contract: LateDesk) -> None:
        contract.answers(OutcomeUnknown("cut"))
        with pytest.raises(ApplicationError):
            await contract.charge()
        contract.answers(AlreadyOrdered())
        contract.orders.clear()
        contract.now = NIGHT

    async def test_what_was_taken_is_learnt_by_night(self, contract: LateDesk) -> None:
        assert (await contract.charge()).payment.status is PaymentStatus.SUCCEEDED
        assert contract.orders == []

    async def test_what_is_under_way_is_processing(self, contract: LateDesk) -> None:
        contract.gateway.states[1] = ObservedState.PROCESSING
        assert (await contract.charge()).payment.status is PaymentStatus.PROCESSING
        assert contract.orders == []

    async def test_a_decline_fails_it(self, contract: LateDesk) -> None:
        contract.gateway.states[1] = ObservedState.DEAD
        assert (await contract.charge()).payment.status is PaymentStatus.FAILED
        assert contract.orders == []

    async def test_what_is_not_there_is_asked_after_until_the_morning(
        self, contract: LateDesk
    ) -> None:
        contract.gateway.states[1] = ObservedState.ABSENT
        assert timedelta() < await contract.pause() <= timedelta(minutes=10)
        contract.now = MORNING - timedelta(minutes=6)
        assert await contract.pause() == timedelta(minutes=6)
        assert contract.orders == []
        contract.now = MORNING
        contract.gateway.states[1] = ObservedState.PAID
        assert (await contract.charge()).payment.status is PaymentStatus.SUCCEEDED
        assert len(contract.orders) == 1

    async def test_it_is_never_failed_unknown(self, contract: LateDesk) -> None:
        contract.ordered(until=NIGHT)
        contract.gateway.states[1] = ObservedState.ABSENT
        assert timedelta() < await contract.pause() <= timedelta(minutes=10)
