"""A subscription's charges: how they are asked for, and the payments that they are."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from billing.dunning import Debt
from billing.lifecycle import paid_up
from billing.messages import PaymentOrder
from billing.payment import GatewayName, PaymentMethod, PaymentType
from billing.proration import Preview
from billing.subscription import Decision, StepKind, Subscription
from billing.subscription_messages import (
    Announced,
    Charge,
    ChargeStatus,
    GivingBack,
    PaymentWay,
    SubscriptionStanding,
    SubscriptionTerms,
)

DEFAULT_WAYS: Final[Mapping[GatewayName, PaymentMethod]] = {
    GatewayName.STRIPE: PaymentMethod.CARD,
    GatewayName.ALIPAY: PaymentMethod.QR,
    GatewayName.WECHATPAY: PaymentMethod.NATIVE,
}

OF_A_PERIOD: Final = frozenset(
    {StepKind.SIGN_UP, StepKind.PAYMENT, StepKind.RENEWAL, StepKind.RESUMPTION}
)
"""What a mandate with windows is charged for: one period each."""

_STRIPE_LEAST: Final[Mapping[str, int]] = {"USD": 50, "EUR": 50, "CNY": 400}
_STRIPE_LEAST_OTHERWISE: Final = 50


class Wanted(BaseModel):
    """A charge that is to begin; as in `Charge`."""

    model_config = ConfigDict(frozen=True)

    kind: StepKind
    way: PaymentWay
    method_id: str | None = None
    is_due: bool = False
    until: datetime | None = None
    decision: Decision

    @property
    def may_wait(self) -> bool:
        """Whether it is made as soon as its mandate allows; what somebody waits for is paid by hand
        where that is not now."""
        is_begun = self.is_due and self.kind is not StepKind.SIGN_UP
        return is_begun or self.kind is StepKind.PAYMENT


class Move(BaseModel):
    """One write of the record, and what follows from it."""

    model_config = ConfigDict(frozen=True)

    event: str
    subscription: Subscription
    debt: Debt | None = None
    data: dict[str, Any] = {}
    charge: Wanted | None = None
    closed: ChargeStatus | None = None
    announced: Announced | None = None
    giving_back: GivingBack | None = None
    is_abandoning: bool = False
    """Whether the payment under way is no longer waited for."""
    is_other_method: bool = False
    """Whether another method is to be charged from now on, of which nothing was announced yet."""


def announced_after(before: SubscriptionStanding, move: Move) -> Announced | None:
    """What stays announced once the move is written: a notice to a contract until its charge is
    paid, as one that failed may be repeated in its window; what a customer was asked for until they
    have tried to pay. Another method is told anew."""
    told = move.announced or before.announced
    if told is None or move.is_other_method or move.closed is ChargeStatus.PAID:
        return None
    return told if move.closed is None or told.method_id is not None else None


def way_of(subscription: Subscription, terms: SubscriptionTerms) -> PaymentWay:
    """How the customer pays by hand at the subscription's gateway."""
    if terms.way.gateway is subscription.gateway:
        return terms.way
    method = DEFAULT_WAYS[subscription.gateway]
    return PaymentWay(gateway=subscription.gateway, method=method)


def least_charge(gateway: GatewayName, currency: str) -> int:
    """The least amount (minor units) that the gateway charges: at Stripe about half a dollar, in
    whatever currency."""
    if gateway is GatewayName.STRIPE:
        return _STRIPE_LEAST.get(currency, _STRIPE_LEAST_OTHERWISE)
    return 1


def minimum_of(subscription: Subscription, terms: SubscriptionTerms) -> int:
    """The least amount (minor units) that is charged at the subscription's gateway."""
    if terms.way.gateway is subscription.gateway:
        return terms.minimum
    return least_charge(subscription.gateway, subscription.plan.currency)


def charging(
    found: Subscription,
    terms: SubscriptionTerms,
    decision: Decision,
    method_id: str | None,
    *,
    is_due: bool = False,
    way: PaymentWay | None = None,
    debt: Debt | None = None,
) -> Move:
    """The charge begins; what it pays for takes effect once it is paid."""
    return Move(
        event="subscription.charge_started",
        subscription=found,
        debt=debt,
        charge=Wanted(
            kind=decision.kind,
            way=way or way_of(found, terms),
            method_id=method_id,
            is_due=is_due,
            decision=decision,
        ),
    )


def payment(subscription: Subscription, now: datetime) -> Decision:
    """To pay what is owed."""
    assert subscription.owed is not None
    return payment_of(StepKind.PAYMENT, subscription.owed, paid_up(subscription, now), now)


def payment_of(kind: StepKind, owed: Preview, after: Subscription, now: datetime) -> Decision:
    """To pay what is owed, which leads to `after`."""
    return Decision(kind=kind, effective_at=now, preview=owed, after=after)


def left_by(charge: Charge, found: Subscription) -> Subscription:
    """What the charge leads to once it is paid: that the subscription ends may have been commanded,
    or taken back, since it was decided upon."""
    return charge.decision.after.model_copy(
        update={
            "cancel_at_period_end": found.cancel_at_period_end,
            "canceled_at": found.canceled_at,
        }
    )


def order_of(charge: Charge, subscription: Subscription, application: str) -> PaymentOrder:
    """The payment by which a charge is made."""
    plan, preview, way = charge.decision.after.plan, charge.decision.preview, charge.way
    is_saved = charge.method_id is not None
    return PaymentOrder(
        payment_id=charge.payment_id,
        type=PaymentType.SUBSCRIPTION,
        application=application,
        user_id=subscription.user_id,
        amount_minor=preview.total,
        currency=preview.currency,
        gateway=subscription.gateway if is_saved else way.gateway,
        method=PaymentMethod.SAVED if is_saved else way.method,
        description=f"{plan.tier.value} membership, {plan.cycle.value}",
        payment_method_id=charge.method_id,
        return_url=None if is_saved else way.return_url,
        payer=None if is_saved else way.payer,
        created_at=charge.opened_at,
        expires_at=charge.expires_at,
        subscription_id=subscription.id,
        clock_ahead=charge.clock_ahead,
        charge_until=charge.until,
    )
