"""A record and gateways of one subscription in memory, for tests of the workflow's own decisions.

The activities have the real names and messages; the payments of its charges run in the real
workflow of a payment, upon gateways whose answers are set by the test.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from billing.calendar import Cycle
from billing.messages import (
    ClosePayment,
    EndPayment,
    OpenPayment,
    PaymentOrder,
    SettlePayment,
    Standing,
)
from billing.payment import (
    DeclineClass,
    Failure,
    GatewayName,
    NoAction,
    Payment,
    PaymentMethod,
    PaymentStatus,
    QrCode,
)
from billing.plans import Plan, Tier
from billing.subscription import SubscriptionOrder
from billing.subscription_messages import (
    ChargeEnd,
    FindReturns,
    FoundReturns,
    OpenSubscription,
    PaymentWay,
    PrepareCharge,
    PreparedCharge,
    ReadSubscription,
    SubscriptionStanding,
    SubscriptionStart,
    SubscriptionTerms,
    WriteSubscription,
)
from tests.billing.subscriptions import plan

SOFT = Failure(
    code="card_declined",
    decline_code="insufficient_funds",
    advice=DeclineClass.SOFT,
    message="declined",
)
HARD = Failure(
    code="card_declined", decline_code="stolen_card", advice=DeclineClass.HARD, message="declined"
)
METHOD_ID = "pm_01hf7yat00fzzvzzzzzzzzzzzz"


def subscription_start(
    subscription_id: str,
    now: datetime,
    *,
    bought: Plan | None = None,
    zone: str = "Asia/Shanghai",
    gateway: GatewayName = GatewayName.STRIPE,
    method_id: str | None = METHOD_ID,
    trial_days: int = 0,
) -> SubscriptionStart:
    ways = {
        GatewayName.STRIPE: PaymentMethod.CARD,
        GatewayName.ALIPAY: PaymentMethod.QR,
        GatewayName.WECHATPAY: PaymentMethod.NATIVE,
    }
    return SubscriptionStart(
        order=SubscriptionOrder(
            id=subscription_id,
            user_id="user_1",
            plan=bought or plan(Tier.PREMIUM, Cycle.MONTHLY),
            gateway=gateway,
            zone=zone,
            trial_days=trial_days,
            payment_method_id=method_id,
        ),
        application="shop",
        terms=SubscriptionTerms(way=PaymentWay(gateway=gateway, method=ways[gateway])),
        created_at=now,
    )


@dataclass
class _Paying:
    order: PaymentOrder
    status: PaymentStatus = PaymentStatus.CREATED
    failure: Failure | None = None


class ScriptedSubscription:
    """`outcomes` are the answers to the charges to come, in order: None pays, a Failure declines,
    and `waits` leaves the payer time; without one left, every charge is paid. `pays_waiting`
    makes waiting payments paid at the next look. `events` are what was written, `charged` the
    orders that gateways were asked for. `signed` is what a read tells to be signed, `refunded` what
    has gone back of the period's payments. Until `silent_until` no mandate is prepared. `forgets`
    names activities that fail once, after their work."""

    waits = Failure(code="waits", message="for its payer")

    def __init__(self) -> None:
        self.outcomes: deque[Failure | None] = deque()
        self.prepared: deque[PreparedCharge] = deque()
        self.preparations: list[PrepareCharge] = []
        self.pays_waiting = False
        self.events: list[tuple[str, datetime]] = []
        self.writes: list[WriteSubscription] = []
        self.given_back: list[FindReturns] = []
        self.covered = 0
        self.signed: str | None = None
        self.refunded = 0
        self.silent_until: datetime | None = None
        self.forgets: set[str] = set()
        self.payments: dict[str, _Paying] = {}
        self.standing: SubscriptionStanding | None = None

    @property
    def names(self) -> list[str]:
        return [name.removeprefix("subscription.") for name, _ in self.events]

    @property
    def charged(self) -> list[PaymentOrder]:
        return [paying.order for paying in self.payments.values()]

    @property
    def known(self) -> SubscriptionStanding:
        assert self.standing is not None, "nothing was written"
        return self.standing

    @activity.defn(name="subscription.open")
    async def open(self, request: OpenSubscription) -> SubscriptionStanding:
        if self.standing is None:
            self.standing = SubscriptionStanding(subscription=request.subscription, version=1)
        self._forget("open")
        return self._told()

    @activity.defn(name="subscription.read")
    async def read(self, request: ReadSubscription) -> SubscriptionStanding:
        return self._told().model_copy(update={"signed": self.signed, "refunded": self.refunded})

    @activity.defn(name="subscription.write")
    async def write(self, request: WriteSubscription) -> SubscriptionStanding:
        known = self.known
        if known.version == request.version:
            charge = known.charge
            if request.closed is not None:
                assert charge is not None, "closed without a charge"
                charge = None
            if request.opened is not None:
                assert charge is None, "two charges at a time"
                charge = request.opened
            self.standing = SubscriptionStanding(
                subscription=request.subscription,
                version=request.version + 1,
                charges=known.charges + (request.opened is not None),
                debt=request.debt,
                charge=charge,
                announced=request.announced,
                giving_back=request.giving_back,
            )
            self.events.append((request.event, request.now))
            self.writes.append(request)
        else:
            assert known.version == request.version + 1, "another writer"
        self._forget("write")
        return self._told()

    @activity.defn(name="subscription.give_back")
    async def give_back(self, request: FindReturns) -> FoundReturns:
        self.given_back.append(request)
        return FoundReturns(covered=self.covered)

    @activity.defn(name="subscription.prepare")
    async def prepare(self, request: PrepareCharge) -> PreparedCharge:
        self._hear(request)
        if self.prepared:
            return self.prepared.popleft()
        return PreparedCharge(is_ready=request.due_at <= request.now, at=request.due_at)

    @activity.defn(name="payment.open")
    async def open_payment(self, request: OpenPayment) -> Standing:
        order = request.order
        paying = self.payments.setdefault(order.payment_id, _Paying(order))
        if paying.status is PaymentStatus.CREATED:
            outcome = self.outcomes.popleft() if self.outcomes else None
            if outcome is self.waits:
                paying.status = PaymentStatus.REQUIRES_ACTION
            elif outcome is None:
                paying.status = PaymentStatus.SUCCEEDED
            else:
                paying.status, paying.failure = PaymentStatus.FAILED, outcome
        return _standing(paying, request.now)

    @activity.defn(name="payment.settle")
    async def settle_payment(self, request: SettlePayment) -> Standing:
        paying = self.payments[request.payment_id]
        if self.pays_waiting and not paying.status.is_terminal:
            paying.status = PaymentStatus.SUCCEEDED
        return _standing(paying, request.now)

    @activity.defn(name="payment.close")
    async def close_payment(self, request: ClosePayment) -> Standing:
        paying = self.payments[request.payment_id]
        if not paying.status.is_terminal and request.status is not None:
            paying.status = request.status
        return _standing(paying, request.now)

    @activity.defn(name="payment.end")
    async def end_payment(self, request: EndPayment) -> Standing:
        paying = self.payments[request.payment_id]
        if not paying.status.is_terminal:
            paying.status = request.status
        return _standing(paying, request.now)

    @property
    def core_activities(self) -> list[Callable[..., Any]]:
        return [self.open, self.read, self.write, self.give_back, self.end_payment]

    @property
    def gateway_activities(self) -> list[Callable[..., Any]]:
        return [self.open_payment, self.settle_payment, self.close_payment, self.prepare]

    def _hear(self, request: PrepareCharge) -> None:
        self.preparations.append(request)
        if self.silent_until is not None and request.now < self.silent_until:
            raise ApplicationError("no answer", type="outcome_unknown")

    def _forget(self, name: str) -> None:
        """The answer is lost on its way; what was done stands."""
        if name in self.forgets:
            self.forgets.remove(name)
            raise ApplicationError("the answer was lost")

    def _told(self) -> SubscriptionStanding:
        known, end = self.known, None
        paying = self.payments.get(known.charge.payment_id) if known.charge else None
        if paying is not None and paying.status.is_terminal:
            end = ChargeEnd(
                payment_id=paying.order.payment_id, status=paying.status, failure=paying.failure
            )
        return known.model_copy(update={"charge_end": end})


def _standing(paying: _Paying, now: datetime) -> Standing:
    order, status = paying.order, paying.status
    waits = status is PaymentStatus.REQUIRES_ACTION
    return Standing(
        payment=Payment(
            id=order.payment_id,
            type=order.type,
            status=status,
            amount=order.amount_minor,
            currency=order.currency,
            gateway=order.gateway,
            method=order.method,
            user_id=order.user_id,
            description=order.description,
            metadata={},
            attempt=1,
            gateway_reference=None,
            next_action=QrCode(code_url="https://pay.example/1") if waits else NoAction(),
            failure=paying.failure,
            review=None,
            created_at=order.created_at,
            updated_at=now,
            expires_at=order.expires_at,
            paid_at=now if status is PaymentStatus.SUCCEEDED else None,
        ),
        open_attempts=(1,) if waits else (),
        open_gateways=(order.gateway,) if waits else (),
        gateways=(order.gateway,),
    )
