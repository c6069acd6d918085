"""What all decisions about subscriptions are made of."""

from datetime import datetime
from typing import Any

from billing.calendar import Period
from billing.errors import SubscriptionEnded, SubscriptionNotChangeable
from billing.plans import Plan
from billing.proration import PaidStretch, Preview, charge_for_period, preview
from billing.subscription import (
    ChangeKind,
    Decision,
    StepKind,
    Subscription,
    SubscriptionStatus,
)


def free_step(
    subscription: Subscription,
    kind: StepKind,
    at: datetime,
    *,
    change: ChangeKind | None = None,
    **changed: Any,
) -> Decision:
    """A step that charges nothing."""
    return Decision(
        kind=kind,
        change=change,
        effective_at=at,
        preview=Preview(
            currency=subscription.plan.currency,
            lines=(),
            total=0,
            balance_after=subscription.balance,
        ),
        after=updated(subscription, at, **changed),
    )


def updated(subscription: Subscription, at: datetime, **changed: Any) -> Subscription:
    return subscription.model_copy(update={**changed, "updated_at": at})


def credited(found: Subscription, amount: int, now: datetime) -> Subscription:
    """The subscription with what no payment could give back on its balance."""
    return updated(found, now, balance=found.balance + amount)


def cost_of_period(plan: Plan, period: Period, balance: int, minimum: int) -> Preview:
    """What a whole period costs, with what the balance does to it."""
    line = charge_for_period(plan.amount, period)
    return preview([line], plan.currency, balance=balance, minimum=minimum)


def paid_stretch(plan: Plan, period: Period) -> PaidStretch | None:
    """What is paid once a period is: nothing for a trial."""
    return PaidStretch.of(period, plan.amount) if period.number else None


def whole_second(at: datetime) -> datetime:
    """Decisions are made in whole seconds, as the calendar and proration count them."""
    return at.replace(microsecond=0)


def require_alive(subscription: Subscription) -> None:
    """Raises SubscriptionEnded."""
    if subscription.status.is_terminal:
        raise SubscriptionEnded(f"it is {subscription.status}")


def require_running(
    subscription: Subscription, at: datetime, *statuses: SubscriptionStatus
) -> None:
    """Raises SubscriptionEnded, and SubscriptionNotChangeable in any but those states, or where the
    period is over."""
    require_alive(subscription)
    if subscription.status not in statuses:
        raise SubscriptionNotChangeable(f"it is {subscription.status}")
    if at >= subscription.period.end:
        raise SubscriptionNotChangeable("its period is over: it is being renewed")
