"""Subscriptions to decide about."""

from datetime import UTC, datetime

from billing.calendar import Cycle
from billing.lifecycle import paid_up, sign_up
from billing.money import Money
from billing.payment import GatewayName
from billing.plans import Plan, Tier
from billing.subscription import Subscription, SubscriptionOrder

MONTHLY_PRICES = {Tier.BASIC: 1900, Tier.PREMIUM: 3901, Tier.SUPER: 6999}
RANKS = {Tier.BASIC: 1, Tier.PREMIUM: 2, Tier.SUPER: 3}
BEGIN = datetime(2026, 1, 31, 4, tzinfo=UTC)


def plan(
    tier: Tier = Tier.BASIC,
    cycle: Cycle = Cycle.MONTHLY,
    currency: str = "CNY",
    *,
    amount: int | None = None,
) -> Plan:
    price = MONTHLY_PRICES[tier] * cycle.months * 9 // 10 if amount is None else amount
    return Plan.of(tier, RANKS[tier], cycle, Money(amount_minor=price, currency=currency))


def incomplete(
    bought: Plan | None = None,
    *,
    at: datetime = BEGIN,
    zone: str = "Asia/Shanghai",
    trial_days: int = 0,
    balance: int = 0,
) -> Subscription:
    order = SubscriptionOrder(
        id="sub_1",
        user_id="alice",
        plan=bought or plan(),
        gateway=GatewayName.STRIPE,
        zone=zone,
        trial_days=trial_days,
        balance=balance,
        payment_method_id="pm_1",
    )
    return sign_up(order, at)


def running(
    bought: Plan | None = None,
    *,
    at: datetime = BEGIN,
    zone: str = "Asia/Shanghai",
    trial_days: int = 0,
    balance: int = 0,
) -> Subscription:
    waiting = incomplete(bought, at=at, zone=zone, trial_days=trial_days, balance=balance)
    return paid_up(waiting, at)
