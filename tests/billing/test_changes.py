from datetime import timedelta

import pytest

from billing.calendar import Cycle
from billing.changes import change, change_method, classify
from billing.errors import CurrencyNotSupported, InvalidRequest, SubscriptionNotChangeable
from billing.lifecycle import at_period_end, pause, resume
from billing.payment import GatewayName
from billing.plans import Plan, Tier
from billing.proration import LineCode
from billing.subscription import ChangeKind, Decision, StepKind, SubscriptionStatus, When
from tests.billing.subscriptions import BEGIN, plan, running

DAY = timedelta(days=1)
BASIC, PREMIUM, SUPER = plan(), plan(Tier.PREMIUM), plan(Tier.SUPER)


def amounts(decision: Decision) -> dict[LineCode, int]:
    return {line.code: line.amount for line in decision.preview.lines}


@pytest.mark.parametrize(
    ("current", "target", "kind", "when"),
    [
        (BASIC, SUPER, ChangeKind.UPGRADE, When.NOW),
        (SUPER, PREMIUM, ChangeKind.DOWNGRADE, When.PERIOD_END),
        (BASIC, plan(cycle=Cycle.YEARLY), ChangeKind.CYCLE, When.PERIOD_END),
        (BASIC, plan(Tier.SUPER, Cycle.YEARLY), ChangeKind.CYCLE, When.PERIOD_END),
        (BASIC, plan(amount=2100), ChangeKind.REPRICE, When.PERIOD_END),
    ],
)
def test_a_change_has_its_kind_and_its_usual_time(
    current: Plan, target: Plan, kind: ChangeKind, when: When
) -> None:
    assert classify(current, target) is kind
    assert kind.usually is when


def test_no_change_and_another_currency_are_refused() -> None:
    with pytest.raises(SubscriptionNotChangeable):
        classify(BASIC, plan())
    with pytest.raises(InvalidRequest) as refusal:
        classify(BASIC, plan(currency="USD"))
    assert refusal.value.param == "currency"


def test_an_upgrade_now_charges_the_difference_of_the_rest() -> None:
    found = running()
    at = BEGIN + 7 * DAY  # of 28
    decision = change(found, SUPER, at)
    assert amounts(decision) == {
        LineCode.UNUSED_REST: -1282,  # three quarters of 1710, which is a tie
        LineCode.NEW_REST: 4724,  # of 6299
    }
    assert decision.preview.total == sum(amounts(decision).values())
    after = decision.after
    assert (after.plan, after.period, after.status) == (SUPER, found.period, found.status)
    assert at_period_end(after).preview.total == SUPER.amount
    assert at_period_end(after).after.period.start == found.period.end


def test_what_was_refunded_is_not_credited() -> None:
    found, half = running(), BEGIN + 14 * DAY
    refunded = change(found, SUPER, half, refunded=BASIC.amount)
    assert LineCode.UNUSED_REST not in amounts(refunded)
    assert refunded.preview.total == amounts(refunded)[LineCode.NEW_REST]
    in_part = change(found, SUPER, half, refunded=710)  # of 1710
    assert amounts(in_part)[LineCode.UNUSED_REST] == -500
    year = change(found, plan(cycle=Cycle.YEARLY), half, When.NOW, refunded=BASIC.amount)
    assert LineCode.UNUSED_REST not in amounts(year)


