"""What a user's subscriptions grant them at an instant: one tier, until when, and why."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict

from billing.dunning import DunningSchedule, access_at
from billing.plans import Tier
from billing.subscription import Access, Subscription, SubscriptionStatus
from billing.subscription_messages import SubscriptionStanding

_S = SubscriptionStatus


class GrantReason(StrEnum):
    """TRIAL, PAID; ENDING: paid, and ends with the period; RENEWING: the period is over and the
    next one's payment under way; GRACE: not paid, and granted all the same. Without a tier: NONE,
    or why a subscription that has not ended grants nothing (INCOMPLETE, PAUSED, UNPAID)."""

    TRIAL = "trial"
    PAID = "paid"
    ENDING = "ending"
    RENEWING = "renewing"
    GRACE = "grace"
    NONE = "none"
    INCOMPLETE = "incomplete"
    PAUSED = "paused"
    UNPAID = "unpaid"


class Grant(BaseModel):
    """`until` is when the tier ends or is renewed; None where nobody knows yet, and for FREE."""

    model_config = ConfigDict(frozen=True)

    tier: Tier = Tier.FREE
    until: AwareDatetime | None = None
    reason: GrantReason = GrantReason.NONE
    subscription_id: str | None = None


def with_access_at(
    standing: SubscriptionStanding, schedule: DunningSchedule, at: datetime
) -> Subscription:
    """The subscription with the access that its debt leaves at the instant: no step is written
    while a payment is under way."""
    found, debt = standing.subscription, standing.debt
    if debt is None or found.status is not _S.PAST_DUE:
        return found
    return found.model_copy(update={"access": access_at(schedule, debt, at)})


def standing_at(
    standing: SubscriptionStanding, schedule: DunningSchedule, at: datetime
) -> Subscription:
    """The subscription as it counts at the instant, for what it grants and until when: with the
    access that its debt leaves. What is about to end does so with the period that is paid for
    already; where the period is over, the payment decides, or where the next one is of another
    tier, this one is renewed."""
    found, charge = with_access_at(standing, schedule, at), standing.charge
    is_owed = standing.debt is not None and found.status is _S.PAST_DUE
    if is_owed or charge is None or not found.cancel_at_period_end:
        return found
    next_plan, ends_at = charge.decision.after.plan, standing.ends_at
    if ends_at is not None and next_plan.tier is found.plan.tier:
        return found.model_copy(update={"period": found.period.model_copy(update={"end": ends_at})})
    if ends_at is not None or at >= found.period.end:
        return found.model_copy(update={"cancel_at_period_end": False})
    return found


def granted(subscriptions: Iterable[tuple[Subscription, datetime]]) -> Grant:
    """The highest tier that one of them grants at its instant, as test clocks give each a time of
    its own; of equal ones, that which lasts longest."""
    dated = list(subscriptions)
    every = [one for one, _ in dated]
    grants = [(one, reason) for one, at in dated if (reason := _reason(one, at)) is not None]
    if grants:
        best, reason = max(grants, key=lambda grant: (grant[0].plan.rank, grant[0].period.end))
        is_known = reason not in (GrantReason.RENEWING, GrantReason.GRACE)
        return Grant(
            tier=best.plan.tier,
            until=_ends_at(best) if is_known else None,
            reason=reason,
            subscription_id=best.id,
        )
    withheld = [(one, why) for one in every if (why := _WITHHELD.get(one.status)) is not None]
    if withheld:
        best, why = max(withheld, key=lambda grant: grant[0].plan.rank)
        return Grant(reason=why, subscription_id=best.id)
    return Grant()


_WITHHELD = {
    _S.INCOMPLETE: GrantReason.INCOMPLETE,
    _S.PAUSED: GrantReason.PAUSED,
    _S.PAST_DUE: GrantReason.UNPAID,
}


def _reason(subscription: Subscription, at: datetime) -> GrantReason | None:
    match subscription.status:
        case _S.PAST_DUE:
            is_granted = subscription.access in (Access.ACTIVE, Access.GRACE)
            return GrantReason.GRACE if is_granted else None
        case _S.ACTIVE | _S.TRIALING:
            is_ending = subscription.cancel_at_period_end or subscription.pause is not None
            if at >= _ends_at(subscription):
                return None if is_ending else GrantReason.RENEWING
            if is_ending:
                return GrantReason.ENDING
            return GrantReason.TRIAL if subscription.is_trial else GrantReason.PAID
        case _:
            return None


def _ends_at(subscription: Subscription) -> datetime:
    pause = subscription.pause
    return min(subscription.period.end, pause.starts_at) if pause else subscription.period.end
