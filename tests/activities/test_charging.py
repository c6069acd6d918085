"""Payments charged to a saved method: asked for under one number, whatever dies or ends."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from billing.errors import GatewayMisconfigured, InstructionsLost, OutcomeUnknown
from billing.identifiers import mandate_number
from billing.messages import ClosePayment, OpenPayment
from billing.payment import Failure, GatewayName, NoAction, PaymentStatus, QrCode
from embedded.postgres import PostgresServer
from gateways.gateway import (
    AlreadyOrdered,
    Observation,
    ObservedState,
    Opened,
    OpenOutcome,
    Receipt,
    Refused,
)
from storage.database import Database
from tests.activities.charging_desk import Desk
from tests.activities.scripted import AMOUNT, NOW
from tests.activities.scripted_mandates import method_order
from tests.fixtures.database import DatabaseUrls, fresh_copy

DECLINE = Failure(code="card_declined", decline_code="insufficient_funds", message="no")


@pytest.fixture(scope="module")
async def database_urls(
    postgres_server: PostgresServer, template_urls: DatabaseUrls
) -> AsyncIterator[DatabaseUrls]:
    """One database for all tests: each has a user of its own."""
    async with fresh_copy(postgres_server, template_urls) as urls:
        yield urls


@pytest.fixture
async def desk(database: Database) -> Desk:
    made = Desk(database)
    await made.save()
    return made


async def test_the_gateway_is_told_of_the_mandate(desk: Desk) -> None:
    desk.gateway.states[1] = ObservedState.PAID
    desk.answers(AlreadyOrdered())
    standing = await desk.charge()
    assert standing.payment.status is PaymentStatus.SUCCEEDED
    (placed,) = desk.orders
    assert placed.mandate is not None
    assert (placed.number, placed.mandate.reference) == (desk.order.payment_id, "agr_1")
    assert placed.mandate.number == mandate_number(desk.method.method_id)
    assert placed.mandate.customer_reference == "cus_1"


@pytest.mark.parametrize(
    "state", [ObservedState.PROCESSING, ObservedState.PENDING, ObservedState.ABSENT]
)
@pytest.mark.parametrize("answer", [AlreadyOrdered(), InstructionsLost("gone")])
async def test_one_under_way_is_processing_and_never_another_attempt(
    desk: Desk, state: ObservedState, answer: OpenOutcome | Exception
) -> None:
    desk.gateway.states[1] = state
    desk.answers(answer)
    for _ in range(3):
        standing = await desk.charge()
        assert standing.payment.status is PaymentStatus.PROCESSING
        assert standing.open_attempts == (1,)
    assert len(desk.orders) == 1
    assert (await desk.settle()).payment.status is PaymentStatus.PROCESSING
    desk.gateway.states[1] = ObservedState.PAID
    assert (await desk.settle()).payment.status is PaymentStatus.SUCCEEDED


async def test_what_the_answer_itself_has_told_is_not_asked_for(desk: Desk) -> None:
    desk.gateway.states[1] = ObservedState.PAID
    number = desk.order.payment_id
    receipt = Receipt(f"trade_{number}", AMOUNT, "CNY", NOW)
    seen = Observation(ObservedState.PAID, "PAID", reference="ref_1", receipt=receipt)
    desk.answers(AlreadyOrdered("ref_1", seen))
    for _ in range(2):
        assert (await desk.charge()).payment.status is PaymentStatus.SUCCEEDED
    assert desk.gateway.queried == []
    # Told again by a query, it is the same money.
    assert (await desk.settle()).payment.status is PaymentStatus.SUCCEEDED
    async with desk.database.single() as work:
        (kept,) = await work.receipts.of(number)
        record = await work.payments.find(number)
    assert (kept.kept, kept.amount_minor) == (True, AMOUNT)
    assert record is not None
    assert record.attempt(1).reference == "ref_1"


async def test_it_is_asked_for_by_the_number_that_the_answer_told(desk: Desk) -> None:
    desk.gateway.states[1] = ObservedState.PROCESSING
    desk.answers(AlreadyOrdered("ref_1"))
    await desk.charge()
    await desk.settle()
    assert [order.reference for order in desk.gateway.queried] == ["ref_1", "ref_1"]


async def test_a_decline_fails_the_payment_with_it(desk: Desk) -> None:
    desk.answers(Refused(DECLINE))
    for _ in range(2):
        standing = await desk.charge()
        assert (standing.payment.status, standing.payment.failure) == (
            PaymentStatus.FAILED,
            DECLINE,
        )
        assert standing.open_attempts == ()
    assert len(desk.orders) == 1


async def test_a_decline_told_afterwards_fails_it_too(desk: Desk) -> None:
    desk.gateway.states[1] = ObservedState.DEAD
    desk.answers(AlreadyOrdered())
    standing = await desk.charge()
    assert standing.payment.status is PaymentStatus.FAILED
    assert standing.payment.failure is not None


async def test_a_bank_that_wants_the_payer_gets_the_payer(desk: Desk) -> None:
    action = QrCode(code_url="https://bank.example")
    desk.answers(Opened(action, "pi_1"))
    standing = await desk.charge()
    assert standing.payment.status is PaymentStatus.REQUIRES_ACTION
    assert standing.payment.next_action == action
    desk.gateway.states[1] = ObservedState.PENDING
    assert (await desk.settle()).payment.status is PaymentStatus.REQUIRES_ACTION


async def test_an_unknown_outcome_is_asked_again_though_the_method_has_ended(desk: Desk) -> None:
    """The first call may have taken the money: only the gateway can tell."""
    desk.answers(OutcomeUnknown("cut"))
    with pytest.raises(ApplicationError):
        await desk.charge()
    await desk.delete()
    desk.gateway.states[1] = ObservedState.PAID
    desk.answers(AlreadyOrdered())
    assert (await desk.charge()).payment.status is PaymentStatus.SUCCEEDED
    assert [placed.number for placed in desk.orders] == [
        desk.order.payment_id,
        desk.order.payment_id,
    ]


async def test_a_worker_without_keys_refuses_only_what_was_never_asked_for(desk: Desk) -> None:
    desk.answers(GatewayMisconfigured("no keys"))
    assert (await desk.charge()).payment.status is PaymentStatus.FAILED


async def test_what_was_asked_for_is_not_failed_by_a_worker_without_keys(desk: Desk) -> None:
    desk.answers(OutcomeUnknown("cut"))
    with pytest.raises(ApplicationError):
        await desk.charge()
    desk.answers(GatewayMisconfigured("no keys"))
    with pytest.raises(GatewayMisconfigured):
        await desk.charge()
    desk.answers(Refused(DECLINE))
    assert (await desk.charge()).payment.failure == DECLINE


@pytest.mark.parametrize(
    "changed",
    [
        {"payment_method_id": None},
        {"payment_method_id": method_order(7).method_id},
        {"user_id": "user_2"},
        {"application": "other"},
    ],
    ids=["no method", "no such method", "another user", "another application"],
)
async def test_what_is_not_the_users_own_is_never_asked_for(
    desk: Desk, changed: dict[str, str | None]
) -> None:
    desk.answers(AlreadyOrdered())
    standing = await desk.payments.open(
        OpenPayment(order=desk.order.model_copy(update=changed), now=NOW)
    )
    assert standing.payment.status is PaymentStatus.FAILED
    assert standing.payment.failure is not None
    assert standing.payment.failure.code == "payment_method_not_usable"
    assert standing.payment.next_action == NoAction()
    assert (desk.orders, standing.open_attempts) == ([], ())


async def test_more_than_the_payer_has_consented_to_is_never_asked_for(desk: Desk) -> None:
    """Not every gateway keeps the limit of one charge itself."""
    assert desk.method.most_minor is not None
    more = desk.order.model_copy(update={"amount_minor": desk.method.most_minor + 1})
    desk.answers(AlreadyOrdered())
    standing = await desk.payments.open(OpenPayment(order=more, now=NOW))
    assert standing.payment.status is PaymentStatus.FAILED
    assert desk.orders == []


async def test_an_ended_method_is_never_asked_for(desk: Desk) -> None:
    await desk.delete()
    desk.answers(AlreadyOrdered())
    assert (await desk.charge()).payment.status is PaymentStatus.FAILED
    assert desk.orders == []


@pytest.mark.parametrize(
    ("state", "is_dead"),
    [
        (ObservedState.ABSENT, True),
        (ObservedState.PENDING, False),
        (ObservedState.PROCESSING, False),
    ],
)
async def test_what_the_gateway_has_accepted_outlives_its_expiry(
    desk: Desk, state: ObservedState, is_dead: bool
) -> None:
    desk.gateway.states[1] = state
    desk.gateway.dies_when_closed = False
    desk.answers(AlreadyOrdered())
    await desk.charge()
    standing = await desk.payments.close(
        ClosePayment(
            payment_id=desk.order.payment_id,
            gateway=GatewayName.ALIPAY,
            status=PaymentStatus.EXPIRED,
            now=desk.order.expires_at + timedelta(seconds=61),
        )
    )
    assert standing.payment.status is PaymentStatus.EXPIRED
    assert standing.open_attempts == (() if is_dead else (1,))


async def test_several_tries_at_once_are_one_charge(desk: Desk) -> None:
    """A worker that was thought dead may still be at it."""
    desk.gateway.states[1] = ObservedState.PAID
    desk.answers(AlreadyOrdered())
    await asyncio.gather(*(desk.charge() for _ in range(5)))
    assert (await desk.charge()).payment.status is PaymentStatus.SUCCEEDED
    assert {placed.number for placed in desk.orders} == {desk.order.payment_id}
    async with desk.database.single() as work:
        (receipt,) = await work.receipts.of(desk.order.payment_id)
    assert receipt.kept


async def test_a_deletion_at_the_same_time_comes_before_or_after(desk: Desk) -> None:
    """Whatever was asked for before the end is known to have been; nothing is asked for after."""
    desk.gateway.states[1] = ObservedState.PAID
    desk.answers(AlreadyOrdered())
    standing, _ = await asyncio.gather(desk.charge(), desk.delete())
    assert standing.payment.status is (
        PaymentStatus.SUCCEEDED if desk.orders else PaymentStatus.FAILED
    )
