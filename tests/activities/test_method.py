"""What the activities of a saved method do to the record, with scripted mandates."""

import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select
from temporalio.exceptions import ApplicationError

from activities.method import DESCRIPTION, MethodActivities
from billing.errors import AnswerUntrusted, GatewayMisconfigured, GatewayThrottled, OutcomeUnknown
from billing.identifiers import make_id, mandate_number
from billing.method import MethodStatus
from billing.method_messages import (
    MakeDefault,
    MethodOrder,
    MethodStanding,
    OpenMethod,
    RevokeMethod,
    SettleMethod,
)
from billing.payment import Failure, GatewayName, NoAction, PaymentMethod, PaymentStatus
from embedded.postgres import PostgresServer
from gateways.gateway import AlreadyOrdered, Refused
from gateways.mandates import MandateObservation, MandateState
from storage.database import Database
from storage.method_rows import MethodRecord
from storage.tables import events
from tests.activities.scripted import ScriptedGateway
from tests.activities.scripted import order as payment_order
from tests.activities.scripted_mandates import (
    ACTIVE,
    CARD,
    ENDED,
    NOW,
    PENDING,
    SIGN_HERE,
    ScriptedMandates,
    method_order,
)
from tests.fixtures.database import DatabaseUrls, fresh_copy

EXPIRED = Failure(code="setup_expired", message="too late")
UNKNOWN = MandateObservation(MandateState.UNRECOGNISED, "HALF_SIGNED")
ABSENT = MandateObservation(MandateState.ABSENT, "NOT_EXIST")


_numbers = itertools.count(1)


