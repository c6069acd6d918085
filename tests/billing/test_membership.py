"""One tier for a customer, until when and why, at any instant and whatever has not been written."""

from datetime import datetime, timedelta

import pytest

from billing.dunning import Debt, DunningSchedule
from billing.lifecycle import cancel, pause, resume
from billing.membership import GrantReason, granted, standing_at
from billing.plans import Tier
from billing.subscription import Access, Subscription, SubscriptionStatus
from billing.subscription_messages import SubscriptionStanding
from tests.billing.subscriptions import BEGIN, incomplete, plan, running

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SOON = BEGIN + DAY
BASIC = running()
END = BASIC.period.end
SUPER = running(plan(Tier.SUPER), at=BEGIN - DAY)


def of(found: Subscription, at: datetime) -> tuple[str, str]:
    grant = granted([(found, at)])
    return grant.tier, grant.reason


def test_nobody_has_a_tier_without_a_subscription() -> None:
    assert granted([]).reason is GrantReason.NONE


@pytest.mark.parametrize(
    ("found", "at", "expected"),
    [
        (BASIC, SOON, (Tier.BASIC, GrantReason.PAID)),
        (BASIC, END, (Tier.BASIC, GrantReason.RENEWING)),
        (running(trial_days=7), SOON, (Tier.BASIC, GrantReason.TRIAL)),
        (incomplete(), SOON, (Tier.FREE, GrantReason.INCOMPLETE)),
        (pause(BASIC, SOON, at_period_end=False).after, SOON, (Tier.FREE, GrantReason.PAUSED)),
        (pause(BASIC, SOON, at_period_end=True).after, SOON, (Tier.BASIC, GrantReason.ENDING)),
        (pause(BASIC, SOON, at_period_end=True).after, END, (Tier.FREE, GrantReason.NONE)),
        (cancel(BASIC, SOON, at_period_end=True).after, SOON, (Tier.BASIC, GrantReason.ENDING)),
        (cancel(BASIC, SOON, at_period_end=True).after, END, (Tier.FREE, GrantReason.NONE)),
        (cancel(BASIC, SOON, at_period_end=False).after, SOON, (Tier.FREE, GrantReason.NONE)),
    ],
)
def test_each_state_grants_what_it_should(
    found: Subscription, at: datetime, expected: tuple[str, str]
) -> None:
    assert of(found, at) == expected


def test_a_pause_moves_the_day_until_when() -> None:
    asleep = pause(BASIC, SOON, at_period_end=False).after
    awake = resume(asleep, SOON + 10 * DAY).after
    grant = granted([(awake, SOON + 11 * DAY)])
    assert (grant.tier, grant.until) == (Tier.BASIC, END + 10 * DAY)


def test_of_several_the_highest_counts_each_at_its_own_time() -> None:
    both = granted([(BASIC, SOON), (SUPER, SOON)])
    assert (both.tier, both.until) == (Tier.SUPER, SUPER.period.end)
    over = cancel(SUPER, SOON, at_period_end=True).after
    later = granted([(BASIC, SOON), (over, END)])
    assert (later.tier, later.until) == (Tier.BASIC, END)


@pytest.mark.parametrize(
    ("hours", "access", "reason"),
    [
        (0.5, Access.ACTIVE, GrantReason.GRACE),
        (2, Access.GRACE, GrantReason.GRACE),
        (169, Access.RESTRICTED, GrantReason.UNPAID),
        (505, Access.ENDED, GrantReason.UNPAID),
    ],
)
def test_what_is_owed_grants_by_the_schedule_whatever_was_written(
    hours: float, access: Access, reason: GrantReason
) -> None:
    """While the customer pays by hand, no step of dunning is written."""
    owing = BASIC.model_copy(
        update={"status": SubscriptionStatus.PAST_DUE, "access": Access.ACTIVE}
    )
    debt = Debt(due_at=BEGIN, ends_at=END, zone="UTC", method_id=None)
    standing = SubscriptionStanding(subscription=owing, version=3, debt=debt)
    at = BEGIN + hours * HOUR
    found = standing_at(standing, DunningSchedule(), at)
    assert found.access is access
    assert of(found, at)[1] == reason
