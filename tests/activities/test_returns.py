"""Money that no payment waits for: set aside with its receipt, once, and given back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Self, cast

import pytest
from sqlalchemy import update
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy

from activities.discovery import DiscoveryActivities
from activities.payment import PaymentActivities
from activities.refund import UNANSWERED, RefundActivities
from activities.resumption import Resumption
from billing.errors import NothingToReturn
from billing.identifiers import return_id
from billing.messages import (
    AskRefund,
    ClosePayment,
    DiscoverRefunds,
    GatewayReport,
    OpenPayment,
    RefundRequest,
    ReserveRefund,
    ReviewAction,
    ReviewDecision,
    SettlePayment,
    SettleRefund,
    Standing,
)
from billing.payment import Failure, GatewayName, PaymentStatus
from billing.refund import RefundCause, RefundStatus
from gateways.gateway import (
    ForeignRefund,
    ObservedState,
    RefundObservation,
    RefundState,
    ToldRefunds,
)
from storage.database import Database
from storage.events import EventRecord
from storage.refund_rows import RefundRecord
from storage.tables import refunds
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

ORDER = order()
PAYMENT_ID = ORDER.payment_id
RETURN_ID = return_id(PAYMENT_ID, 1)
LATER = NOW + timedelta(seconds=10)
SUCCEEDED = RefundObservation(RefundState.SUCCEEDED, "REFUND_SUCCESS", "r_1", refunded_at=LATER)
FAILED = RefundObservation(
    RefundState.FAILED, "FAILED", "r_1", Failure(code="refused", message="the account is closed")
)


class Desk:
    """A payment that was canceled and paid all the same, and all that is done about it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.gateway = ScriptedGateway()
        gateways = {GatewayName.ALIPAY: self.gateway}
        self.payments = PaymentActivities(database, gateways)
        self.refunds = RefundActivities(database, gateways)

    async def cancel(self) -> None:
        await self.payments.open(OpenPayment(order=ORDER, now=NOW))
        await self.payments.close(
            ClosePayment(
                payment_id=PAYMENT_ID,
                gateway=GatewayName.ALIPAY,
                status=PaymentStatus.CANCELED,
                now=NOW,
            )
        )

    async def settle(self, review: ReviewDecision | None = None) -> Standing:
        return await self.payments.settle(
            SettlePayment(
                payment_id=PAYMENT_ID,
                gateway=GatewayName.ALIPAY,
                now=NOW,
                thorough=True,
                review=review,
            )
        )

    async def pay_late(self) -> RefundRequest:
        self.gateway.states[1] = ObservedState.PAID
        [back] = (await self.settle()).returns
        return back

    async def give_back(self, back: RefundRequest, answer: RefundObservation) -> RefundStatus:
        """As the refund's workflow does, each step twice."""
        for _ in range(2):
            await self.refunds.reserve(ReserveRefund(request=back, now=NOW))
        for _ in range(2):
            await self.refunds.ask(
                AskRefund(refund_id=back.refund_id, gateway=back.gateway, now=NOW)
            )
        self.gateway.refunds[back.refund_id] = answer
        for _ in range(2):
            standing = await self.refunds.settle(
                SettleRefund(refund_id=back.refund_id, gateway=back.gateway, now=LATER)
            )
        return standing.refund.status

    async def rows(self) -> list[RefundRecord]:
        async with self.database.begin() as work:
            return await work.refunds.of_payment(PAYMENT_ID)

    async def told(self) -> list[EventRecord]:
        async with self.database.begin() as work:
            page = await work.events.after(application="shop", cursor=None, limit=100)
        return [one for one in page.data if "receipt" in one.type or "return" in one.type]

    async def balances(self) -> dict[str, int]:
        async with self.database.begin() as work:
            found = await work.ledger.balances()
        return {each.account: each.balance_minor for each in found if each.balance_minor}

    async def attention(self) -> list[str]:
        async with self.database.begin() as work:
            return [each.reason for each in await work.attention.open(PAYMENT_ID)]


@pytest.fixture
async def desk(database: Database) -> Desk:
    made = Desk(database)
    await made.cancel()
    return made


