"""Who is told of what was reported of a payment whose own workflow has ended."""

from typing import Any, cast

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.delivery import Delivery
from activities.payment import PaymentActivities
from billing.messages import AfterInput, GatewayReport, OpenPayment, SettlePayment, Standing
from billing.payment import GatewayName, PaymentMethod
from gateways.gateway import ObservedState
from storage.database import Database
from storage.inbox import InboxEntry, InboxOutcome
from tests.activities.scripted import NOW, ScriptedGateway, order

ORDER = order()
PAYMENT_ID = ORDER.payment_id
REPORT = GatewayReport(event_id="stripe/evt_1", event_type="charge.dispute.created")


class Stripe(ScriptedGateway):
    name = GatewayName.STRIPE


class Ended:
    """In Temporal's place: no workflow runs, and those for afterwards are started."""

    def __init__(self) -> None:
        self.started: list[AfterInput] = []
        self.told: list[GatewayReport] = []

    def get_workflow_handle(self, _: str) -> "Ended":
        return self

    async def signal(self, *_: Any, **__: Any) -> None:
        raise RPCError("it has ended", RPCStatusCode.NOT_FOUND, b"")

    async def start_workflow(
        self, _: str, after: AfterInput, start_signal_args: list[GatewayReport], **__: Any
    ) -> None:
        self.started.append(after)
        self.told += start_signal_args


@pytest.fixture
async def standing(database: Database) -> Standing:
    """Ordered at Alipay, switched and paid at Stripe; the worker has Stripe's keys alone since."""
    alipay, stripe = ScriptedGateway(), Stripe()
    before = PaymentActivities(database, {GatewayName.ALIPAY: alipay, GatewayName.STRIPE: stripe})
    await before.open(OpenPayment(order=ORDER, now=NOW))
    async with database.begin() as work:
        await work.attempts.add(
            PAYMENT_ID, 2, GatewayName.STRIPE, PaymentMethod.CARD, ORDER.expires_at, NOW
        )
    stripe.states[2] = ObservedState.PAID
    await before.settle(SettlePayment(payment_id=PAYMENT_ID, gateway=GatewayName.STRIPE, now=NOW))
    after = PaymentActivities(database, {GatewayName.STRIPE: stripe})
    return await after.settle(
        SettlePayment(payment_id=PAYMENT_ID, gateway=GatewayName.STRIPE, now=NOW)
    )


async def test_a_gateway_switched_off_since_is_not_waited_for(standing: Standing) -> None:
    """No worker serves its queue: a dispute or refund elsewhere would never be asked about."""
    assert standing.gateways == (GatewayName.STRIPE,)
    assert standing.open_gateways == (GatewayName.ALIPAY,)


@pytest.mark.usefixtures("standing")
async def test_the_gateway_that_paid_is_asked_first(database: Database) -> None:
    temporal = Ended()
    delivery = Delivery(cast(Client, temporal), database)
    assert await delivery.observe(PAYMENT_ID, REPORT) is InboxOutcome.DELIVERED
    assert temporal.started == [AfterInput(payment_id=PAYMENT_ID, gateway=GatewayName.STRIPE)]


@pytest.mark.usefixtures("standing")
async def test_the_gateway_that_reported_is_asked_first(database: Database) -> None:
    temporal = Ended()
    entry = InboxEntry(
        1, GatewayName.ALIPAY, "notify_1", "trade_status_sync", PAYMENT_ID, PAYMENT_ID, 0
    )
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert temporal.started == [AfterInput(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY)]


@pytest.fixture
async def paid(database: Database) -> None:
    """Ordered once, at Alipay, and paid."""
    alipay = ScriptedGateway()
    payments = PaymentActivities(database, {GatewayName.ALIPAY: alipay})
    await payments.open(OpenPayment(order=ORDER, now=NOW))
    alipay.states[1] = ObservedState.PAID
    await payments.settle(SettlePayment(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, now=NOW))


def told(event_type: str, number: str = PAYMENT_ID, **named: str) -> InboxEntry:
    return InboxEntry(1, GatewayName.ALIPAY, "notify_1", event_type, PAYMENT_ID, number, 0, **named)


