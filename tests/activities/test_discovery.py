"""What the discovery of refunds made elsewhere does to the record, with a scripted gateway."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.discovery import REFUNDED_ELSEWHERE, DiscoveryActivities
from activities.payment import PaymentActivities
from activities.refund import RefundActivities
from billing.errors import AnswerUntrusted, OutcomeUnknown, RefundExceedsPayment
from billing.messages import (
    AskRefund,
    DiscoverRefunds,
    EndPayment,
    OpenPayment,
    SettlePayment,
    SettleRefund,
    Standing,
)
from billing.payment import GatewayName, PaymentStatus
from billing.refund import RefundCause, RefundStatus
from gateways.gateway import (
    ForeignRefund,
    ObservedState,
    RefundObservation,
    RefundState,
    ToldRefunds,
)
from storage.database import Database
from storage.refunds import RefundRecord
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

ORDER = order()
PAYMENT_ID = ORDER.payment_id
DONE = RefundObservation(RefundState.SUCCEEDED, "REFUND_SUCCESS", refunded_at=NOW)
FAILED = RefundObservation(RefundState.FAILED, "CLOSED")
PROCESSING = RefundObservation(RefundState.PROCESSING, "PROCESSING")


LOST = "ref_01h455vb4pex5vsknk084sn03r"
"""The form of ours, and no row."""


def told(
    number: str, amount: int, seen: RefundObservation = DONE, our_number: str | None = None
) -> ForeignRefund:
    return ForeignRefund(number, amount, seen, our_number)


@dataclass
class Desk:
    """The activities of one worker, and what they left behind."""

    database: Database
    gateway: ScriptedGateway
    discovery: DiscoveryActivities

    async def discover(self, answer: ToldRefunds | Exception) -> Standing:
        self.gateway.told_refunds[PAYMENT_ID] = answer
        return await self.discovery.discover(
            DiscoverRefunds(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW)
        )

    async def refunds(self) -> list[RefundRecord]:
        async with self.database.begin() as work:
            return await work.refunds.of_payment(PAYMENT_ID)

    async def balances(self) -> dict[str, int]:
        async with self.database.begin() as work:
            balances = await work.ledger.balances()
        return {each.account: each.balance_minor for each in balances if each.balance_minor}

    async def attention(self) -> list[str]:
        async with self.database.begin() as work:
            return [each.reason for each in await work.attention.open(PAYMENT_ID)]

    async def reserve(self, amount: int, refund_id: str = "ref_01h455vb4pex5vsknk084sn02q") -> str:
        """A refund of our own, under way."""
        async with self.database.begin() as work:
            record = await work.refunds.reserve(
                refund_id=refund_id,
                payment_id=PAYMENT_ID,
                application=None,
                attempt=None,
                amount_minor=amount,
                cause=RefundCause.REQUESTED,
                reason="asked for",
                now=NOW,
            )
        return record.refund.id


@pytest.fixture
async def desk(database: Database) -> Desk:
    gateway = ScriptedGateway()
    gateways = {GatewayName.ALIPAY: gateway}
    payments = PaymentActivities(database, gateways)
    await payments.open(OpenPayment(order=ORDER, now=NOW))
    gateway.states[1] = ObservedState.PAID
    standing = await payments.settle(
        SettlePayment(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW)
    )
    assert standing.refunds_at == (GatewayName.ALIPAY,)
    return Desk(database, gateway, DiscoveryActivities(database, gateways))


async def test_recorded_once_whatever_is_repeated(desk: Desk) -> None:
    for _ in range(2):
        standing = await desk.discover(ToldRefunds((told("r1", 900), told("r2", 100))))
        assert standing.payment.amount_refunded == 1000
        assert not standing.needs_attention
        assert await desk.balances() == {
            "revenue": 1000 - AMOUNT,
            "gateway_clearing:alipay": AMOUNT - 1000,
        }
    assert {one.refund.cause for one in await desk.refunds()} == {RefundCause.ELSEWHERE}
    assert desk.gateway.hints == [[], ["r1", "r2"]], "what is known is asked about again"


@pytest.mark.parametrize("is_named_so", [True, False], ids=["Alipay", "Stripe"])
async def test_ours_are_not_made_elsewhere(desk: Desk, is_named_so: bool) -> None:
    """A gateway that lists all lists ours, which their own process follows."""
    ours = await desk.reserve(900)
    listed = told(ours, 900) if is_named_so else told("re_1", 900, our_number=ours)
    await desk.discover(ToldRefunds((listed, told("re_2", 100))))
    [own, found] = sorted(await desk.refunds(), key=lambda one: -one.refund.amount)
    assert (own.refund.id, own.refund.status) == (ours, RefundStatus.PENDING)
    assert (found.refund.cause, found.refund.amount) == (RefundCause.ELSEWHERE, 100)


@pytest.mark.parametrize("is_named_so", [True, False], ids=["Alipay", "Stripe"])
async def test_one_with_a_number_of_ours_that_the_record_lost(
    desk: Desk, is_named_so: bool
) -> None:
    """As after the database was restored: its money is gone, and must not go a second time."""
    listed = told(LOST, AMOUNT) if is_named_so else told("re_1", AMOUNT, our_number=LOST)
    for _ in range(2):
        standing = await desk.discover(ToldRefunds((listed,)))
        assert standing.payment.amount_refunded == AMOUNT
    [found] = await desk.refunds()
    assert (found.refund.id, found.refund.cause) == (LOST, RefundCause.ELSEWHERE)
    with pytest.raises(RefundExceedsPayment):
        await desk.reserve(1)
    assert await desk.attention() == []


@pytest.mark.parametrize("seen", [DONE, PROCESSING], ids=["done", "on its way"])
@pytest.mark.parametrize("is_named_so", [True, False], ids=["Alipay", "Stripe"])
async def test_one_that_the_record_lost_and_that_is_reserved_again(
    desk: Desk, is_named_so: bool, seen: RefundObservation
) -> None:
    """It is the same money: whoever repeats it is answered with what was found, and nobody asks
    the gateway for more, nor for it."""
    listed = told(LOST, 900, seen) if is_named_so else told("re_1", 900, seen, our_number=LOST)
    await desk.discover(ToldRefunds((listed,)))
    await desk.reserve(400, LOST)
    refunds = RefundActivities(desk.database, {GatewayName.ALIPAY: desk.gateway})
    asked = AskRefund(refund_id=LOST, gateway=GatewayName.ALIPAY, now=NOW)
    settled = SettleRefund(refund_id=LOST, gateway=GatewayName.ALIPAY, now=NOW)
    for standing in (await refunds.ask(asked), await refunds.settle(settled)):
        assert standing.refund.cause is RefundCause.ELSEWHERE
        assert standing.refund.amount == 900
    after = await desk.discover(ToldRefunds((replace(listed, observation=DONE),)))
    assert after.payment.amount_refunded == 900
    assert (await desk.balances())["revenue"] == 900 - AMOUNT
    assert len(await desk.refunds()) == 1
    assert (desk.gateway.refunds_asked, await desk.attention()) == ([], [])


async def test_copies_of_a_number_that_the_record_lost_are_refunds_of_their_own(
    desk: Desk,
) -> None:
    """Stripe lets anybody write the metadata of a refund, and keeps one that failed beside."""
    copies = (
        told("re_1", 900, our_number=LOST),
        told("re_2", 100, our_number=LOST),
    )
    for _ in range(2):
        standing = await desk.discover(ToldRefunds(copies))
        assert standing.payment.amount_refunded == 1000
    first, second = sorted(await desk.refunds(), key=lambda one: -one.refund.amount)
    assert (first.refund.id, second.refund.gateway_reference) == (LOST, "re_2")


async def test_one_with_the_number_of_another_payment_s_refund(desk: Desk) -> None:
    other = order(2)
    payments = PaymentActivities(desk.database, {GatewayName.ALIPAY: desk.gateway})
    await payments.open(OpenPayment(order=other, now=NOW))
    await payments.settle(
        SettlePayment(payment_id=other.payment_id, gateway=GatewayName.ALIPAY, now=NOW)
    )
    async with desk.database.begin() as work:
        await work.refunds.reserve(
            refund_id=LOST,
            payment_id=other.payment_id,
            application=None,
            attempt=None,
            amount_minor=900,
            cause=RefundCause.REQUESTED,
            reason="of the other",
            now=NOW,
        )
    for _ in range(2):
        standing = await desk.discover(ToldRefunds((told("re_1", 900, our_number=LOST),)))
        assert standing.payment.amount_refunded == 900
    [found] = await desk.refunds()
    assert found.refund.id != LOST


async def test_none_is_nothing(desk: Desk) -> None:
    before = await desk.balances()
    await desk.discover(ToldRefunds())
    await desk.discover(ToldRefunds((told("r1", 900, FAILED),)))
    assert (await desk.refunds(), await desk.balances()) == ([], before)


async def test_on_its_way_then_done_then_sent_back(desk: Desk) -> None:
    seen = []
    for observation in (PROCESSING, DONE, FAILED):
        standing = await desk.discover(ToldRefunds((told("r1", 900, observation),)))
        [record] = await desk.refunds()
        seen.append((record.refund.status, standing.payment.amount_refunded))
    assert seen == [
        (RefundStatus.PROCESSING, 0),
        (RefundStatus.SUCCEEDED, 900),
        (RefundStatus.FAILED, 0),
    ]
    assert (await desk.balances())["revenue"] == -AMOUNT


async def test_more_than_is_left_leaves_ours_to_the_gateway(desk: Desk) -> None:
    await desk.reserve(2000)
    standing = await desk.discover(ToldRefunds((told("r1", AMOUNT),)))
    assert standing.payment.amount_refunded == AMOUNT
    assert await desk.attention() == []


async def test_more_than_was_paid_calls_for_a_person(desk: Desk) -> None:
    for _ in range(2):
        standing = await desk.discover(ToldRefunds((told("r1", AMOUNT), told("r2", 1))))
        assert standing.payment.amount_refunded == AMOUNT
        assert await desk.attention() == [REFUNDED_ELSEWHERE]


async def test_a_rest_without_a_name(desk: Desk) -> None:
    standing = await desk.discover(ToldRefunds((told("r1", 900),), returned_minor=AMOUNT))
    assert standing.payment.amount_refunded == AMOUNT
    named = ToldRefunds((told("r1", 900), told("r2", AMOUNT - 900)), returned_minor=AMOUNT)
    standing = await desk.discover(named)
    assert standing.payment.amount_refunded == AMOUNT
    assert sorted(one.refund.amount for one in await desk.refunds()) == [900, AMOUNT - 900]
    assert await desk.attention() == []


async def test_a_rest_that_may_be_ours(desk: Desk) -> None:
    await desk.reserve(2000)
    await desk.discover(ToldRefunds(returned_minor=AMOUNT))
    assert len(await desk.refunds()) == 1
    assert await desk.attention() == [REFUNDED_ELSEWHERE]


async def test_a_refund_that_cannot_be_found_calls_for_a_person_until_it_is(desk: Desk) -> None:
    await desk.discover(ToldRefunds(is_any=True))
    assert await desk.attention() == [REFUNDED_ELSEWHERE]
    await desk.discover(ToldRefunds((told("r1", 900),), is_any=True))
    assert await desk.attention() == []


async def test_another_amount_under_a_known_number(desk: Desk) -> None:
    await desk.discover(ToldRefunds((told("r1", 900),)))
    standing = await desk.discover(ToldRefunds((told("r1", 901),)))
    assert standing.payment.amount_refunded == 900
    assert await desk.attention() == ["amount_mismatch"]


async def test_an_answer_that_cannot_be_trusted(desk: Desk) -> None:
    await desk.discover(AnswerUntrusted("order_mismatch", "of another order"))
    assert await desk.attention() == [REFUNDED_ELSEWHERE]
    await desk.discover(ToldRefunds())
    assert await desk.attention() == []


async def test_a_silent_gateway_is_asked_again(desk: Desk) -> None:
    with pytest.raises(ApplicationError) as raised:
        await desk.discover(OutcomeUnknown("silence"))
    assert raised.value.type == OutcomeUnknown.code


async def test_webhooks_name_what_is_asked_about(desk: Desk) -> None:
    async with desk.database.begin() as work:
        for number, refund in ((PAYMENT_ID, "r9"), (f"{PAYMENT_ID}02", "r8")):
            await work.inbox.store(
                GatewayName.ALIPAY,
                f"event of {refund}",
                "TRADE_SUCCESS",
                number,
                b"{}",
                NOW + timedelta(seconds=1),
                foreign_refund=refund,
            )
    await desk.discover(ToldRefunds())
    assert desk.gateway.hints == [["r9"]]


async def test_webhooks_name_what_the_record_lost(desk: Desk) -> None:
    ours = await desk.reserve(900)
    async with desk.database.begin() as work:
        for refund in (ours, LOST):
            await work.inbox.store(
                GatewayName.ALIPAY,
                f"event of {refund}",
                "TRADE_SUCCESS.REFUND",
                PAYMENT_ID,
                b"{}",
                NOW + timedelta(seconds=1),
                refund_number=refund,
            )
    await desk.discover(ToldRefunds())
    assert desk.gateway.hints == [[LOST]]


async def test_money_that_was_to_be_returned_and_went_back_elsewhere(database: Database) -> None:
    """Our return fails for it, and nobody is called."""
    gateway = ScriptedGateway()
    gateways = {GatewayName.ALIPAY: gateway}
    payments = PaymentActivities(database, gateways)
    await payments.open(OpenPayment(order=ORDER, now=NOW))
    await payments.end(EndPayment(payment_id=PAYMENT_ID, status=PaymentStatus.CANCELED, now=NOW))
    gateway.states[1] = ObservedState.PAID
    standing = await payments.settle(
        SettlePayment(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW)
    )
    [wanted] = standing.returns
    desk = Desk(database, gateway, DiscoveryActivities(database, gateways))
    await desk.discover(ToldRefunds((told("r1", AMOUNT),)))
    gateway.refunds[wanted.refund_id] = FAILED
    refunds = RefundActivities(database, gateways)
    await refunds.settle(
        SettleRefund(refund_id=wanted.refund_id, gateway=GatewayName.ALIPAY, now=NOW)
    )
    assert await desk.balances() == {}
    assert await desk.attention() == []
    assert {one.refund.status for one in await desk.refunds()} == {
        RefundStatus.SUCCEEDED,
        RefundStatus.FAILED,
    }
