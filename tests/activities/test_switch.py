"""What a switch does to the record, with scripted gateways and real PostgreSQL."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from temporalio.exceptions import ApplicationError

from activities.payment import PaymentActivities
from activities.switch import SwitchActivities
from billing.errors import GatewayMisconfigured, InstructionsLost, OutcomeUnknown
from billing.identifiers import MAX_ATTEMPT, attempt_number
from billing.messages import (
    ClosePayment,
    OpenPayment,
    SettlePayment,
    Standing,
    SwitchOrder,
    SwitchPayment,
)
from billing.payment import (
    AttemptState,
    Failure,
    GatewayName,
    Payer,
    PaymentMethod,
    PaymentStatus,
)
from gateways.gateway import AlreadyOrdered, ObservedState, OpenOutcome, Order, Refused
from storage.database import Database
from storage.payments import PaymentRecord
from storage.tables import payment_attempts
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

ORDER = order()
PAYMENT_ID = ORDER.payment_id
LATER = NOW + timedelta(seconds=5)
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
RETURN_URL = "https://shop.example/back/of/user_1"
TO_WECHATPAY = SwitchOrder(
    application="shop", gateway=GatewayName.WECHATPAY, method=PaymentMethod.NATIVE
)
TO_JSAPI = SwitchOrder(
    application="shop",
    gateway=GatewayName.WECHATPAY,
    method=PaymentMethod.JSAPI,
    return_url=RETURN_URL,
    payer=Payer(openid=OPENID),
)


class Desk:
    """A payment that waits at Alipay, the activities that switch it, and what they left."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.old, self.new = ScriptedGateway(), ScriptedGateway()
        self.new.name = GatewayName.WECHATPAY
        gateways = {GatewayName.ALIPAY: self.old, GatewayName.WECHATPAY: self.new}
        self.payments = PaymentActivities(database, gateways)
        self.switches = SwitchActivities(database, gateways)

    async def open(self) -> None:
        await self.payments.open(OpenPayment(order=ORDER, now=NOW))

    async def switch(self, to: SwitchOrder = TO_WECHATPAY, replaces: int = 1) -> Standing:
        return await self.switches.switch(
            SwitchPayment(payment_id=PAYMENT_ID, order=to, replaces=replaces, now=LATER)
        )

    async def settle(self, gateway: GatewayName, *, thorough: bool = False) -> Standing:
        return await self.payments.settle(
            SettlePayment(payment_id=PAYMENT_ID, gateway=gateway, now=LATER, thorough=thorough)
        )

    async def record(self) -> PaymentRecord:
        async with self.database.begin() as work:
            record = await work.payments.find(PAYMENT_ID)
        assert record is not None
        return record

    async def states(self) -> dict[int, AttemptState]:
        return {one.attempt: one.state for one in (await self.record()).attempts}

    async def events(self) -> list[str]:
        async with self.database.begin() as work:
            page = await work.events.after(application="shop", cursor=None, limit=100)
        return [event.type for event in page.data]


@pytest.fixture
async def desk(database: Database) -> Desk:
    made = Desk(database)
    await made.open()
    return made


async def test_the_new_way_takes_the_old_ones_place(desk: Desk) -> None:
    standing = await desk.switch()
    payment = standing.payment
    assert (payment.gateway, payment.method) == (GatewayName.WECHATPAY, PaymentMethod.NATIVE)
    assert (payment.status, payment.attempt) == (PaymentStatus.REQUIRES_ACTION, 2)
    number = attempt_number(PAYMENT_ID, 2)
    assert payment.next_action.model_dump()["code_url"] == f"https://qr.example/{number}"
    assert standing.open_attempts == (1, 2)
    assert standing.refusal is None
    assert desk.new.opened == [number]


async def test_a_repeat_after_the_record_asks_nobody(desk: Desk) -> None:
    first = await desk.switch()
    assert await desk.switch() == first
    assert len(desk.new.opened) == 1


async def test_a_repeat_before_the_record_asks_under_the_same_number(desk: Desk) -> None:
    async def unanswered(order: Order) -> OpenOutcome:
        raise OutcomeUnknown("cut")

    desk.new.on_open = unanswered
    for _ in range(2):
        with pytest.raises(ApplicationError) as raised:
            await desk.switch()
        assert not raised.value.non_retryable
    assert (await desk.record()).payment.attempt == 1
    desk.new.on_open = None
    assert (await desk.switch()).payment.attempt == 2
    assert desk.new.opened == [attempt_number(PAYMENT_ID, 2)] * 3


async def test_another_way_does_not_take_up_what_was_left_unanswered(desk: Desk) -> None:
    """It may have been placed with the other's parameters, and money may yet come by it."""

    async def unanswered(order: Order) -> OpenOutcome:
        raise OutcomeUnknown("cut")

    desk.new.on_open = unanswered
    with pytest.raises(ApplicationError):
        await desk.switch()
    desk.new.on_open = None
    standing = await desk.switch(TO_JSAPI)
    assert standing.payment.attempt == 3
    assert standing.open_attempts == (1, 2, 3)


@pytest.mark.parametrize("lost", [InstructionsLost("gone"), None], ids=["lost", "in use"])
async def test_lost_instructions_take_the_next_number(
    desk: Desk, lost: InstructionsLost | None
) -> None:
    async def lost_once(order: Order) -> OpenOutcome:
        desk.new.on_open = None
        if lost is not None:
            raise lost
        return AlreadyOrdered()

    desk.new.on_open = lost_once
    standing = await desk.switch()
    assert standing.payment.attempt == 3
    assert standing.open_attempts == (1, 2, 3)
    desk.new.states[2] = ObservedState.PAID
    paid = await desk.settle(GatewayName.WECHATPAY)
    assert paid.payment.status is PaymentStatus.SUCCEEDED