@pytest.mark.usefixtures("paid")
@pytest.mark.parametrize(
    ("entry", "is_looked_after"),
    [
        (told("TRADE_SUCCESS"), False),
        (told("TRADE_SUCCESS", foreign_refund="r9"), True),
        (told("TRADE_SUCCESS", f"{PAYMENT_ID}02"), True),
        (told("TRADE_CLOSED"), True),
        (told("TRADE_FINISHED"), True),
    ],
    ids=["known", "refund-elsewhere", "another-order", "closed", "another-word"],
)
async def test_only_what_the_record_knows_already_has_nobody_asked(
    database: Database, entry: InboxEntry, is_looked_after: bool
) -> None:
    temporal = Ended()
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert bool(temporal.started) is is_looked_after


@pytest.mark.usefixtures("standing")
async def test_of_two_orders_the_other_may_have_been_paid_too(database: Database) -> None:
    temporal = Ended()
    await Delivery(cast(Client, temporal), database).deliver(told("TRADE_SUCCESS"))
    assert temporal.started


@pytest.mark.usefixtures("paid")
async def test_a_refund_of_ours_that_the_record_lost_is_one_made_elsewhere(
    database: Database,
) -> None:
    temporal = Ended()
    entry = told("TRADE_SUCCESS.REFUND", refund_id="ref_01h455vb4pex5vsknk084sn03r")
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert temporal.started == [AfterInput(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY)]
    assert [report.is_refund for report in temporal.told] == [True]


@pytest.mark.usefixtures("paid")
async def test_one_that_names_no_order_of_ours_is_found_by_the_gateway_s_number(
    database: Database,
) -> None:
    temporal = Ended()
    entry = InboxEntry(
        1,
        GatewayName.ALIPAY,
        "notify_1",
        "refund.created",
        None,
        None,
        0,
        refund_id="ref_01h455vb4pex5vsknk084sn03r",
        refunded_reference=f"trade_{PAYMENT_ID}",
    )
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert [report.is_refund for report in temporal.told] == [True]


class Running(Ended):
    """Every workflow runs, and hears what it is told."""

    async def signal(self, _: str, report: GatewayReport, **__: Any) -> None:
        self.told.append(report)


@pytest.mark.usefixtures("paid")
@pytest.mark.parametrize("is_claimed", [False, True])
@pytest.mark.parametrize("of_temporal", [Ended, Running], ids=["gone", "running"])
async def test_neither_process_nor_claim_hides_a_refund_that_the_record_lost(
    database: Database, of_temporal: type[Ended], is_claimed: bool
) -> None:
    """After a restore the process goes on in Temporal, and has no row to write to; a claim is
    committed before the row, and may be all that the restore left."""
    if is_claimed:
        async with database.begin() as work:
            await work.claims.claim(
                application="shop",
                key="lost",
                fingerprint="f",
                command="refund",
                object_id="ref_01h455vb4pex5vsknk084sn03r",
                request=b"{}",
                now=NOW,
            )
    temporal = of_temporal()
    entry = told("TRADE_SUCCESS.REFUND", refund_id="ref_01h455vb4pex5vsknk084sn03r")
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert [report.is_refund for report in temporal.told] == [True]


@pytest.mark.usefixtures("paid")
async def test_one_recorded_as_made_elsewhere_under_its_number_is_its_payment_s(
    database: Database,
) -> None:
    async with database.begin() as work:
        await work.refunds.note_elsewhere(
            refund_id="ref_01h455vb4pex5vsknk084sn03r",
            payment_id=PAYMENT_ID,
            attempt=1,
            amount_minor=900,
            number="ref_01h455vb4pex5vsknk084sn03r",
            now=NOW,
        )
    temporal = Ended()
    entry = told("TRADE_SUCCESS.REFUND", refund_id="ref_01h455vb4pex5vsknk084sn03r")
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert temporal.started == [AfterInput(payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY)]
    assert [report.is_refund for report in temporal.told] == [True]


async def test_a_refund_of_nobody_s_payment_stays_unmatched(database: Database) -> None:
    temporal = Ended()
    entry = told("TRADE_SUCCESS.REFUND", refund_id="ref_01h455vb4pex5vsknk084sn03r")
    await Delivery(cast(Client, temporal), database).deliver(entry)
    assert temporal.started == []
