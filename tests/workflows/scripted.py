"""A gateway and a record in a few lines of memory, for tests of the workflow's own decisions.

The activities have the real names and messages; what they answer is set by the test.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from billing.messages import (
    ClosePayment,
    EndPayment,
    FlagPayment,
    OpenPayment,
    PaymentOrder,
    RefundRequest,
    ReviewDecision,
    SettleDisputes,
    SettlePayment,
    Standing,
    SwitchPayment,
)
from billing.payment import (
    Failure,
    GatewayName,
    NoAction,
    Payment,
    PaymentMethod,
    PaymentStatus,
    QrCode,
    Review,
)

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAYMENT_ID = "pay_01hf7yat00fzzvzzzzzzzzzzzz"


def order(payment_id: str, now: datetime, expires_in_seconds: int = 1800) -> PaymentOrder:
    return PaymentOrder(
        payment_id=payment_id,
        application="shop",
        user_id="user_1",
        amount_minor=2900,
        currency="CNY",
        gateway=GatewayName.WECHATPAY,
        method=PaymentMethod.NATIVE,
        description="A month of BASIC",
        created_at=now,
        expires_at=now + timedelta(seconds=expires_in_seconds),
    )


class ScriptedActivities:
    """`paid`, `refuses`, `silent`, `untrusted`, `dies` steer the gateway; `calls` tells what was
    asked of it, in order, and `decisions` what each settling was decided by. `may_be_disputed` is
    money once it is paid, and `another_is_alive` an attempt that nothing closes; `left_open_at` is
    where others may be paid that were switched away from. `refuses_switch` is the gateway's word on
    any switch, which waits for `switches`; `returns` are the refunds that every answer names. While
    `answers` is not set, what was recorded is not yet told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.paid = False
        self.refuses = False
        self.silent: set[str] = set()
        self.untrusted = False
        self.dies = True
        self.pays_at_close = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.status = PaymentStatus.CREATED
        self.is_alive = False
        self.unapplied = False
        self.decisions: list[ReviewDecision | None] = []
        self.may_be_disputed = False
        self.another_is_alive = False
        self.left_open_at: tuple[GatewayName, ...] = ()
        self.refuses_switch = False
        self.switches = asyncio.Event()
        self.switches.set()
        self.switched: list[SwitchPayment] = []
        self.returns: tuple[RefundRequest, ...] = ()
        self._way: tuple[GatewayName, PaymentMethod] | None = None
        self._order: PaymentOrder | None = None

    @activity.defn(name="payment.open")
    async def open(self, request: OpenPayment) -> Standing:
        self._begin("open")
        self._order = request.order
        if self.refuses:
            self._move(PaymentStatus.FAILED)
        else:
            self.is_alive = True
            self._move(PaymentStatus.REQUIRES_ACTION)
        return self._standing()

    @activity.defn(name="payment.switch")
    async def switch(self, request: SwitchPayment) -> Standing:
        self._begin("switch")
        self.switched.append(request)
        while not self.switches.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        if self.refuses_switch:
            refusal = Failure(code="order_refused", message="this merchant may not sell")
            return self._standing().model_copy(update={"refusal": refusal})
        if self.status is PaymentStatus.REQUIRES_ACTION:
            self._way = request.order.gateway, request.order.method
        return self._standing()

    @activity.defn(name="payment.settle")
    async def settle(self, request: SettlePayment) -> Standing:
        self._begin("settle")
        self.decisions.append(request.review)
        self._observe(reviewed=request.review is not None)
        await self.answers.wait()
        return self._standing()

    @activity.defn(name="payment.close")
    async def close(self, request: ClosePayment) -> Standing:
        self._begin("close")
        self._order = self._order or request.order
        if self.pays_at_close:
            self.paid = True
        self._observe(reviewed=request.review is not None)
        if self.dies and not self.paid:
            self.is_alive = False
        if request.status is not None:
            self._end(request.status, reviewed=request.review is not None)
        return self._standing()

    @activity.defn(name="dispute.settle")
    async def settle_disputes(self, request: SettleDisputes) -> Standing:
        self._begin("dispute")
        return self._standing()

    @activity.defn(name="payment.end")
    async def end(self, request: EndPayment) -> Standing:
        self._begin("end")
        self._order = self._order or request.order
        self._end(request.status, reviewed=False)
        return self._standing()

    @activity.defn(name="payment.flag")
    async def flag(self, request: FlagPayment) -> None:
        self._begin("flag")

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        if call in self.silent:
            raise ApplicationError("no answer", type="outcome_unknown")

    def _observe(self, *, reviewed: bool) -> None:
        if self.status is PaymentStatus.NEEDS_REVIEW and not reviewed:
            return
        if self.untrusted:
            self._move(PaymentStatus.NEEDS_REVIEW)
        elif self.paid and self.is_alive:
            self.is_alive = False
            if self.status.is_terminal:
                self.unapplied = True
            else:
                self._move(PaymentStatus.SUCCEEDED)

    def _end(self, status: PaymentStatus, *, reviewed: bool) -> None:
        if self.status is not PaymentStatus.NEEDS_REVIEW or reviewed:
            self._move(status)

    def _move(self, status: PaymentStatus) -> None:
        if not self.status.is_terminal:
            self.status = status

    def _standing(self) -> Standing:
        assert self._order is not None
        ordered, parked = self._order, self.status is PaymentStatus.NEEDS_REVIEW
        waiting = self.status is PaymentStatus.REQUIRES_ACTION
        gateway, method = self._way or (ordered.gateway, ordered.method)
        payment = Payment(
            id=ordered.payment_id,
            type=ordered.type,
            status=self.status,
            amount=ordered.amount_minor,
            currency=ordered.currency,
            gateway=gateway,
            method=method,
            user_id=ordered.user_id,
            description=ordered.description,
            metadata=ordered.metadata,
            attempt=1 if self._way is None else 1 + len(self.switched),
            gateway_reference="4200000001" if self.status is PaymentStatus.SUCCEEDED else None,
            next_action=QrCode(code_url="weixin://wxpay/1") if waiting else NoAction(),
            failure=Failure(code="refused", message="no") if self.refuses else None,
            review=Review(reason="amount_mismatch", detail="-", since=START) if parked else None,
            created_at=ordered.created_at,
            updated_at=ordered.created_at,
            expires_at=ordered.expires_at,
            paid_at=None,
        )
        return Standing(
            payment=payment,
            open_attempts=((1,) if self.is_alive else ()) + ((2,) if self.another_is_alive else ()),
            open_gateways=self.left_open_at,
            needs_attention=parked or self.unapplied,
            disputes_at=(ordered.gateway,) if self.may_be_disputed and self.paid else (),
            returns=self.returns,
        )
