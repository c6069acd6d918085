"""Points follow their money: credited as it is settled, taken back as a refund is reserved. A spend
is one, however often it is asked for."""

from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.dispute import DisputeActivities
from activities.payment import PaymentActivities
from activities.points import PointsActivities
from activities.refund import RefundActivities
from billing.dispute import DisputeStatus
from billing.identifiers import POINTS_TRANSACTION, make_id
from billing.messages import (
    ClosePayment,
    OpenPayment,
    RefundRequest,
    RefundStanding,
    ReserveRefund,
    SettleDisputes,
    SettlePayment,
    SettleRefund,
    SpendPoints,
    SpendRequest,
)
from billing.payment import Failure, GatewayName, PaymentStatus, PaymentType
from billing.points import ClawbackPolicy, PointsPurchase, PointsTransaction
from billing.refund import RefundStatus
from gateways.gateway import DisputeObservation, ObservedState, RefundObservation, RefundState
from storage.database import Database
from storage.points import User
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order
from tests.storage.points_samples import look, spend
from tests.storage.samples import make_refund_id

ALIPAY = GatewayName.ALIPAY
PURCHASE = PointsPurchase(package_id="small", points=100, bonus_points=20, expires_after_days=30)
ORDER = order().model_copy(update={"type": PaymentType.POINTS, "points": PURCHASE})
USER = User(ORDER.application, ORDER.user_id)
FAILED = RefundObservation(
    RefundState.FAILED, "FAILED", "r_1", Failure(code="refused", message="the card is gone")
)


