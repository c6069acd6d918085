"""What commands, payments and the end of a period do to a subscription: pure decisions.

Each function takes the subscription as it stands and an instant, and returns a `Decision`: the
preview of what is charged, and the subscription thereafter. Previewing and doing ask the same
function, so that what is charged is what was shown. `minimum` (minor units) is the least amount the
gateway charges; what is below it is owed with the next charge. Changes of plan and method are
decided in `billing.changes`; whatever waits for the period's end is carried out by `at_period_end`.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from billing.calendar import Anchor, Period, Schedule, trial
from billing.decisions import (
    cost_of_period,
    free_step,
    paid_stretch,
    require_alive,
    require_running,
    updated,
    whole_second,
)
from billing.errors import InvalidRequest, SubscriptionNotChangeable, SubscriptionNotResumable
from billing.proration import Line, LineCode, Preview
from billing.subscription import (
    Access,
    Decision,
    Pause,
    StepKind,
    Subscription,
    SubscriptionOrder,
    SubscriptionStatus,
)

_S = SubscriptionStatus
LONGEST_WAIT: Final = timedelta(days=3660)
"""How far ahead a pause may end, or a period be moved: what is to come can still be counted."""


def sign_up(order: SubscriptionOrder, at: datetime, *, minimum: int = 1) -> Subscription:
    """The subscription as it waits for its first payment, `owed`; `paid_up` makes it run."""
    at = whole_second(at)
    plan = order.plan
    if order.trial_days:
        period, schedule = trial(at, order.zone, order.trial_days, plan.cycle)
        free = Line(code=LineCode.TRIAL, amount=0, period_start=period.start, period_end=period.end)
        owed = Preview(currency=plan.currency, lines=(free,), total=0, balance_after=order.balance)
    else:
        schedule = Schedule(anchor=Anchor.at(at, order.zone), cycle=plan.cycle)
        period = schedule.period(1)
        owed = cost_of_period(plan, period, order.balance, minimum)
    return Subscription(
        id=order.id,
        user_id=order.user_id,
        status=_S.INCOMPLETE,
        plan=plan,
        gateway=order.gateway,
        payment_method_id=order.payment_method_id,
        backup_payment_method_id=order.backup_payment_method_id,
        schedule=schedule,
        period=period,
        owed=owed,
        balance=order.balance,
        access=Access.ENDED,
        created_at=at,
        updated_at=at,
    )


def paid_up(subscription: Subscription, at: datetime) -> Subscription:
    """The subscription once what it owes is paid, or waived. Raises SubscriptionNotChangeable
    where it owes nothing."""
    owed = subscription.owed
    if owed is None or subscription.status not in (_S.INCOMPLETE, _S.PAST_DUE):
        raise SubscriptionNotChangeable("nothing is owed")
    return updated(
        subscription,
        at,
        status=_S.TRIALING if subscription.is_trial else _S.ACTIVE,
        paid=paid_stretch(subscription.plan, subscription.period),
        owed=None,
        balance=owed.balance_after,
        access=Access.ACTIVE,
        failure=None,
    )


def unpaid(subscription: Subscription, decision: Decision) -> Subscription:
    """The subscription as the next period begins without being paid for: what `decision` charges
    is owed, and dunning begins."""
    return decision.after.model_copy(
        update={
            "status": _S.PAST_DUE,
            "paid": None,
            "owed": decision.preview,
            "balance": subscription.balance,
        }
    )


def expire(subscription: Subscription, at: datetime) -> Decision:
    """The end of what was never paid, or no longer. Raises SubscriptionNotChangeable where nothing
    is owed."""
    if subscription.status not in (_S.INCOMPLETE, _S.PAST_DUE):
        raise SubscriptionNotChangeable("nothing is owed")
    return free_step(
        subscription,
        StepKind.EXPIRY,
        at,
        status=_S.EXPIRED,
        ended_at=at,
        access=Access.ENDED,
    )


def is_used_up(subscription: Subscription, at: datetime) -> bool:
    """Whether nothing is left of what was paid for: the period is over, was never paid, or was over
    as the pause began."""
    if subscription.status is _S.PAST_DUE:
        return True
    if subscription.status is _S.PAUSED:
        pause = subscription.pause
        return pause is not None and pause.starts_at >= subscription.period.end
    return at >= subscription.period.end


def cancel(
    subscription: Subscription,
    at: datetime,
    *,
    at_period_end: bool,
    refund: bool = False,
    is_charged: bool = False,
    refunded: int = 0,
) -> Decision:
    """Its end, now or with the period: at once where nothing is left of that, unless a charge that
    `is_charged` may pay for another. `refund` gives back the unused rest of what was charged for
    the period, however that was settled: what no payment of it covers belongs on the balance.
    `refunded` (minor units) is what has gone back of what was paid for the period already.

    Raises SubscriptionEnded, InvalidRequest, and SubscriptionNotChangeable where no period has
    begun, or none ends because it is paused.
    """
    at = whole_second(at)
    require_alive(subscription)
    if at_period_end:
        if refund:
            raise InvalidRequest("the period is used to its end: nothing is left", param="refund")
        _require_a_period(subscription, at)
        if is_used_up(subscription, at) and not is_charged:
            return _ended(subscription, at)
        # What was to come stays, for whoever takes the end back: it comes first until then.
        changed: dict[str, Any] = {
            "cancel_at_period_end": True,
            "canceled_at": subscription.canceled_at or at,
        }
        return free_step(subscription, StepKind.CANCELLATION, at, **changed).model_copy(
            update={"effective_at": subscription.period.end}
        )
    paid = subscription.paid
    rest = paid.less(refunded).unused(used_until(subscription, at)) if refund and paid else 0
    return _ended(subscription, at).model_copy(update={"refund": rest})


def used_until(subscription: Subscription, at: datetime) -> datetime:
    """The instant up to which one that ends then has used its period."""
    if subscription.status is _S.PAUSED and subscription.pause:
        return subscription.pause.starts_at
    return whole_second(at)


def pause(
    subscription: Subscription,
    at: datetime,
    *,
    at_period_end: bool,
    until: datetime | None = None,
) -> Decision:
    """A pause, now or from the period's end. Nothing is charged while it lasts, and what was paid
    for is used afterwards.

    Raises SubscriptionEnded, SubscriptionNotChangeable, and InvalidRequest for an end that does
    not come after its beginning.
    """
    at = whole_second(at)
    require_running(subscription, at, _S.ACTIVE, _S.TRIALING)
    if subscription.cancel_at_period_end:
        raise SubscriptionNotChangeable("it ends with this period: undo that first")
    starts_at = subscription.period.end if at_period_end else at
    if until is not None and whole_second(until) <= starts_at:
        raise InvalidRequest("a pause ends after it begins", param="until")
    _require_near(until, at)
    planned = Pause(starts_at=starts_at, ends_at=until and whole_second(until))
    changed: dict[str, Any] = {"pause": planned}
    if not at_period_end:
        changed["status"] = _S.PAUSED
    return free_step(subscription, StepKind.PAUSE, at, **changed).model_copy(
        update={"effective_at": starts_at}
    )


def resume(subscription: Subscription, at: datetime, *, minimum: int = 1) -> Decision:
    """The end of a pause; or undoing an end, or else a pause, that was to come.

    Paused within a period, a subscription goes on with what was left of it. Paused at its end, it
    begins the next one, which is charged. Raises SubscriptionEnded and SubscriptionNotResumable.
    """
    at = whole_second(at)
    require_alive(subscription)
    if subscription.cancel_at_period_end:
        return free_step(
            subscription, StepKind.UNDO, at, cancel_at_period_end=False, canceled_at=None
        )
    if subscription.status is not _S.PAUSED:
        if subscription.pause:
            return free_step(subscription, StepKind.UNDO, at, pause=None)
        raise SubscriptionNotResumable("it is neither paused nor about to end")
    if subscription.pause is None:
        raise SubscriptionNotResumable("it is paused without a beginning")
    starts_at = subscription.pause.starts_at
    at = max(at, starts_at)
    period = subscription.period
    schedule = subscription.schedule.resumed(period, starts_at, at)
    if starts_at >= period.end:
        awake = subscription.model_copy(update={"schedule": schedule, "pause": None})
        renewed = _renew(awake, at, minimum)
        return renewed.model_copy(update={"kind": StepKind.RESUMPTION})
    lasted, paid = at - starts_at, subscription.paid
    return free_step(
        subscription,
        StepKind.RESUMPTION,
        at,
        status=_S.TRIALING if subscription.is_trial else _S.ACTIVE,
        schedule=schedule,
        period=_shifted(period, lasted),
        paid=paid
        and paid.model_copy(update={"start": paid.start + lasted, "end": paid.end + lasted}),
        pause=None,
    )


def move_end(subscription: Subscription, until: datetime, at: datetime) -> Decision:
    """The current period ends later, as a gift: the periods to come move with it, and what was
    paid is for the whole of it. Raises SubscriptionEnded, SubscriptionNotChangeable and
    InvalidRequest."""
    at, until = whole_second(at), whole_second(until)
    require_running(subscription, at, _S.ACTIVE, _S.TRIALING)
    period, paid, pause = subscription.period, subscription.paid, subscription.pause
    if until <= period.end:
        raise InvalidRequest("a period's end is only ever moved later", param="until")
    _require_near(until, at)
    if pause and pause.ends_at and pause.ends_at <= until:
        raise SubscriptionNotChangeable("it pauses before that: undo that first")
    return free_step(
        subscription,
        StepKind.CHANGE,
        at,
        schedule=subscription.schedule.resumed(period, period.end, until),
        period=Period(number=period.number, start=period.start, end=until),
        paid=paid and paid.model_copy(update={"end": until}),
        pause=pause and Pause(starts_at=until, ends_at=pause.ends_at),
    )


def waive(subscription: Subscription, at: datetime) -> Subscription:
    """The subscription once what it owes is forgiven: nothing was paid for the period, so that
    nothing of it is credited or given back. Raises SubscriptionNotChangeable where it owes
    nothing."""
    running = paid_up(subscription, at)
    stretch = running.paid and running.paid.model_copy(update={"amount": 0})
    return updated(running, at, paid=stretch, balance=subscription.balance)


def at_period_end(subscription: Subscription, *, minimum: int = 1) -> Decision:
    """What happens by itself at the end of the current period: the next one is charged, or it
    pauses, or it ends. What is still owed then is no longer waited for.

    Raises SubscriptionEnded, and SubscriptionNotChangeable while nothing runs.
    """
    require_alive(subscription)
    end = subscription.period.end
    if subscription.status is _S.PAST_DUE:
        return expire(subscription, end)
    if subscription.status not in (_S.ACTIVE, _S.TRIALING):
        raise SubscriptionNotChangeable(f"no period ends while it is {subscription.status}")
    if subscription.cancel_at_period_end:
        return _ended(subscription, end)
    if subscription.pause:
        return free_step(subscription, StepKind.PAUSE, end, status=_S.PAUSED)
    return _renew(subscription, end, minimum)


def _renew(subscription: Subscription, at: datetime, minimum: int) -> Decision:
    """The next period, on the plan that was to come with it."""
    plan, schedule = subscription.plan, subscription.schedule
    number = subscription.period.number + 1
    kind = None
    if subscription.pending:
        plan, kind = subscription.pending.plan, subscription.pending.kind
        if plan.cycle != schedule.cycle:
            schedule = schedule.with_cycle(plan.cycle, number)
    period = schedule.period(number)
    cost = cost_of_period(plan, period, subscription.balance, minimum)
    after = updated(
        subscription,
        at,
        status=_S.ACTIVE,
        plan=plan,
        schedule=schedule,
        period=period,
        paid=paid_stretch(plan, period),
        balance=cost.balance_after,
        pending=None,
    )
    return Decision(kind=StepKind.RENEWAL, change=kind, effective_at=at, preview=cost, after=after)


def _ended(subscription: Subscription, at: datetime) -> Decision:
    return free_step(
        subscription,
        StepKind.CANCELLATION,
        at,
        status=_S.CANCELED,
        pending=None,
        pause=None,
        cancel_at_period_end=False,
        canceled_at=subscription.canceled_at or at,
        ended_at=at,
        access=Access.ENDED,
    )


def _require_a_period(subscription: Subscription, at: datetime) -> None:
    """Raises SubscriptionNotChangeable where none has begun, or none ends."""
    if subscription.status is _S.INCOMPLETE:
        raise SubscriptionNotChangeable(
            "its first period has not begun: cancel it now (at_period_end false), or at the"
            " period's end once the first payment is made"
        )
    if subscription.status is _S.PAUSED and not is_used_up(subscription, at):
        raise SubscriptionNotChangeable(
            "it is paused, and its period does not end meanwhile: cancel it now (at_period_end"
            " false), or resume it first"
        )


def _require_near(until: datetime | None, at: datetime) -> None:
    """Raises InvalidRequest."""
    if until is not None and until > at + LONGEST_WAIT:
        raise InvalidRequest("until is more than ten years away", param="until")


def _shifted(period: Period, by: timedelta) -> Period:
    return Period(number=period.number, start=period.start + by, end=period.end + by)