def test_what_was_refunded_before_a_change_is_not_missed_twice() -> None:
    found = running()
    upgraded = change(found, PREMIUM, BEGIN + 14 * DAY, refunded=BASIC.amount).after
    assert upgraded.paid is not None
    again = change(upgraded, SUPER, BEGIN + 21 * DAY, refunded=BASIC.amount)
    assert amounts(again)[LineCode.UNUSED_REST] == -(upgraded.paid.amount // 2)
    rest = upgraded.paid.amount
    paused = pause(upgraded, BEGIN + 21 * DAY, at_period_end=False).after
    resumed = resume(paused, BEGIN + 30 * DAY).after
    all_gone = change(resumed, SUPER, BEGIN + 30 * DAY, refunded=BASIC.amount + rest)
    assert LineCode.UNUSED_REST not in amounts(all_gone)


def test_what_was_refunded_after_a_change_of_cycle_is_missed() -> None:
    """What the change credited of an earlier payment is paid for by that payment still."""
    found, half = running(), BEGIN + 14 * DAY
    yearly = change(found, plan(cycle=Cycle.YEARLY), half, When.NOW, refunded=10).after
    assert yearly.paid is not None
    assert (yearly.paid_since, yearly.period.number) == (found.period.number, 2)
    rest = yearly.paid.amount
    later = half + DAY
    kept = change(yearly, SUPER, later, When.NOW, refunded=10)
    gone = change(yearly, SUPER, later, When.NOW, refunded=10 + rest)
    assert amounts(kept)[LineCode.UNUSED_REST] == -yearly.paid.unused(later)
    assert LineCode.UNUSED_REST not in amounts(gone)
    again = kept.after
    assert (again.paid_since, again.period.number) == (found.period.number, 3)
    dearer = change(again, PREMIUM, later + DAY, When.NOW, refunded=10).after
    assert dearer.paid_since == found.period.number
    renewed = at_period_end(again).after
    assert renewed.paid_since == renewed.period.number


def test_a_downgrade_now_leaves_a_credit_that_later_periods_use() -> None:
    decision = change(running(SUPER), BASIC, BEGIN + 14 * DAY, When.NOW)
    assert decision.preview.total == 0
    credit = decision.preview.balance_after
    assert credit == decision.after.balance == amounts(decision)[LineCode.CARRIED] > 0
    renewal = at_period_end(decision.after)
    assert renewal.preview.total + credit - renewal.after.balance == BASIC.amount


def test_a_downgrade_usually_waits_for_the_next_period() -> None:
    found = running(SUPER)
    decision = change(found, BASIC, BEGIN + 14 * DAY)
    assert decision.effective_at == found.period.end
    assert decision.after.plan == SUPER
    assert decision.after.pending is not None
    assert decision.preview.total == BASIC.amount
    renewal = at_period_end(decision.after)
    assert renewal.preview == decision.preview
    assert (renewal.change, renewal.after.plan) == (ChangeKind.DOWNGRADE, BASIC)
    assert renewal.after.pending is None


def test_a_change_that_was_to_come_is_forgotten_by_asking_for_the_plan_it_has() -> None:
    waiting = change(running(SUPER), BASIC, BEGIN + DAY).after
    undone = change(waiting, SUPER, BEGIN + 2 * DAY)
    assert (undone.kind, undone.after.pending) == (StepKind.UNDO, None)
    upgraded = change(change(running(), PREMIUM, BEGIN, When.PERIOD_END).after, SUPER, BEGIN + DAY)
    assert (upgraded.after.plan, upgraded.after.pending) == (SUPER, None)


def test_another_cycle_now_begins_a_new_period_and_anchor() -> None:
    found, yearly = running(), plan(cycle=Cycle.YEARLY)
    at = BEGIN + 14 * DAY
    decision = change(found, yearly, at, When.NOW)
    assert amounts(decision) == {
        LineCode.UNUSED_REST: -BASIC.amount // 2,
        LineCode.PERIOD: yearly.amount,
    }
    after = decision.after
    assert (after.period.number, after.period.start) == (2, at)
    assert after.period.end == at + 365 * DAY
    assert at_period_end(after).after.period.number == 3


def test_another_cycle_at_period_end_keeps_the_anchor() -> None:
    waiting = change(running(), plan(cycle=Cycle.QUARTERLY), BEGIN + DAY).after
    renewal = at_period_end(waiting)
    assert renewal.after.period.start == waiting.period.end
    # 31 January and three months, counted from 28 February.
    assert renewal.after.period.end == BEGIN.replace(month=5)


def test_within_a_trial_a_change_costs_nothing() -> None:
    trialing = running(trial_days=7)
    decision = change(trialing, plan(Tier.SUPER, Cycle.YEARLY), BEGIN + DAY, When.NOW)
    assert decision.preview.total == 0
    assert (decision.after.status, decision.after.period) == (
        SubscriptionStatus.TRIALING,
        trialing.period,
    )
    first = at_period_end(decision.after)
    assert first.preview.total == plan(Tier.SUPER, Cycle.YEARLY).amount
    assert first.after.period.end == BEGIN.replace(year=2027, month=2, day=7)


def test_what_a_gateway_does_not_charge_is_owed_with_the_next_period() -> None:
    found = running()
    at = found.period.end - timedelta(hours=1)
    decision = change(found, SUPER, at, minimum=50)
    owed = -decision.after.balance
    assert (decision.preview.total, owed > 0) == (0, True)
    assert at_period_end(decision.after, minimum=50).preview.total == SUPER.amount + owed


def test_a_change_before_a_pause_that_was_to_come() -> None:
    until = running().period.end + 90 * DAY
    planned = pause(running(SUPER), BEGIN, at_period_end=True, until=until).after
    later = change(planned, BASIC, BEGIN + DAY)
    assert (later.preview.total, later.after.pending is not None) == (0, True)
    quarter = change(planned, plan(cycle=Cycle.QUARTERLY), BEGIN + DAY, When.NOW).after
    assert quarter.pause is not None
    assert quarter.pause.starts_at == quarter.period.end
    year = change(planned, plan(cycle=Cycle.YEARLY), BEGIN + DAY, When.NOW).after
    assert year.pause is None


def test_a_period_that_is_over_is_not_changed() -> None:
    found = running()
    with pytest.raises(SubscriptionNotChangeable):
        change(found, SUPER, found.period.end)


def test_another_method_changes_nothing_else() -> None:
    found = running()
    decision = change_method(found, GatewayName.STRIPE, "pm_2", BEGIN + DAY)
    assert (decision.change, decision.preview.total) == (ChangeKind.METHOD, 0)
    assert decision.after.payment_method_id == "pm_2"
    moved = change_method(found, GatewayName.ALIPAY, None, BEGIN + DAY)
    assert (moved.change, moved.after.gateway) == (ChangeKind.GATEWAY, GatewayName.ALIPAY)
    in_dollars = running(plan(currency="USD"))
    with pytest.raises(CurrencyNotSupported):
        change_method(in_dollars, GatewayName.WECHATPAY, None, BEGIN)