class Counter:
    """The activities of one worker, at which points are bought and given back."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.gateway = ScriptedGateway()
        self.payments = PaymentActivities(database, {ALIPAY: self.gateway})

    async def open(self) -> None:
        await self.payments.open(OpenPayment(order=ORDER, now=NOW))

    async def settle(self) -> PaymentStatus:
        standing = await self.payments.settle(
            SettlePayment(payment_id=ORDER.payment_id, gateway=ALIPAY, now=NOW, thorough=True)
        )
        return standing.payment.status

    async def pay(self) -> PaymentStatus:
        self.gateway.states[1] = ObservedState.PAID
        return await self.settle()

    async def reserve(self, policy: ClawbackPolicy, amount: int | None = None) -> RefundStanding:
        refunds = RefundActivities(self.database, {ALIPAY: self.gateway}, policy)
        request = RefundRequest(
            refund_id=make_refund_id(),
            payment_id=ORDER.payment_id,
            application=ORDER.application,
            user_id=ORDER.user_id,
            gateway=ALIPAY,
            currency="CNY",
            amount_minor=amount,
            reason="bought too many",
            created_at=NOW,
        )
        return await refunds.reserve(ReserveRefund(request=request, now=NOW))

    async def settle_refund(self, refund_id: str, answer: RefundObservation) -> RefundStatus:
        self.gateway.refunds[refund_id] = answer
        refunds = RefundActivities(self.database, {ALIPAY: self.gateway})
        standing = await refunds.settle(
            SettleRefund(refund_id=refund_id, gateway=ALIPAY, now=NOW + timedelta(minutes=1))
        )
        return standing.refund.status

    async def spend(self, points: int, *, minutes: int = 0) -> PointsTransaction:
        """The same spend each time, `minutes` later."""
        request = SpendRequest(
            transaction_id=make_id(POINTS_TRANSACTION, 1, b"\x03" * 10),
            application=USER.application,
            user_id=USER.user_id,
            points=points,
            reason="a hint",
            created_at=NOW,
        )
        now = NOW + timedelta(minutes=minutes)
        return await PointsActivities(self.database).spend(SpendPoints(request=request, now=now))

    async def balance(self) -> int:
        account = await look(self.database, USER)
        account.require_agreement()
        return account.balance


@pytest.fixture
async def counter(database: Database) -> Counter:
    made = Counter(database)
    await made.open()
    return made


async def test_points_are_credited_once_as_their_payment_succeeds(counter: Counter) -> None:
    assert await counter.settle() is PaymentStatus.REQUIRES_ACTION
    assert await counter.balance() == 0
    for _ in range(2):
        assert await counter.pay() is PaymentStatus.SUCCEEDED
        assert await counter.balance() == 120
    async with counter.database.begin() as work:
        shown = await work.points.balance(USER, NOW + timedelta(days=30))
    assert (shown.balance, shown.spendable) == (120, 0)


async def test_money_that_nobody_waits_for_brings_no_points(counter: Counter) -> None:
    await counter.payments.close(
        ClosePayment(
            payment_id=ORDER.payment_id, gateway=ALIPAY, status=PaymentStatus.CANCELED, now=NOW
        )
    )
    assert await counter.pay() is PaymentStatus.CANCELED
    assert await counter.balance() == 0


@pytest.mark.parametrize("policy", ClawbackPolicy)
async def test_a_refund_takes_its_points_and_a_failed_one_restores_them(
    counter: Counter, policy: ClawbackPolicy
) -> None:
    await counter.pay()
    refund = (await counter.reserve(policy, AMOUNT // 2)).refund
    assert await counter.balance() == 60
    assert await counter.settle_refund(refund.id, FAILED) is RefundStatus.FAILED
    assert await counter.balance() == 120


async def test_the_deployments_policy_decides_where_points_are_spent(counter: Counter) -> None:
    await counter.pay()
    await spend(counter.database, USER, 90, now=NOW)
    with pytest.raises(ApplicationError, match="120 points would be taken back") as refused:
        await counter.reserve(ClawbackPolicy.REFUSE)
    assert (refused.value.type, refused.value.non_retryable) == ("points_already_spent", True)
    assert await counter.balance() == 30
    refund = (await counter.reserve(ClawbackPolicy.REDUCE)).refund
    assert refund.amount == AMOUNT // 4
    assert await counter.balance() == 0
    refund = (await counter.reserve(ClawbackPolicy.DEBT)).refund
    assert refund.amount == AMOUNT - AMOUNT // 4
    assert await counter.balance() == -90


class TestSpend:
    async def test_a_repeat_spends_once(self, counter: Counter) -> None:
        await counter.pay()
        first, again = [await counter.spend(90, minutes=turn) for turn in range(2)]
        assert first == again
        assert (first.amount, first.balance_after, first.created_at) == (-90, 30, NOW)
        assert await counter.balance() == 30

    async def test_more_than_there_is_is_refused_for_good(self, counter: Counter) -> None:
        await counter.pay()
        with pytest.raises(ApplicationError, match="120 points can be spent") as refused:
            await counter.spend(121)
        assert (refused.value.type, refused.value.non_retryable) == ("insufficient_points", True)
        assert await counter.balance() == 120


async def test_a_dispute_takes_points_with_the_money_and_gives_them_back(
    counter: Counter,
) -> None:
    await counter.pay()
    await spend(counter.database, USER, 50, now=NOW)
    disputes = DisputeActivities(counter.database, {ALIPAY: counter.gateway})
    seen = []
    for reinstated in (0, 0, AMOUNT):
        counter.gateway.disputes[ORDER.payment_id] = [
            DisputeObservation(
                reference="dp_1",
                status=DisputeStatus.WON if reinstated else DisputeStatus.OPEN,
                gateway_status="as told",
                amount_minor=AMOUNT,
                currency="CNY",
                reason="fraudulent",
                withdrawn_minor=AMOUNT,
                reinstated_minor=reinstated,
                fee_minor=None,
                due_by=None,
                opened_at=NOW,
            )
        ]
        await disputes.settle(SettleDisputes(payment_id=ORDER.payment_id, gateway=ALIPAY, now=NOW))
        seen.append(await counter.balance())
    assert seen == [-50, -50, 70]