async def test_set_aside_with_its_receipt(desk: Desk) -> None:
    back = await desk.pay_late()
    assert (back.refund_id, back.payment_id, back.attempt) == (RETURN_ID, PAYMENT_ID, 1)
    assert (back.amount_minor, back.currency, back.user_id) == (AMOUNT, "CNY", "user_1")
    assert back.cause is RefundCause.RETURNED
    [row] = await desk.rows()
    assert (row.refund.id, row.refund.status) == (RETURN_ID, RefundStatus.PENDING)
    [event] = await desk.told()
    assert event.type == "payment.receipt_unapplied"
    assert event.data["refund_id"] == RETURN_ID
    assert desk.gateway.refunds_asked == []


async def test_found_again_it_is_set_aside_once(desk: Desk) -> None:
    first = await desk.pay_late()
    for _ in range(2):
        assert (await desk.settle()).returns == (first,)
    assert len(await desk.rows()) == len(await desk.told()) == 1
    assert await desk.balances() == {
        "gateway_clearing:alipay": AMOUNT,
        "unapplied_receipts:alipay": -AMOUNT,
    }


async def test_given_back_once_whatever_is_repeated(desk: Desk) -> None:
    back = await desk.pay_late()
    assert await desk.give_back(back, SUCCEEDED) is RefundStatus.SUCCEEDED
    assert desk.gateway.refunds_asked == [RETURN_ID]
    assert await desk.balances() == {}
    assert [event.type for event in await desk.told()] == [
        "payment.receipt_unapplied",
        "payment.receipt_returned",
    ]
    standing = await desk.settle()
    assert standing.returns == ()
    assert standing.payment.status is PaymentStatus.CANCELED
    assert standing.payment.amount_refunded == 0
    assert not standing.needs_attention


async def test_one_that_fails_calls_for_a_person_and_stays_in_the_ledger(desk: Desk) -> None:
    back = await desk.pay_late()
    assert await desk.give_back(back, FAILED) is RefundStatus.FAILED
    assert [event.type for event in await desk.told()] == [
        "payment.receipt_unapplied",
        "payment.return_failed",
    ]
    assert await desk.attention() == ["return_failed"]
    assert await desk.balances() == {
        "gateway_clearing:alipay": AMOUNT,
        "unapplied_receipts:alipay": -AMOUNT,
    }
    standing = await desk.settle()
    assert standing.returns == ()
    assert standing.needs_attention


async def test_under_way_it_is_named_until_it_has_ended(desk: Desk) -> None:
    """A worker that dies after the record leaves it to whoever asks next to start the refund."""
    back = await desk.pay_late()
    await desk.refunds.ask(AskRefund(refund_id=RETURN_ID, gateway=GatewayName.ALIPAY, now=NOW))
    assert (await desk.settle()).returns == (back,)


class Starts:
    """In Temporal's place: the workflows that were to be started."""

    def __init__(self) -> None:
        self.refunds: list[RefundRequest] = []
        self.policies: set[WorkflowIDReusePolicy] = set()
        self.reports: list[GatewayReport] = []

    def get_workflow_handle(self, _: str) -> Self:
        return self

    async def signal(self, _: str, report: GatewayReport, **__: object) -> None:
        self.reports.append(report)

    async def start_workflow(
        self,
        _: str,
        request: RefundRequest,
        *,
        id_reuse_policy: WorkflowIDReusePolicy,
        **__: object,
    ) -> None:
        self.refunds.append(request)
        self.policies.add(id_reuse_policy)


DECISION = ReviewDecision(action=ReviewAction.RETURN, reason="again", reviewed_by="key_1")


async def _given_back_elsewhere(desk: Desk, amount_minor: int, number: str = "re_9") -> None:
    """Somebody gives a part back in the gateway's dashboard."""
    desk.gateway.told_refunds[PAYMENT_ID] = ToldRefunds(
        (ForeignRefund(number, amount_minor, replace(SUCCEEDED, reference=number)),)
    )
    discovery = DiscoveryActivities(desk.database, {GatewayName.ALIPAY: desk.gateway})
    await discovery.discover(
        DiscoverRefunds(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=LATER)
    )


async def test_what_is_left_of_money_given_back_in_part_elsewhere_is_returned_by_hand(
    desk: Desk,
) -> None:
    """The whole could not be returned any more, a part having gone back elsewhere meanwhile."""
    back = await desk.pay_late()
    await _given_back_elsewhere(desk, 900)
    assert await desk.give_back(back, FAILED) is RefundStatus.FAILED
    starts = Starts()
    await Resumption(cast(Client, starts), desk.database).give_back(PAYMENT_ID, DECISION)
    [again] = starts.refunds
    assert await desk.give_back(again, SUCCEEDED) is RefundStatus.SUCCEEDED
    assert await desk.balances() == {}
    assert await desk.attention() == []
    with pytest.raises(NothingToReturn):
        await Resumption(cast(Client, starts), desk.database).give_back(PAYMENT_ID, DECISION)