async def test_lost_again_and_again_leaves_the_old_way(desk: Desk) -> None:
    async def lost(order: Order) -> OpenOutcome:
        raise InstructionsLost("gone")

    desk.new.on_open = lost
    standing = await desk.switch()
    assert (standing.payment.gateway, standing.payment.attempt) == (GatewayName.ALIPAY, 1)
    assert standing.refusal is None
    assert standing.open_attempts == (1, 2, 3, 4)


@pytest.mark.parametrize("problem", [None, GatewayMisconfigured("invalid mchid")])
async def test_refused_leaves_the_old_way(desk: Desk, problem: Exception | None) -> None:
    before = (await desk.record()).payment

    async def refused(order: Order) -> OpenOutcome:
        if problem is not None:
            raise problem
        return Refused(Failure(code="order_refused", message="risk"))

    desk.new.on_open = refused
    for attempt in (2, 3):
        standing = await desk.switch()
        assert standing.refusal is not None
        assert standing.refusal.code == ("gateway_misconfigured" if problem else "order_refused")
        assert standing.payment == before
        assert standing.open_attempts == (1,)
        assert (await desk.states())[attempt] is AttemptState.DEAD
    assert "payment.switched" not in await desk.events()


async def test_no_more_attempts_than_a_number_can_tell(desk: Desk) -> None:
    async with desk.database.begin() as work:
        for attempt in range(2, MAX_ATTEMPT + 1):
            await work.attempts.add(
                PAYMENT_ID, attempt, ORDER.gateway, ORDER.method, ORDER.expires_at, NOW
            )
    standing = await desk.switch()
    assert standing.refusal is not None
    assert standing.refusal.code == "attempts_exhausted"
    assert standing.payment.attempt == 1
    assert desk.new.opened == []


async def test_paid_in_the_old_way_meanwhile(desk: Desk) -> None:
    """The new order is placed all the same, and watched; what comes by it goes back."""

    async def paid_meanwhile(order: Order) -> OpenOutcome:
        desk.new.on_open = None
        desk.old.states[1] = ObservedState.PAID
        await desk.settle(GatewayName.ALIPAY)
        return await desk.new.open(order)

    desk.new.on_open = paid_meanwhile
    standing = await desk.switch()
    assert standing.payment.status is PaymentStatus.SUCCEEDED
    assert (standing.payment.gateway, standing.payment.attempt) == (GatewayName.ALIPAY, 1)
    assert standing.payment.next_action.type == "none"
    assert standing.open_attempts == (2,)
    assert "payment.switched" not in await desk.events()
    desk.new.states[2] = ObservedState.PAID
    late = await desk.settle(GatewayName.WECHATPAY)
    assert [(back.gateway, back.attempt, back.amount_minor) for back in late.returns] == [
        (GatewayName.WECHATPAY, 2, AMOUNT)
    ]


async def test_paid_before_asks_nobody(desk: Desk) -> None:
    desk.old.states[1] = ObservedState.PAID
    paid = await desk.settle(GatewayName.ALIPAY)
    assert await desk.switch() == paid
    assert desk.new.opened == []
    assert list(await desk.states()) == [1]


async def test_paid_in_the_old_way_afterwards(desk: Desk) -> None:
    """The payment shows the attempt that paid for it."""
    await desk.switch()
    desk.old.states[1] = ObservedState.PAID
    standing = await desk.settle(GatewayName.ALIPAY)
    assert standing.payment.status is PaymentStatus.SUCCEEDED
    assert (standing.payment.gateway, standing.payment.attempt) == (GatewayName.ALIPAY, 1)
    assert standing.open_attempts == (2,)


async def test_what_was_switched_away_from_is_closed(desk: Desk) -> None:
    await desk.switch()
    standing = await desk.payments.close(
        ClosePayment(
            payment_id=PAYMENT_ID, gateway=GatewayName.ALIPAY, status=None, now=LATER, spare=2
        )
    )
    assert standing.payment.status is PaymentStatus.REQUIRES_ACTION
    assert await desk.states() == {1: AttemptState.DEAD, 2: AttemptState.OPEN}
    assert desk.old.closed == [PAYMENT_ID]
    assert desk.new.closed == []


async def test_each_attempt_keeps_its_own_details(desk: Desk) -> None:
    asked: list[Order] = []

    async def seen(order: Order) -> OpenOutcome:
        asked.append(order)
        desk.new.on_open = None
        outcome = await desk.new.open(order)
        desk.new.on_open = seen
        return outcome

    desk.new.on_open = seen
    await desk.switch(TO_JSAPI)
    await desk.switch(TO_WECHATPAY, replaces=2)
    assert [(one.return_url, one.payer) for one in asked] == [
        (RETURN_URL, Payer(openid=OPENID)),
        (None, None),
    ]
    kept = {one.attempt: one.details for one in (await desk.record()).attempts}
    assert kept[1] is None
    assert kept[2] is not None
    assert (kept[2].return_url, kept[2].payer) == (RETURN_URL, Payer(openid=OPENID))
    assert kept[3] is not None
    assert (kept[3].return_url, kept[3].payer) == (None, None)


async def test_details_are_sealed_in_the_row(desk: Desk) -> None:
    await desk.switch(TO_JSAPI)
    async with desk.database.begin() as work:
        rows = await work.connection.scalars(select(payment_attempts.c.details))
    sealed = [bytes(row) for row in rows if row is not None]
    assert len(sealed) == 1
    assert OPENID.encode() not in sealed[0]
    assert RETURN_URL.encode() not in sealed[0]
