"""What will happen to a subscription if nobody does anything and every charge is paid: the rules
of `billing.lifecycle`, applied until the horizon."""

from datetime import datetime
from typing import Final

from billing.calendar import Anchor
from billing.charges import left_by
from billing.lifecycle import at_period_end, cancel, is_used_up, paid_up, resume
from billing.subscription import (
    Decision,
    Occurrence,
    StepKind,
    Subscription,
    SubscriptionStatus,
)
from billing.subscription_messages import SubscriptionStanding

MONTHS_TOLD = 24
_S = SubscriptionStatus
_TOLD_AS_OWED: Final = (StepKind.SIGN_UP, StepKind.PAYMENT)


def upcoming_of(
    standing: SubscriptionStanding, at: datetime, *, minimum: int = 1
) -> tuple[Occurrence, ...]:
    """As `upcoming`, the charge under way being paid, or not where it is forgone; what is paid all
    the same once it has ended is given back. What is paid already costs nothing when it takes
    effect."""
    found, charge = standing.subscription, standing.charge
    if found.status.is_terminal:
        return ()
    if standing.is_forgone and is_used_up(found, at):
        ending = cancel(found, at, at_period_end=True)
        return (_occurrence(ending.kind, at, 0, ending.after),)
    if charge is None or standing.is_forgone or charge.kind in _TOLD_AS_OWED:
        return upcoming(found, at, minimum=minimum)
    paid = left_by(charge, found)
    total = 0 if standing.is_paid_ahead else charge.decision.preview.total
    first = _occurrence(charge.kind, charge.decision.effective_at, total, paid)
    return (first, *upcoming(paid, at, minimum=minimum))


def upcoming(
    subscription: Subscription, at: datetime, months: int = MONTHS_TOLD, *, minimum: int = 1
) -> tuple[Occurrence, ...]:
    """What happens within so many months from the instant on, in order. What is owed already comes
    first, as a payment at that instant; a pause without an end ends the list, as nothing follows
    by itself."""
    horizon = Anchor.at(at, subscription.zone).after_months(months)
    found = []
    state = subscription
    if state.owed and state.status in (_S.INCOMPLETE, _S.PAST_DUE):
        owed = state.owed
        state = paid_up(state, at)
        found.append(_occurrence(StepKind.PAYMENT, at, owed.total, state))
    while (step := _next(state, minimum)) and step.effective_at <= horizon:
        state = step.after
        found.append(_occurrence(step.kind, step.effective_at, step.preview.total, state))
    return tuple(found)


def _next(state: Subscription, minimum: int) -> Decision | None:
    if state.status in (_S.ACTIVE, _S.TRIALING):
        return at_period_end(state, minimum=minimum)
    if state.status is _S.PAUSED and state.pause and state.pause.ends_at:
        return resume(state, state.pause.ends_at, minimum=minimum)
    return None


def _occurrence(kind: StepKind, at: datetime, amount: int, after: Subscription) -> Occurrence:
    return Occurrence(
        kind=kind,
        at=at,
        amount=amount,
        currency=after.plan.currency,
        status=after.status,
        plan_version=after.plan.version,
        tier=after.plan.tier,
        cycle=after.plan.cycle,
        period=after.period,
        balance_after=after.balance,
    )