async def test_what_is_left_beside_a_return_that_the_record_had_lost(desk: Desk) -> None:
    """The second had failed and is not in the record again, the third has a number of its own."""
    assert await desk.give_back(await desk.pay_late(), FAILED) is RefundStatus.FAILED
    await _given_back_elsewhere(desk, 900, return_id(PAYMENT_ID, 1, 3))
    starts = Starts()
    await Resumption(cast(Client, starts), desk.database).give_back(PAYMENT_ID, DECISION)
    [again] = starts.refunds
    assert await desk.give_back(again, SUCCEEDED) is RefundStatus.SUCCEEDED
    assert await desk.balances() == {}


async def test_on_its_way_back_it_is_not_returned_twice(desk: Desk) -> None:
    await desk.pay_late()
    starts = Starts()
    with pytest.raises(NothingToReturn):
        await Resumption(cast(Client, starts), desk.database).give_back(PAYMENT_ID, DECISION)
    assert starts.refunds == []


async def test_other_money_that_comes_late_is_returned_by_hand(desk: Desk) -> None:
    await desk.cancel()
    desk.gateway.amounts[1] = AMOUNT + 1
    desk.gateway.states[1] = ObservedState.PAID
    for _ in range(2):
        mistrusted = await desk.settle()
        assert (mistrusted.returns, mistrusted.needs_attention) == ((), True)
    assert await desk.attention() == ["amount_mismatch"]
    for _ in range(2):
        standing = await desk.settle(review=DECISION)
        assert standing.payment.status is PaymentStatus.CANCELED
        assert [back.amount_minor for back in standing.returns] == [AMOUNT + 1]
    assert await desk.attention() == []
    assert await desk.balances() == {
        "gateway_clearing:alipay": AMOUNT + 1,
        "unapplied_receipts:alipay": -AMOUNT - 1,
    }


async def test_money_that_was_not_believed_is_asked_about_again(desk: Desk) -> None:
    """Nothing of it stands in the record, so that nothing could be set aside for its return."""
    await desk.cancel()
    desk.gateway.amounts[1] = AMOUNT + 1
    desk.gateway.states[1] = ObservedState.PAID
    assert (await desk.settle()).returns == ()
    starts = Starts()
    for _ in range(2):
        decided = Resumption(cast(Client, starts), desk.database)
        assert await decided.give_back(PAYMENT_ID, DECISION) == []
    assert [report.review for report in starts.reports] == [DECISION, DECISION]
    assert len({report.event_id for report in starts.reports}) == 2
    assert starts.refunds == []


async def test_a_return_that_could_not_be_reserved_can_be_tried_again(desk: Desk) -> None:
    """As while the money is disputed: its workflow has ended, and left no refund behind."""
    await desk.give_back(await desk.pay_late(), FAILED)
    starts = Starts()
    for _ in range(2):
        await Resumption(cast(Client, starts), desk.database).give_back(PAYMENT_ID, DECISION)
    assert starts.refunds[0].refund_id == starts.refunds[1].refund_id
    assert starts.policies == {WorkflowIDReusePolicy.ALLOW_DUPLICATE}


@pytest.mark.parametrize(
    ("waited", "called_for"), [(timedelta(hours=1), []), (timedelta(hours=3), [UNANSWERED])]
)
async def test_a_refund_that_no_worker_asks_for_calls_for_a_person(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, waited: timedelta, called_for: list[str]
) -> None:
    """Its process runs, and the queue of its gateway is nobody's."""

    async def runs(*_: object) -> bool:
        return True

    monkeypatch.setattr(Resumption, "_is_running", runs)
    back, resumption = await desk.pay_late(), Resumption(cast(Client, Starts()), desk.database)
    reserved_at = datetime.now(UTC) - waited
    async with desk.database.begin() as work:
        await work.connection.execute(
            update(refunds).where(refunds.c.id == back.refund_id).values(ask_at=reserved_at)
        )
    for _ in range(2):
        assert not await resumption.resume_refund(back.refund_id)
    assert await desk.attention() == called_for
    assert await desk.give_back(back, SUCCEEDED) is RefundStatus.SUCCEEDED
    assert await desk.attention() == []
