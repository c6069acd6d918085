"""What the payment's activities do to the record, with a scripted gateway and real PostgreSQL."""

from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.payment import PaymentActivities
from billing.errors import GatewayMisconfigured, GatewayThrottled, InstructionsLost, OutcomeUnknown
from billing.identifiers import attempt_number
from billing.messages import (
    ClosePayment,
    EndPayment,
    FlagPayment,
    OpenPayment,
    ReviewAction,
    ReviewDecision,
    SettlePayment,
    Standing,
)
from billing.payment import AttemptState, Failure, GatewayName, PaymentStatus
from billing.refund import RefundCause
from gateways.gateway import AlreadyOrdered, ObservedState, OpenOutcome, Order, Refused
from storage.database import Database
from storage.payments import PaymentRecord
from storage.receipts import ReceiptRecord
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

ORDER = order()
PAYMENT_ID = ORDER.payment_id
RETRY = ReviewDecision(action=ReviewAction.RETRY, reason="checked", reviewed_by="key_1")
RETURN = ReviewDecision(action=ReviewAction.RETURN, reason="not ours", reviewed_by="key_1")
CLOSE = ReviewDecision(action=ReviewAction.CLOSE, reason="lost", reviewed_by="key_1")


class Desk:
    """The activities of one worker, and what they left in the record."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.gateway = ScriptedGateway()
        self.activities = PaymentActivities(database, {GatewayName.ALIPAY: self.gateway})

    async def open(self) -> Standing:
        return await self.activities.open(OpenPayment(order=ORDER, now=NOW))

    async def settle(
        self, *, thorough: bool = False, review: ReviewDecision | None = None, late: int = 0
    ) -> Standing:
        return await self.activities.settle(
            SettlePayment(
                payment_id=PAYMENT_ID,
                gateway=GatewayName.ALIPAY,
                now=NOW + timedelta(seconds=late),
                thorough=thorough,
                review=review,
            )
        )

    async def close(
        self, status: PaymentStatus | None, *, review: ReviewDecision | None = None
    ) -> Standing:
        return await self.activities.close(
            ClosePayment(
                payment_id=PAYMENT_ID,
                gateway=GatewayName.ALIPAY,
                status=status,
                now=NOW,
                review=review,
            )
        )

    async def record(self) -> PaymentRecord:
        async with self.database.begin() as work:
            record = await work.payments.find(PAYMENT_ID)
        assert record is not None
        return record

    async def receipts(self) -> list[ReceiptRecord]:
        async with self.database.begin() as work:
            return await work.receipts.of(PAYMENT_ID)

    async def balances(self) -> dict[str, int]:
        async with self.database.begin() as work:
            return {each.account: each.balance_minor for each in await work.ledger.balances()}

    async def waiting(self) -> list[str]:
        async with self.database.begin() as work:
            return [each.reason for each in await work.attention.open(PAYMENT_ID)]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


class TestOpen:
    async def test_gives_instructions(self, desk: Desk) -> None:
        standing = await desk.open()
        assert standing.payment.status is PaymentStatus.REQUIRES_ACTION
        assert standing.payment.next_action.type == "qr_code"
        assert standing.open_attempts == (1,)

    async def test_a_repeat_after_the_record_asks_nobody(self, desk: Desk) -> None:
        first = await desk.open()
        assert await desk.open() == first
        assert len(desk.gateway.opened) == 1

    async def test_lost_instructions_take_the_next_number(self, desk: Desk) -> None:
        async def lost_once(order: Order) -> OpenOutcome:
            desk.gateway.on_open = None
            raise InstructionsLost("the QR cannot be fetched again")

        desk.gateway.on_open = lost_once
        standing = await desk.open()
        assert standing.payment.attempt == 2
        assert standing.open_attempts == (1, 2)
        assert desk.gateway.opened == [attempt_number(PAYMENT_ID, 1), attempt_number(PAYMENT_ID, 2)]

    async def test_instructions_lost_again_and_again_are_tried_again(self, desk: Desk) -> None:
        async def lost(order: Order) -> OpenOutcome:
            raise InstructionsLost("the QR cannot be fetched again")

        desk.gateway.on_open = lost
        with pytest.raises(ApplicationError) as problem:
            await desk.open()
        assert not problem.value.non_retryable
        desk.gateway.on_open = None
        assert (await desk.open()).payment.status is PaymentStatus.REQUIRES_ACTION

    async def test_refused(self, desk: Desk) -> None:
        async def refused(order: Order) -> OpenOutcome:
            return Refused(Failure(code="order_refused", message="risk"))

        desk.gateway.on_open = refused
        standing = await desk.open()
        assert standing.payment.status is PaymentStatus.FAILED
        assert standing.payment.failure == Failure(code="order_refused", message="risk")
        assert standing.open_attempts == ()

    async def test_misconfigured_is_refused(self, desk: Desk) -> None:
        async def misconfigured(order: Order) -> OpenOutcome:
            raise GatewayMisconfigured("invalid app_id")

        desk.gateway.on_open = misconfigured
        standing = await desk.open()
        assert standing.payment.status is PaymentStatus.FAILED
        assert standing.payment.failure is not None
        assert standing.payment.failure.code == "gateway_misconfigured"

    @pytest.mark.parametrize(
        ("problem", "pause"),
        [(OutcomeUnknown("cut"), None), (GatewayThrottled("slow", retry_after_seconds=7), 7.0)],
    )
    async def test_unknown_is_asked_again(
        self, desk: Desk, problem: OutcomeUnknown, pause: float | None
    ) -> None:
        async def unknown(order: Order) -> OpenOutcome:
            raise problem

        desk.gateway.on_open = unknown
        with pytest.raises(ApplicationError) as raised:
            await desk.open()
        assert not raised.value.non_retryable
        delay = raised.value.next_retry_delay
        assert (delay and delay.total_seconds()) == pause
        assert (await desk.record()).payment.status is PaymentStatus.CREATED

    @pytest.mark.parametrize(
        ("state", "status", "attempt"),
        [
            (ObservedState.PAID, PaymentStatus.SUCCEEDED, 1),
            (ObservedState.PENDING, PaymentStatus.REQUIRES_ACTION, 2),
            (ObservedState.DEAD, PaymentStatus.REQUIRES_ACTION, 2),
        ],
    )
    async def test_a_number_in_use_is_asked_about(
        self, desk: Desk, state: ObservedState, status: PaymentStatus, attempt: int
    ) -> None:
        async def in_use_once(order: Order) -> OpenOutcome:
            desk.gateway.on_open = None
            desk.gateway.states[1] = state
            return AlreadyOrdered()

        desk.gateway.on_open = in_use_once
        standing = await desk.open()
        assert (standing.payment.status, standing.payment.attempt) == (status, attempt)


class TestSettle:
    async def test_paid_is_recorded_once(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.states[1] = ObservedState.PAID
        first = await desk.settle()
        assert first.payment.status is PaymentStatus.SUCCEEDED
        assert await desk.settle(thorough=True) == first
        assert [receipt.kept for receipt in await desk.receipts()] == [True]
        assert await desk.balances() == {"gateway_clearing:alipay": AMOUNT, "revenue": -AMOUNT}

    async def test_two_attempts_paid_keep_one(self, desk: Desk) -> None:
        await TestOpen().test_lost_instructions_take_the_next_number(desk)
        desk.gateway.states = {1: ObservedState.PAID, 2: ObservedState.PAID}
        standing = await desk.settle()
        assert standing.payment.status is PaymentStatus.SUCCEEDED
        assert not standing.needs_attention
        [unkept] = [receipt for receipt in await desk.receipts() if not receipt.kept]
        [back] = standing.returns
        assert (back.attempt, back.amount_minor) == (unkept.attempt, AMOUNT)
        assert back.cause is RefundCause.RETURNED
        assert (await desk.settle(thorough=True)).returns == standing.returns
        assert sorted(receipt.kept for receipt in await desk.receipts()) == [False, True]
        assert await desk.balances() == {
            "gateway_clearing:alipay": 2 * AMOUNT,
            "revenue": -AMOUNT,
            "unapplied_receipts:alipay": -AMOUNT,
        }

    @pytest.mark.parametrize("taken", [AMOUNT - 1, AMOUNT + 1])
    async def test_other_money_than_was_asked_for_is_returned_by_a_person(
        self, desk: Desk, taken: int
    ) -> None:
        await desk.open()
        desk.gateway.amounts[1] = taken
        desk.gateway.states[1] = ObservedState.PAID
        parked = await desk.settle()
        assert parked.payment.status is PaymentStatus.NEEDS_REVIEW
        assert await desk.receipts() == []
        standing = await desk.settle(review=RETURN)
        assert standing.payment.status is PaymentStatus.FAILED
        assert standing.payment.failure is not None
        assert standing.payment.failure.code == "returned_by_operator"
        assert standing.open_attempts == ()
        assert [(back.attempt, back.amount_minor) for back in standing.returns] == [(1, taken)]
        assert await desk.waiting() == []
        assert await desk.balances() == {
            "gateway_clearing:alipay": taken,
            "unapplied_receipts:alipay": -taken,
        }

    async def test_too_late_to_be_returned_calls_for_a_person(self, desk: Desk) -> None:
        await desk.open()
        await desk.close(PaymentStatus.CANCELED)
        desk.gateway.states[1] = ObservedState.PAID
        desk.gateway.paid_at = NOW - timedelta(days=366)
        late = await desk.settle(thorough=True)
        assert late.returns == ()
        assert late.needs_attention
        assert await desk.waiting() == ["unapplied_receipt"]

    @pytest.mark.parametrize("state", [ObservedState.ABSENT, ObservedState.PENDING])
    async def test_nothing_yet_changes_nothing(self, desk: Desk, state: ObservedState) -> None:
        await desk.open()
        desk.gateway.states[1] = state
        standing = await desk.settle()
        assert standing.payment.status is PaymentStatus.REQUIRES_ACTION
        assert standing.open_attempts == (1,)

    async def test_processing_and_back(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.states[1] = ObservedState.PROCESSING
        assert (await desk.settle()).payment.status is PaymentStatus.PROCESSING
        desk.gateway.states[1] = ObservedState.PENDING
        standing = await desk.settle()
        assert standing.payment.status is PaymentStatus.REQUIRES_ACTION
        assert standing.payment.next_action.type == "qr_code"

    @pytest.mark.parametrize(
        ("late", "status"), [(0, PaymentStatus.FAILED), (1800, PaymentStatus.EXPIRED)]
    )
    async def test_closed_by_the_gateway(
        self, desk: Desk, late: int, status: PaymentStatus
    ) -> None:
        await desk.open()
        desk.gateway.states[1] = ObservedState.DEAD
        standing = await desk.settle(late=late)
        assert standing.payment.status is status
        assert standing.open_attempts == ()

    async def test_a_minute_past_its_expiry_nothing_is_dead(self, desk: Desk) -> None:
        await desk.open()
        assert (await desk.settle(late=1859)).open_attempts == (1,)
        standing = await desk.settle(late=1860)
        assert standing.open_attempts == ()
        assert standing.payment.status is PaymentStatus.EXPIRED

    async def test_an_unknown_status_parks(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.states[1] = ObservedState.UNRECOGNISED
        standing = await desk.settle()
        assert standing.payment.status is PaymentStatus.NEEDS_REVIEW
        assert standing.payment.review is not None
        assert standing.payment.review.reason == "unknown_status"
        assert await desk.waiting() == ["unknown_status"]

    async def test_another_amount_parks_and_posts_nothing(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.states[1], desk.gateway.amounts[1] = ObservedState.PAID, 1
        assert (await desk.settle()).payment.status is PaymentStatus.NEEDS_REVIEW
        assert await desk.receipts() == []
        assert await desk.balances() == {}

    async def test_a_parked_payment_moves_by_review_alone(self, desk: Desk) -> None:
        await self.test_another_amount_parks_and_posts_nothing(desk)
        del desk.gateway.amounts[1]
        assert (await desk.settle()).payment.status is PaymentStatus.NEEDS_REVIEW
        standing = await desk.settle(review=RETRY)
        assert standing.payment.status is PaymentStatus.SUCCEEDED
        assert standing.payment.review is None
        assert not standing.needs_attention


class TestClose:
    async def test_nobody_paid(self, desk: Desk) -> None:
        await desk.open()
        standing = await desk.close(PaymentStatus.CANCELED)
        assert standing.payment.status is PaymentStatus.CANCELED
        assert standing.open_attempts == ()
        assert desk.gateway.closed == [PAYMENT_ID]

    async def test_paid_before_it_could_be_closed(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.states[1] = ObservedState.PAID
        standing = await desk.close(PaymentStatus.CANCELED)
        assert standing.payment.status is PaymentStatus.SUCCEEDED
        assert desk.gateway.closed == []

    async def test_not_dead_stays_watched_and_late_money_is_apart(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.dies_when_closed = False
        canceled = await desk.close(PaymentStatus.CANCELED)
        assert canceled.payment.status is PaymentStatus.CANCELED
        assert canceled.open_attempts == (1,)
        desk.gateway.states[1] = ObservedState.PAID
        late = await desk.close(None)
        assert late.payment.status is PaymentStatus.CANCELED
        assert late.open_attempts == ()
        assert await desk.waiting() == []
        assert [(back.attempt, back.amount_minor) for back in late.returns] == [(1, AMOUNT)]
        assert await desk.balances() == {
            "gateway_clearing:alipay": AMOUNT,
            "unapplied_receipts:alipay": -AMOUNT,
        }

    async def test_dead_and_paid_after_all(self, desk: Desk) -> None:
        """A gateway that closed an order and reports it paid later is believed twice."""
        await desk.open()
        await desk.close(PaymentStatus.CANCELED)
        desk.gateway.states[1] = ObservedState.PAID
        assert (await desk.settle()).open_attempts == ()
        assert await desk.receipts() == []
        await desk.settle(thorough=True)
        assert [receipt.kept for receipt in await desk.receipts()] == [False]

    async def test_an_attempt_that_dies_at_last_calls_nobody_any_more(self, desk: Desk) -> None:
        await desk.open()
        desk.gateway.dies_when_closed = False
        await desk.close(PaymentStatus.CANCELED)
        await desk.activities.flag(
            FlagPayment(payment_id=PAYMENT_ID, reason="attempt_not_dead", detail="-", now=NOW)
        )
        assert await desk.waiting() == ["attempt_not_dead"]
        desk.gateway.states[1] = ObservedState.DEAD
        standing = await desk.close(None)
        assert standing.open_attempts == ()
        assert not standing.needs_attention

    async def test_closed_by_an_operator(self, desk: Desk) -> None:
        await TestSettle().test_another_amount_parks_and_posts_nothing(desk)
        standing = await desk.close(PaymentStatus.FAILED, review=CLOSE)
        assert standing.payment.status is PaymentStatus.FAILED
        assert standing.payment.failure is not None
        assert standing.payment.failure.code == "closed_by_operator"
        assert await desk.waiting() == []
        watched = await desk.close(None)
        assert watched.open_attempts == (1,)
        assert await desk.waiting() == []

    async def test_a_parked_payment_is_not_canceled(self, desk: Desk) -> None:
        await TestSettle().test_another_amount_parks_and_posts_nothing(desk)
        standing = await desk.close(PaymentStatus.CANCELED)
        assert standing.payment.status is PaymentStatus.NEEDS_REVIEW


async def test_ended_without_ever_being_opened(desk: Desk) -> None:
    standing = await desk.activities.end(
        EndPayment(payment_id=PAYMENT_ID, status=PaymentStatus.EXPIRED, now=NOW, order=ORDER)
    )
    assert standing.payment.status is PaymentStatus.EXPIRED
    assert (await desk.record()).attempts[0].state is AttemptState.OPEN
