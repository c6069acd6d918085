"""What the dispute's activity does to the record, with a scripted gateway."""

from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.dispute import DisputeActivities
from activities.payment import PaymentActivities
from billing.dispute import DisputeStatus
from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    OutcomeUnknown,
    PaymentNotFound,
)
from billing.messages import OpenPayment, SettleDisputes, SettlePayment, Standing
from billing.payment import GatewayName
from gateways.gateway import Capabilities, DisputeObservation, ObservedState
from storage.database import Database
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

ORDER = order()
PAYMENT_ID = ORDER.payment_id
OPEN = DisputeObservation(
    reference="dp_1",
    status=DisputeStatus.OPEN,
    gateway_status="needs_response",
    amount_minor=AMOUNT,
    currency="CNY",
    reason="fraudulent",
    withdrawn_minor=AMOUNT,
    reinstated_minor=0,
    fee_minor=None,
    due_by=NOW + timedelta(days=9),
    opened_at=NOW,
)
LOST = replace(OPEN, status=DisputeStatus.LOST, gateway_status="lost")


class Disputed(ScriptedGateway):
    capabilities = Capabilities(
        ScriptedGateway.capabilities.methods, None, orders_expire=True, disputes=True
    )


class Desk:
    """The activities of one worker, and what they left behind."""

    def __init__(self, database: Database, gateway: ScriptedGateway) -> None:
        self.database = database
        self.gateway = gateway
        self.payments = PaymentActivities(database, {GatewayName.ALIPAY: gateway})
        self.disputes = DisputeActivities(database, {GatewayName.ALIPAY: gateway})

    async def pay(self, *, is_paid: bool = True) -> Standing:
        await self.payments.open(OpenPayment(order=ORDER, now=NOW))
        if is_paid:
            self.gateway.states[1] = ObservedState.PAID
        return await self.payments.settle(
            SettlePayment(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW)
        )

    async def settle(self, answer: list[DisputeObservation] | Exception | None = None) -> Standing:
        if answer is not None:
            self.gateway.disputes[PAYMENT_ID] = answer
        return await self.disputes.settle(
            SettleDisputes(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW)
        )

    async def balances(self) -> dict[str, int]:
        async with self.database.begin() as work:
            balances = await work.ledger.balances()
        return {each.account: each.balance_minor for each in balances if each.balance_minor}

    async def attention(self) -> list[str]:
        async with self.database.begin() as work:
            return [each.reason for each in await work.attention.open(PAYMENT_ID)]


@pytest.fixture
async def desk(database: Database) -> Desk:
    made = Desk(database, Disputed())
    await made.pay()
    return made


async def test_recorded_once_whatever_is_repeated(desk: Desk) -> None:
    for _ in range(2):
        standing = await desk.settle([OPEN])
        assert standing.needs_attention
        dispute = standing.payment.dispute
        assert dispute is not None
        assert (dispute.id, dispute.status) == ("dp_1", DisputeStatus.OPEN)
        assert await desk.balances() == {"revenue": -AMOUNT, "disputed:alipay": AMOUNT}
    for _ in range(2):
        standing = await desk.settle([LOST])
        assert not standing.needs_attention
        assert await desk.balances() == {}, "what came in is gone, and no revenue with it"


async def test_several_disputes_of_one_order(desk: Desk) -> None:
    first = replace(OPEN, amount_minor=1000, withdrawn_minor=1000)
    second = replace(first, reference="dp_2", opened_at=NOW + timedelta(days=1))
    standing = await desk.settle([first, second])
    assert standing.payment.dispute is not None
    assert standing.payment.dispute.id == "dp_2"
    assert (await desk.balances())["disputed:alipay"] == 2000


async def test_no_dispute_is_nothing(desk: Desk) -> None:
    before = await desk.balances()
    standing = await desk.settle([])
    assert (standing.payment.dispute, standing.needs_attention) == (None, False)
    assert await desk.balances() == before
    assert desk.gateway.asked_of_disputes == [PAYMENT_ID]


async def test_an_answer_that_makes_no_sense_calls_for_a_person(desk: Desk) -> None:
    before = await desk.balances()
    standing = await desk.settle(AnswerUntrusted("currency_mismatch", "it is in USD"))
    assert standing.needs_attention
    assert await desk.attention() == ["dispute_untrusted"]
    assert await desk.balances() == before
    await desk.settle([OPEN])
    assert await desk.attention() == ["dispute_opened"]


@pytest.mark.parametrize("problem", [OutcomeUnknown("cut"), GatewayThrottled("busy")])
async def test_silence_is_asked_again(desk: Desk, problem: Exception) -> None:
    with pytest.raises(ApplicationError) as raised:
        await desk.settle(problem)
    assert raised.value.type in ("outcome_unknown", "gateway_throttled")
    assert not raised.value.non_retryable


async def test_money_that_never_came_is_not_asked_about(database: Database) -> None:
    desk = Desk(database, Disputed())
    standing = await desk.pay(is_paid=False)
    assert standing.disputes_at == ()
    await desk.settle([OPEN])
    assert desk.gateway.asked_of_disputes == []


async def test_where_money_may_be_disputed(database: Database) -> None:
    assert (await Desk(database, Disputed()).pay()).disputes_at == (GatewayName.ALIPAY,)
    assert (await Desk(database, ScriptedGateway()).pay()).disputes_at == ()


async def test_what_is_missing_is_named(desk: Desk, database: Database) -> None:
    with pytest.raises(GatewayMisconfigured, match="alipay is not configured"):
        await DisputeActivities(database, {}).settle(
            SettleDisputes(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW)
        )
    with pytest.raises(PaymentNotFound):
        await desk.disputes.settle(
            SettleDisputes(payment_id="pay_x", gateway=GatewayName.ALIPAY, now=NOW)
        )
