"""What the refund's activities do to record and ledger, with a scripted gateway."""

from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.payment import PaymentActivities
from activities.refund import RefundActivities
from billing.errors import AnswerUntrusted, BalanceInsufficient, OutcomeUnknown
from billing.identifiers import make_id
from billing.messages import (
    AskRefund,
    OpenPayment,
    RefundRequest,
    RefundStanding,
    ReserveRefund,
    SettlePayment,
    SettleRefund,
)
from billing.payment import Failure, GatewayName
from billing.refund import RefundStatus
from gateways.gateway import ObservedState, RefundObservation, RefundOrder, RefundState
from storage.database import Database
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

ORDER = order()
REFUND_ID = make_id("ref", 1, b"\x03" * 10)
SUCCEEDED = RefundObservation(RefundState.SUCCEEDED, "REFUND_SUCCESS", "r_1", refunded_at=NOW)
FAILED = RefundObservation(
    RefundState.FAILED, "FAILED", "r_1", Failure(code="refused", message="the card is gone")
)


class Desk:
    """The refund activities of one worker, and what they left behind."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.gateway = ScriptedGateway()
        gateways = {GatewayName.ALIPAY: self.gateway}
        self.payments = PaymentActivities(database, gateways)
        self.refunds = RefundActivities(database, gateways)

    async def pay(self) -> None:
        await self.payments.open(OpenPayment(order=ORDER, now=NOW))
        self.gateway.states[1] = ObservedState.PAID
        await self.payments.settle(
            SettlePayment(payment_id=ORDER.payment_id, gateway=GatewayName.ALIPAY, now=NOW)
        )

    async def reserve(self, amount: int | None = 900, refund_id: str = REFUND_ID) -> RefundStanding:
        request = RefundRequest(
            refund_id=refund_id,
            payment_id=ORDER.payment_id,
            application=ORDER.application,
            user_id=ORDER.user_id,
            gateway=GatewayName.ALIPAY,
            currency="CNY",
            amount_minor=amount,
            reason="returned goods",
            created_at=NOW,
        )
        return await self.refunds.reserve(ReserveRefund(request=request, now=NOW))

    async def ask(self) -> RefundStanding:
        return await self.refunds.ask(
            AskRefund(refund_id=REFUND_ID, gateway=GatewayName.ALIPAY, now=NOW)
        )

    async def settle(self, answer: RefundObservation | Exception | None = None) -> RefundStanding:
        if answer is not None:
            self.gateway.refunds[REFUND_ID] = answer
        return await self.refunds.settle(
            SettleRefund(
                refund_id=REFUND_ID, gateway=GatewayName.ALIPAY, now=NOW + timedelta(seconds=10)
            )
        )

    async def revenue(self) -> int:
        """What is left of it, in minor units."""
        async with self.database.begin() as work:
            balances = await work.ledger.balances()
        return -sum(each.balance_minor for each in balances if each.account == "revenue")

    async def refunded(self) -> int:
        async with self.database.begin() as work:
            record = await work.payments.find(ORDER.payment_id)
        assert record is not None
        return record.payment.amount_refunded

    async def attention(self) -> list[str]:
        async with self.database.begin() as work:
            return [each.reason for each in await work.attention.open(ORDER.payment_id)]


@pytest.fixture
async def desk(database: Database) -> Desk:
    made = Desk(database)
    await made.pay()
    return made


async def test_asked_and_settled_once_whatever_is_repeated(desk: Desk) -> None:
    for _ in range(2):
        assert (await desk.reserve()).refund.status is RefundStatus.PENDING
    for _ in range(2):
        assert (await desk.ask()).refund.status is RefundStatus.PROCESSING
    assert await desk.revenue() == AMOUNT
    for _ in range(2):
        assert (await desk.settle(SUCCEEDED)).refund.status is RefundStatus.SUCCEEDED
    assert (await desk.revenue(), await desk.refunded()) == (AMOUNT - 900, 900)
    assert desk.gateway.refunds_asked == [REFUND_ID]


async def test_all_that_is_left(desk: Desk) -> None:
    await desk.reserve(2000, make_id("ref", 2, b"\x03" * 10))
    assert (await desk.reserve(None)).refund.amount == AMOUNT - 2000


async def test_more_than_is_left_is_refused_for_good(desk: Desk) -> None:
    await desk.reserve(2000, make_id("ref", 2, b"\x03" * 10))
    with pytest.raises(ApplicationError) as refused:
        await desk.reserve(901)
    assert refused.value.type == "refund_exceeds_payment"
    assert refused.value.non_retryable
    async with desk.database.begin() as work:
        assert await work.refunds.find(REFUND_ID) is None


async def test_one_that_the_gateway_does_not_know_is_asked_for_again(desk: Desk) -> None:
    await desk.reserve()
    await desk.ask()
    del desk.gateway.refunds[REFUND_ID]
    assert (await desk.settle()).refund.status is RefundStatus.PROCESSING
    assert desk.gateway.refunds_asked == [REFUND_ID, REFUND_ID]


async def test_a_failed_one_puts_its_reservation_back(desk: Desk) -> None:
    await desk.reserve(AMOUNT)
    await desk.ask()
    failed = (await desk.settle(FAILED)).refund
    assert failed.status is RefundStatus.FAILED
    assert failed.failure is not None
    assert failed.failure.message == "the card is gone"
    assert (await desk.revenue(), await desk.refunded()) == (AMOUNT, 0)
    again = await desk.reserve(AMOUNT, make_id("ref", 2, b"\x03" * 10))
    assert again.refund.status is RefundStatus.PENDING


async def test_one_that_fails_after_it_had_succeeded(desk: Desk) -> None:
    await desk.reserve()
    await desk.ask()
    await desk.settle(SUCCEEDED)
    for _ in range(2):
        assert (await desk.settle(FAILED)).refund.status is RefundStatus.FAILED
    assert (await desk.revenue(), await desk.refunded()) == (AMOUNT, 0)


async def test_the_merchant_s_account_is_short(desk: Desk) -> None:
    await desk.reserve()
    desk.gateway.refunds[REFUND_ID] = BalanceInsufficient("top it up")
    with pytest.raises(ApplicationError) as postponed:
        await desk.ask()
    assert postponed.value.type == "balance_insufficient"
    assert not postponed.value.non_retryable
    assert await desk.attention() == ["balance_insufficient"]
    del desk.gateway.refunds[REFUND_ID]
    await desk.ask()
    await desk.settle(SUCCEEDED)
    assert await desk.attention() == []


async def test_silence_changes_nothing(desk: Desk) -> None:
    await desk.reserve()
    desk.gateway.refunds[REFUND_ID] = OutcomeUnknown("no answer")
    with pytest.raises(ApplicationError):
        await desk.ask()
    async with desk.database.begin() as work:
        record = await work.refunds.find(REFUND_ID)
    assert record is not None
    assert record.refund.status is RefundStatus.PENDING


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (AnswerUntrusted("amount_mismatch", "another amount"), "amount_mismatch"),
        (RefundObservation(RefundState.UNRECOGNISED, "NEW_WORD"), "unknown_status"),
        (
            RefundObservation(
                RefundState.STUCK, "ABNORMAL", "r_1", Failure(code="stuck", message="card closed")
            ),
            "refund_stuck",
        ),
    ],
)
async def test_what_a_machine_must_not_decide_is_parked(
    desk: Desk, answer: RefundObservation | Exception, reason: str
) -> None:
    await desk.reserve()
    await desk.ask()
    parked = (await desk.settle(answer)).refund
    assert parked.status is RefundStatus.NEEDS_REVIEW
    assert parked.review is not None
    assert parked.review.reason == reason
    assert await desk.attention() == [reason]
    assert await desk.revenue() == AMOUNT
    assert (await desk.settle(SUCCEEDED)).refund.status is RefundStatus.SUCCEEDED
    assert await desk.attention() == []


async def test_an_answer_that_a_newer_one_overtook_posts_nothing(desk: Desk) -> None:
    """A worker taken for dead goes on: what it was told may arrive after what followed on it."""
    await desk.reserve()
    await desk.ask()
    query = desk.gateway.query_refund

    async def overtaken(order: RefundOrder) -> RefundObservation:
        desk.gateway.query_refund = query  # type: ignore[method-assign]
        assert (await desk.settle(FAILED)).refund.status is RefundStatus.FAILED
        return SUCCEEDED

    desk.gateway.query_refund = overtaken  # type: ignore[method-assign]
    assert (await desk.settle()).refund.status is RefundStatus.FAILED
    assert (await desk.revenue(), await desk.refunded()) == (AMOUNT, 0)
    assert await desk.attention() == ["refund_contradicted"]


async def test_one_that_had_failed_and_was_made_all_the_same_calls_for_a_person(
    desk: Desk,
) -> None:
    """What it had set aside may be refunded again by now: no machine may book it."""
    await desk.reserve()
    await desk.ask()
    await desk.settle(FAILED)
    assert await desk.attention() == []
    for _ in range(2):
        assert (await desk.settle(SUCCEEDED)).refund.status is RefundStatus.FAILED
    assert await desk.revenue() == AMOUNT
    assert await desk.attention() == ["refund_contradicted"]
    await desk.settle(FAILED)
    assert await desk.attention() == []


async def test_one_that_fails_while_it_is_asked_about_is_not_asked_for_again(desk: Desk) -> None:
    """What it had set aside is free for another refund by then."""
    await desk.reserve()
    await desk.ask()
    query = desk.gateway.query_refund

    async def overtaken(order: RefundOrder) -> RefundObservation:
        desk.gateway.query_refund = query  # type: ignore[method-assign]
        await desk.settle(FAILED)
        return RefundObservation(RefundState.ABSENT, "UNKNOWN")

    desk.gateway.query_refund = overtaken  # type: ignore[method-assign]
    assert (await desk.settle()).refund.status is RefundStatus.FAILED
    assert desk.gateway.refunds_asked == [REFUND_ID]


async def test_repaired_and_on_its_way_again_nobody_is_called_for_once_it_has_ended(
    desk: Desk,
) -> None:
    await desk.reserve()
    await desk.ask()
    await desk.settle(RefundObservation(RefundState.STUCK, "ABNORMAL", "r_1"))
    assert await desk.attention() == ["refund_stuck"]
    await desk.settle(RefundObservation(RefundState.PROCESSING, "PROCESSING", "r_1"))
    await desk.settle(SUCCEEDED)
    assert await desk.attention() == []


async def test_the_next_one_keeps_its_pause_from_when_this_was_asked_for(desk: Desk) -> None:
    """Not from when it was to be: the merchant's account was empty for five minutes."""
    await desk.reserve()
    late = NOW + timedelta(minutes=5)
    temporal = ActivityEnvironment()
    temporal.info = replace(temporal.info, scheduled_time=NOW, started_time=late)
    await temporal.run(desk.ask)
    async with desk.database.begin() as work:
        record = await work.refunds.find(REFUND_ID)
    assert record is not None
    assert record.asked_at == late


@pytest.mark.parametrize(("hours", "reasons"), [(1, []), (3, ["refund_unanswered"])])
async def test_a_person_is_called_for_what_nobody_answers_for_long(
    desk: Desk, hours: int, reasons: list[str]
) -> None:
    await desk.reserve()
    temporal = ActivityEnvironment()
    temporal.info = replace(
        temporal.info,
        scheduled_time=NOW,
        current_attempt_scheduled_time=NOW + timedelta(hours=hours),
    )
    desk.gateway.refunds[REFUND_ID] = OutcomeUnknown("no answer")
    for act in (desk.ask, desk.settle):
        with pytest.raises(ApplicationError):
            await temporal.run(act)
        assert await desk.attention() == reasons
    del desk.gateway.refunds[REFUND_ID]
    await temporal.run(desk.settle)
    assert await desk.attention() == []
