"""A renewal to come is announced to WeChat Pay, which deducts no more than was announced."""

from datetime import datetime, timedelta

import pytest

from billing.calendar import Cycle
from billing.charges import announced_after
from billing.lifecycle import paid_up
from billing.moves import ahead_due, is_above_announced, renewal_of, start_of
from billing.payment import GatewayName
from billing.plans import Plan, Tier
from billing.rails import BEIJING
from billing.subscription import When
from billing.subscription_commands import commanded
from billing.subscription_messages import (
    Announced,
    ChangeSubscription,
    SubscriptionCommand,
    SubscriptionStanding,
    SubscriptionStart,
)
from tests.billing.subscriptions import BEGIN, plan
from tests.workflows.scripted_subscription import METHOD_ID, subscription_start

MONTHLY = plan(Tier.PREMIUM, Cycle.MONTHLY)


def announced(method_id: str | None = METHOD_ID) -> tuple[SubscriptionStart, SubscriptionStanding]:
    """A subscription of which the renewal was announced, four days before it is due."""
    start = subscription_start(
        "sub_1", BEGIN, bought=MONTHLY, gateway=GatewayName.WECHATPAY, method_id=method_id
    )
    found = paid_up(start_of(start), BEGIN)
    told = Announced(
        number=2,
        method_id=method_id,
        sent_at=found.period.end - timedelta(days=4),
        amount=MONTHLY.amount,
    )
    return start, SubscriptionStanding(subscription=found, version=3, announced=told)


def a_day_later(standing: SubscriptionStanding, hour: int) -> datetime:
    """At that hour in Beijing of the day after the renewal was announced."""
    day = standing.subscription.period.end.astimezone(BEIJING) - timedelta(days=3)
    return day.replace(hour=hour, minute=0, second=0)


def after(
    start: SubscriptionStart,
    standing: SubscriptionStanding,
    command: SubscriptionCommand,
    *,
    hour: int = 12,
) -> SubscriptionStanding:
    at = a_day_later(standing, hour)
    _, move = commanded(standing, start.terms, command, at)
    assert move.charge is None
    told = announced_after(standing, move)
    return standing.model_copy(update={"subscription": move.subscription, "announced": told})


def at_the_end(wanted: Plan) -> ChangeSubscription:
    return ChangeSubscription(plan=wanted, when=When.PERIOD_END)


@pytest.mark.parametrize(
    "dearer",
    [plan(Tier.PREMIUM, Cycle.QUARTERLY), plan(Tier.SUPER), plan(amount=MONTHLY.amount + 1)],
    ids=["cycle", "tier", "by-one-fen"],
)
@pytest.mark.parametrize("hour", [12, 23])
def test_a_dearer_renewal_is_announced_as_soon_as_notices_are_taken(
    dearer: Plan, hour: int
) -> None:
    start, before = announced()
    assert ahead_due(before, start.terms) is None
    changed = after(start, before, at_the_end(dearer), hour=hour)
    chosen_at = a_day_later(before, hour)
    morning = chosen_at.replace(hour=7, minute=5) + timedelta(days=1)
    assert is_above_announced(changed, start.terms)
    assert ahead_due(changed, start.terms) == (chosen_at if hour == 12 else morning)
    decision = renewal_of(changed, start.terms)
    assert decision is not None
    told = Announced(number=2, method_id=METHOD_ID, sent_at=morning, amount=decision.preview.total)
    anew = changed.model_copy(update={"announced": told})
    assert not is_above_announced(anew, start.terms)
    assert ahead_due(anew, start.terms) is None


def test_the_notice_of_more_stands_for_less() -> None:
    start, before = announced()
    cheaper = after(start, before, at_the_end(plan(Tier.BASIC)))
    assert ahead_due(cheaper, start.terms) is None
    dearer = after(start, before, at_the_end(plan(Tier.SUPER)))
    assert ahead_due(after(start, dearer, at_the_end(MONTHLY)), start.terms) is None


def test_a_customer_who_was_asked_is_not_asked_again() -> None:
    start, before = announced(method_id=None)
    changed = after(start, before, at_the_end(plan(Tier.SUPER)))
    assert ahead_due(changed, start.terms) is None
