"""Changes of plan and of method: pure decisions, as in `billing.lifecycle`.

An upgrade usually takes effect at once: the unused rest of what was paid is credited, the rest of
the period charged at the new price. Another cycle, where it begins at once, begins a new period and
a new anchor. Other changes usually wait for the period's end.
"""

from datetime import datetime
from typing import Any

from billing.calendar import Anchor, Schedule
from billing.decisions import free_step, require_alive, require_running, updated, whole_second
from billing.errors import CurrencyNotSupported, InvalidRequest, SubscriptionNotChangeable
from billing.lifecycle import at_period_end
from billing.payment import GatewayName
from billing.plans import Plan
from billing.proration import (
    PaidStretch,
    charge_for_period,
    charge_for_rest,
    credit_for_rest,
    preview,
)
from billing.subscription import (
    ChangeKind,
    Decision,
    Pause,
    PendingChange,
    StepKind,
    Subscription,
    SubscriptionStatus,
    When,
)

_S = SubscriptionStatus


def classify(current: Plan, target: Plan) -> ChangeKind:
    """What kind of change leads from one plan to the other. Raises SubscriptionNotChangeable for
    none at all, and InvalidRequest for another currency."""
    if current.currency != target.currency:
        raise InvalidRequest("a subscription keeps its currency", param="currency")
    if current.cycle != target.cycle:
        return ChangeKind.CYCLE
    if current.tier != target.tier:
        return ChangeKind.UPGRADE if target.rank > current.rank else ChangeKind.DOWNGRADE
    if current.version != target.version:
        return ChangeKind.REPRICE
    raise SubscriptionNotChangeable("that is the plan it has", param="tier")


def change(
    subscription: Subscription,
    target: Plan,
    at: datetime,
    when: When | None = None,
    *,
    minimum: int = 1,
    refunded: int = 0,
) -> Decision:
    """To another plan, now or with the next period. Asked back to the plan it has, a subscription
    forgets the change that was to come. `refunded` (minor units) is what has gone back of what was
    paid for the period, and is not credited as well.

    Raises SubscriptionEnded, SubscriptionNotChangeable and InvalidRequest.
    """
    at = whole_second(at)
    require_running(subscription, at, _S.ACTIVE, _S.TRIALING)
    if subscription.cancel_at_period_end:
        raise SubscriptionNotChangeable("it ends with this period: undo that first")
    if subscription.pending and target == subscription.plan:
        return free_step(subscription, StepKind.UNDO, at, pending=None)
    kind = classify(subscription.plan, target)
    if (when or kind.usually) is When.PERIOD_END:
        return _change_later(subscription, target, kind, at, minimum)
    if subscription.is_trial:
        schedule = subscription.schedule.model_copy(update={"cycle": target.cycle})
        changed: dict[str, Any] = {"plan": target, "schedule": schedule, "pending": None}
        return free_step(subscription, StepKind.CHANGE, at, change=kind, **changed)
    return _change_now(subscription, target, kind, at, minimum, refunded)


def _change_later(
    subscription: Subscription, target: Plan, kind: ChangeKind, at: datetime, minimum: int
) -> Decision:
    pending = PendingChange.model_validate({"kind": kind, "plan": target})
    after = updated(subscription, at, pending=pending)
    if after.pause:  # what the next period costs is charged as the pause ends
        return free_step(subscription, StepKind.CHANGE, at, change=kind, pending=pending)
    return Decision(
        kind=StepKind.CHANGE,
        change=kind,
        effective_at=subscription.period.end,
        preview=at_period_end(after, minimum=minimum).preview,
        after=after,
    )


def _change_now(
    subscription: Subscription,
    target: Plan,
    kind: ChangeKind,
    at: datetime,
    minimum: int,
    refunded: int,
) -> Decision:
    period, schedule = subscription.period, subscription.schedule
    paid = subscription.paid
    lines = [credit_for_rest(paid.less(refunded), at)] if paid else []
    if kind is ChangeKind.CYCLE:
        number = period.number + 1
        anchor = Anchor.at(at, subscription.zone)
        schedule = Schedule(anchor=anchor, cycle=target.cycle, first_number=number)
        period = schedule.period(number)
        charge = charge_for_period(target.amount, period)
    else:
        charge = charge_for_rest(target.amount, period, at)
    cost = preview([*lines, charge], target.currency, balance=subscription.balance, minimum=minimum)
    after = updated(
        subscription,
        at,
        plan=target,
        schedule=schedule,
        period=period,
        paid=PaidStretch(
            amount=charge.amount,
            start=at,
            end=period.end,
            refunded_before=refunded,
            since_period=subscription.paid_since,
        ),
        balance=cost.balance_after,
        pending=None,
        # A pause that was to begin with the old period's end begins with the new one's.
        pause=_moved(subscription.pause, period.end),
    )
    return Decision(kind=StepKind.CHANGE, change=kind, effective_at=at, preview=cost, after=after)


def change_method(
    subscription: Subscription,
    gateway: GatewayName,
    payment_method_id: str | None,
    at: datetime,
    *,
    backup_payment_method_id: str | None = None,
) -> Decision:
    """To another saved method, or another gateway; `None` is none: the customer is asked each time.
    What is owed is unchanged, and due at once by the new method. A backup is set with it, or none.

    Raises SubscriptionEnded, and CurrencyNotSupported where the gateway takes yuan only.
    """
    require_alive(subscription)
    if gateway is not GatewayName.STRIPE and subscription.plan.currency != "CNY":
        raise CurrencyNotSupported(f"{gateway} takes CNY only", param="gateway")
    kind = ChangeKind.METHOD if gateway is subscription.gateway else ChangeKind.GATEWAY
    changed = {
        "gateway": gateway,
        "payment_method_id": payment_method_id,
        "backup_payment_method_id": backup_payment_method_id,
    }
    return free_step(subscription, StepKind.CHANGE, at, change=kind, **changed)


def _moved(pause: Pause | None, starts_at: datetime) -> Pause | None:
    if pause is None or (pause.ends_at is not None and pause.ends_at <= starts_at):
        return None
    return Pause(starts_at=starts_at, ends_at=pause.ends_at)