class Desk:
    """The activities of one worker, a user with a method, and what is in the record of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.order = self.another()
        self.mandates = ScriptedMandates()
        self.gateway = ScriptedGateway()
        self.gateway.mandates = self.mandates
        self.activities = MethodActivities(database, {GatewayName.ALIPAY: self.gateway})

    def another(self) -> MethodOrder:
        """An order of another user."""
        number = next(_numbers)
        return method_order(number, user_id=f"user_{number}")

    async def open(self, order: MethodOrder | None = None) -> MethodStanding:
        return await self.activities.open(OpenMethod(order=order or self.order, now=NOW))

    async def settle(
        self,
        seen: MandateObservation | Exception | None = None,
        order: MethodOrder | None = None,
    ) -> MethodStanding:
        if seen is not None:
            self.mandates.seen = seen
        return await self.activities.settle(
            SettleMethod(
                method_id=(order or self.order).method_id,
                gateway=GatewayName.ALIPAY,
                now=NOW + timedelta(minutes=1),
            )
        )

    async def revoke(
        self,
        status: MethodStatus = MethodStatus.ENDED,
        failure: Failure | None = None,
        order: MethodOrder | None = None,
        *,
        is_forced: bool = True,
    ) -> MethodStanding:
        return await self.activities.revoke(
            RevokeMethod(
                method_id=self.order.method_id,
                gateway=GatewayName.ALIPAY,
                status=status,
                failure=failure,
                order=order,
                is_forced=is_forced,
                now=NOW + timedelta(minutes=2),
            )
        )

    async def record(self) -> MethodRecord:
        async with self.database.single() as work:
            return await work.methods.found(self.order.method_id)

    async def events(self) -> list[str]:
        async with self.database.single() as work:
            found = await work.connection.execute(
                select(events.c.type)
                .where(events.c.object_id == self.order.method_id)
                .order_by(events.c.sequence)
            )
            return [type.removeprefix("method.") for type in found.scalars()]


@pytest.fixture(scope="module")
async def database_urls(
    postgres_server: PostgresServer, template_urls: DatabaseUrls
) -> AsyncIterator[DatabaseUrls]:
    """One database for all tests: each has a user of its own."""
    async with fresh_copy(postgres_server, template_urls) as urls:
        yield urls


@pytest.fixture
async def desk(database: Database) -> Desk:
    return Desk(database)


class TestOpen:
    async def test_asks_for_consent_once_whatever_is_repeated(self, desk: Desk) -> None:
        for _ in range(2):
            standing = await desk.open()
            assert standing.method.status is MethodStatus.PENDING
            assert standing.method.next_action == SIGN_HERE
        (asked,) = desk.mandates.asked
        assert (asked.number, asked.customer_reference) == (
            mandate_number(desk.order.method_id),
            "cus_1",
        )
        assert (asked.description, asked.return_url) == (DESCRIPTION, desk.order.return_url)
        assert (asked.terms.most_minor, asked.terms.every_months) == (9900, 1)
        assert asked.terms.first_charge_on == desk.order.first_charge_on
        assert desk.mandates.enrolled == [("shop", desk.order.user_id)]
        record = await desk.record()
        assert record.mandate.customer_reference == "cus_1"
        assert record.mandate.setup_reference == "set_1"
        assert await desk.events() == ["created"]

    @pytest.mark.parametrize("problem", [OutcomeUnknown("cut"), GatewayThrottled("slow down")])
    async def test_an_unknown_outcome_is_asked_again_with_identical_parameters(
        self, desk: Desk, problem: Exception
    ) -> None:
        answer, desk.mandates.set_up_answer = desk.mandates.set_up_answer, problem
        with pytest.raises(ApplicationError):
            await desk.open()
        assert (await desk.record()).method.status is MethodStatus.PENDING
        desk.mandates.set_up_answer, desk.mandates.customer = answer, "cus_other"
        assert (await desk.open()).method.next_action == SIGN_HERE
        first, again = desk.mandates.asked
        assert first == again
        assert desk.mandates.enrolled == [("shop", desk.order.user_id)]

    async def test_a_customer_is_enrolled_once_for_all_methods(self, desk: Desk) -> None:
        await desk.open()
        other = desk.another()
        await desk.open(other.model_copy(update={"user_id": desk.order.user_id}))
        third = desk.another()
        await desk.open(third)
        users = [desk.order.user_id, third.user_id]
        assert desk.mandates.enrolled == [("shop", user_id) for user_id in users]
        assert [order.customer_reference for order in desk.mandates.asked] == ["cus_1"] * 3

    async def test_a_gateway_without_customers_is_told_of_none(self, desk: Desk) -> None:
        desk.mandates.customer = None
        await desk.open()
        assert desk.mandates.asked[0].customer_reference is None
        assert (await desk.record()).mandate.customer_reference is None

    async def test_a_refusal_ends_it(self, desk: Desk) -> None:
        refusal = Failure(code="terms_refused", message="it takes no such amount")
        desk.mandates.set_up_answer = Refused(refusal)
        for _ in range(2):
            standing = await desk.open()
            assert (standing.method.status, standing.is_released) == (MethodStatus.FAILED, True)
            assert standing.method.failure == refusal
        assert len(desk.mandates.asked) == 1
        assert await desk.events() == ["created", "failed"]

    @pytest.mark.parametrize("kind", ["off", "without mandates", "misconfigured"])
    async def test_a_gateway_that_saves_nothing_is_a_refusal(self, desk: Desk, kind: str) -> None:
        if kind == "off":
            desk.activities = MethodActivities(desk.database, {})
        elif kind == "without mandates":
            desk.gateway.mandates = None
        else:
            desk.mandates.set_up_answer = GatewayMisconfigured("no product there")
        standing = await desk.open()
        assert standing.method.status is MethodStatus.FAILED
        assert standing.method.failure is not None
        assert standing.method.failure.code == "gateway_misconfigured"

    @pytest.mark.parametrize(
        ("seen", "status"),
        [
            (ACTIVE, MethodStatus.ACTIVE),
            (PENDING, MethodStatus.PENDING),
            (ABSENT, MethodStatus.PENDING),
            (ENDED, MethodStatus.ENDED),
        ],
    )
    async def test_one_that_the_payer_has_answered_is_looked_up(
        self, desk: Desk, seen: MandateObservation, status: MethodStatus
    ) -> None:
        desk.mandates.set_up_answer, desk.mandates.seen = AlreadyOrdered(), seen
        standing = await desk.open()
        assert standing.method.status is status
        assert standing.method.next_action == NoAction()
        assert desk.mandates.queried[0].customer_reference == "cus_1"


class TestSettle:
    async def test_consent_makes_it_chargeable_once(self, desk: Desk) -> None:
        await desk.open()
        assert (await desk.settle()).method.next_action == SIGN_HERE
        ends_at = NOW + timedelta(days=365)
        for _ in range(2):
            standing = await desk.settle(replace(ACTIVE, most_minor=5000, ends_at=ends_at))
        method = standing.method
        assert (method.status, method.card, method.most) == (MethodStatus.ACTIVE, CARD, 5000)
        assert (method.is_default, method.ends_at) == (True, ends_at)
        assert method.next_action == NoAction()
        assert (await desk.record()).mandate.reference == "agr_1"
        assert await desk.events() == ["created", "activated"]

    async def test_no_consent_ends_it(self, desk: Desk) -> None:
        await desk.open()
        standing = await desk.settle(MandateObservation(MandateState.FAILED, "REFUSED"))
        assert (standing.method.status, standing.is_released) == (MethodStatus.FAILED, True)
        assert standing.method.failure is not None
        assert standing.method.failure.code == "consent_refused"
        # What ended so is asked about again at a late report, and stays as it is.
        assert (await desk.settle(PENDING)).method.status is MethodStatus.FAILED

    @pytest.mark.parametrize("state", [MandateState.ENDED, MandateState.FAILED])
    async def test_the_payers_own_end_of_it(self, desk: Desk, state: MandateState) -> None:
        await desk.open()
        await desk.settle(ACTIVE)
        standing = await desk.settle(MandateObservation(state, "UNSIGN"))
        assert (standing.method.status, standing.is_released) == (MethodStatus.ENDED, True)
        assert not standing.method.is_default
        assert await desk.events() == ["created", "activated", "ended"]

    @pytest.mark.parametrize("seen", [UNKNOWN, ABSENT, PENDING])
    async def test_what_makes_no_sense_of_an_active_one_changes_nothing(
        self, desk: Desk, seen: MandateObservation
    ) -> None:
        await desk.open()
        await desk.settle(ACTIVE)
        standing = await desk.settle(seen)
        assert (standing.method.status, standing.needs_attention) == (MethodStatus.ACTIVE, True)
        assert (await desk.record()).gateway_status == seen.status
        assert not (await desk.settle(ACTIVE)).needs_attention

    async def test_an_answer_that_cannot_be_trusted_changes_nothing(self, desk: Desk) -> None:
        await desk.open()
        standing = await desk.settle(AnswerUntrusted("merchant_mismatch", "another's"))
        assert (standing.method.status, standing.needs_attention) == (MethodStatus.PENDING, True)

    async def test_an_unknown_outcome_is_to_be_repeated(self, desk: Desk) -> None:
        await desk.open()
        with pytest.raises(ApplicationError) as unknown:
            await desk.settle(OutcomeUnknown("cut"))
        assert (unknown.value.type, unknown.value.non_retryable) == ("outcome_unknown", False)

    async def test_unless_it_is_in_use(self, desk: Desk) -> None:
        """Looked at in the transaction that ends it: a charge that was begun since the command was
        given is seen."""
        await desk.open()
        await desk.settle(ACTIVE)
        payment = payment_order().model_copy(
            update={
                "payment_id": make_id("pay", secrets.randbits(40), b"\x02" * 10),
                "user_id": desk.order.user_id,
                "method": PaymentMethod.SAVED,
                "payment_method_id": desk.order.method_id,
            }
        )
        async with desk.database.begin() as work:
            await work.payments.insert(payment, NOW)
        with pytest.raises(ApplicationError) as refusal:
            await desk.revoke(is_forced=False)
        assert (refusal.value.type, refusal.value.non_retryable) == ("method_in_use", True)
        assert (await desk.record()).method.status is MethodStatus.ACTIVE
        assert desk.mandates.revoked == []
        async with desk.database.begin() as work:
            await work.payments.move(
                payment.payment_id, PaymentStatus.FAILED, failure=EXPIRED, now=NOW
            )
        for _ in range(2):
            assert (await desk.revoke(is_forced=False)).method.status is MethodStatus.ENDED

    async def test_consent_given_after_the_end_is_still_to_be_revoked(self, desk: Desk) -> None:
        await desk.open()
        assert (await desk.revoke(MethodStatus.FAILED, EXPIRED)).is_released
        standing = await desk.settle(ACTIVE)
        assert (standing.method.status, standing.is_released) == (MethodStatus.FAILED, False)
        async with desk.database.single() as work:
            assert desk.order.method_id in await work.methods.unfinished(None, 100)
        standing = await desk.revoke()
        assert (standing.method.status, standing.is_released) == (MethodStatus.FAILED, True)
        assert standing.method.failure == EXPIRED
        assert len(desk.mandates.revoked) == 2


class TestRevoke:
    async def test_ends_here_and_at_the_gateway_once(self, desk: Desk) -> None:
        await desk.open()
        await desk.settle(ACTIVE)
        for _ in range(2):
            standing = await desk.revoke()
            assert (standing.method.status, standing.is_released) == (MethodStatus.ENDED, True)
        (revoked,) = desk.mandates.revoked
        assert (revoked.reference, revoked.number) == (
            "agr_1",
            mandate_number(desk.order.method_id),
        )
        assert await desk.events() == ["created", "activated", "ended"]

    async def test_nothing_is_charged_while_the_gateway_is_silent(self, desk: Desk) -> None:
        await desk.open()
        await desk.settle(ACTIVE)
        desk.mandates.revoke_problem = OutcomeUnknown("cut")
        with pytest.raises(ApplicationError):
            await desk.revoke()
        record = await desk.record()
        assert (record.method.status, record.is_released) == (MethodStatus.ENDED, False)
        desk.mandates.revoke_problem = None
        assert (await desk.revoke()).is_released
        assert await desk.events() == ["created", "activated", "ended"]

    async def test_goes_on_until_the_gateway_says_that_it_has_ended(self, desk: Desk) -> None:
        await desk.open()
        await desk.settle(ACTIVE)
        desk.mandates.ends_when_revoked = False
        with pytest.raises(ApplicationError) as unfinished:
            await desk.revoke()
        assert not unfinished.value.non_retryable
        desk.mandates.ends_when_revoked = True
        assert (await desk.revoke()).is_released

    async def test_a_set_up_that_expires_is_no_end_of_an_active_one(self, desk: Desk) -> None:
        await desk.open()
        await desk.settle(ACTIVE)
        standing = await desk.revoke(MethodStatus.FAILED, EXPIRED)
        assert standing.method.status is MethodStatus.ACTIVE
        assert desk.mandates.revoked == []

    async def test_of_one_that_was_never_opened(self, desk: Desk) -> None:
        standing = await desk.revoke(order=desk.order)
        assert (standing.method.status, standing.is_released) == (MethodStatus.ENDED, True)
        assert (await desk.open()).method.status is MethodStatus.ENDED
        assert desk.mandates.asked == []


class TestDefault:
    async def test_takes_the_place_of_another(self, desk: Desk) -> None:
        other = desk.another().model_copy(update={"user_id": desk.order.user_id})
        for order in (other, desk.order):
            await desk.open(order)
            await desk.settle(ACTIVE, order)
        assert not (await desk.record()).method.is_default
        for _ in range(2):
            standing = await desk.activities.make_default(
                MakeDefault(method_id=desk.order.method_id, now=NOW)
            )
            assert standing.method.is_default
        assert await desk.events() == ["created", "activated", "default_changed"]

    async def test_is_refused_for_good_where_it_is_not_active(self, desk: Desk) -> None:
        await desk.open()
        with pytest.raises(ApplicationError) as refused:
            await desk.activities.make_default(MakeDefault(method_id=desk.order.method_id, now=NOW))
        assert (refused.value.type, refused.value.non_retryable) == (
            "payment_method_not_active",
            True,
        )
