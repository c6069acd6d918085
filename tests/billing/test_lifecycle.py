from datetime import timedelta

import pytest

from billing.changes import change
from billing.errors import (
    BillingError,
    InvalidRequest,
    SubscriptionEnded,
    SubscriptionNotChangeable,
    SubscriptionNotResumable,
)
from billing.lifecycle import (
    at_period_end,
    cancel,
    expire,
    move_end,
    paid_up,
    pause,
    resume,
    unpaid,
)
from billing.plans import Tier
from billing.proration import LineCode
from billing.subscription import (
    TRANSITIONS,
    Access,
    StepKind,
    Subscription,
    SubscriptionStatus,
    When,
    sources_of,
)
from tests.billing.subscriptions import BEGIN, incomplete, plan, running

S = SubscriptionStatus
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def test_a_terminal_status_is_never_left() -> None:
    assert {status for status in S if status.is_terminal} == {S.CANCELED, S.EXPIRED}
    assert set(TRANSITIONS) == set(S)
    assert sources_of(S.PAUSED) == {S.TRIALING, S.ACTIVE}
    assert sources_of(S.INCOMPLETE) == frozenset()


def test_the_first_payment_makes_it_active() -> None:
    waiting = incomplete()
    assert (waiting.status, waiting.access) == (S.INCOMPLETE, Access.ENDED)
    assert waiting.owed is not None
    assert waiting.owed.total == waiting.plan.amount
    found = paid_up(waiting, BEGIN + DAY)
    assert (found.status, found.access, found.owed) == (S.ACTIVE, Access.ACTIVE, None)
    assert found.period.number == 1
    assert found.period.start == BEGIN
    assert found.paid is not None
    assert found.paid.amount == found.plan.amount


def test_a_credit_pays_for_the_first_period() -> None:
    waiting = incomplete(balance=5000)
    assert waiting.owed is not None
    assert (waiting.owed.total, waiting.owed.balance_after) == (0, 5000 - waiting.plan.amount)
    assert paid_up(waiting, BEGIN).balance == 5000 - waiting.plan.amount


@pytest.mark.parametrize("balance", [700, -700])
def test_a_trial_charges_nothing_and_leaves_the_balance_alone(balance: int) -> None:
    waiting = incomplete(trial_days=7, balance=balance)
    assert waiting.owed is not None
    assert [line.code for line in waiting.owed.lines] == [LineCode.TRIAL]
    assert (waiting.owed.total, waiting.owed.balance_after) == (0, balance)
    trialing = paid_up(waiting, BEGIN)
    assert (trialing.status, trialing.paid) == (S.TRIALING, None)
    first = at_period_end(trialing)
    assert first.kind is StepKind.RENEWAL
    assert first.effective_at == BEGIN + 7 * DAY
    assert first.preview.total == trialing.plan.amount - balance
    assert (first.after.status, first.after.period.number) == (S.ACTIVE, 1)


def test_what_was_never_paid_expires() -> None:
    found = expire(incomplete(), BEGIN + DAY).after
    assert (found.status, found.ended_at, found.access) == (S.EXPIRED, BEGIN + DAY, Access.ENDED)
    with pytest.raises(SubscriptionNotChangeable):
        expire(running(), BEGIN)


def test_an_unpaid_renewal_owes_what_the_renewal_would_have_charged() -> None:
    before = running(balance=100)
    renewal = at_period_end(before)
    late = unpaid(before, renewal)
    assert (late.status, late.paid, late.balance) == (S.PAST_DUE, None, before.balance)
    assert late.owed == renewal.preview
    assert late.period == renewal.after.period
    recovered = paid_up(late, renewal.effective_at + 5 * DAY)
    assert recovered.model_copy(update={"updated_at": renewal.after.updated_at}) == renewal.after


def test_a_debt_is_no_longer_waited_for_when_its_period_ends() -> None:
    before = running()
    late = unpaid(before, at_period_end(before))
    found = at_period_end(late)
    assert (found.kind, found.after.status) == (StepKind.EXPIRY, S.EXPIRED)
    assert found.effective_at == late.period.end


def test_canceled_at_period_end_it_runs_until_then() -> None:
    decision = cancel(running(), BEGIN + DAY, at_period_end=True)
    found = decision.after
    assert (found.status, found.cancel_at_period_end) == (S.ACTIVE, True)
    assert decision.effective_at == found.period.end
    ended = at_period_end(found)
    assert (ended.kind, ended.preview.total) == (StepKind.CANCELLATION, 0)
    assert (ended.after.status, ended.after.ended_at) == (S.CANCELED, found.period.end)
    assert ended.after.canceled_at == BEGIN + DAY


def late() -> Subscription:
    return unpaid(running(), at_period_end(running()))


def slept_through() -> Subscription:
    return at_period_end(pause(running(), BEGIN, at_period_end=True).after).after


@pytest.mark.parametrize("found", [running(), late(), slept_through()], ids=lambda one: one.status)
def test_canceled_at_period_end_with_nothing_left_it_ends_at_once(found: Subscription) -> None:
    """Its renewal waits for a window, is owed, or comes with the end of a pause."""
    at = running().period.end + HOUR
    decision = cancel(found, at, at_period_end=True)
    assert (decision.effective_at, decision.preview.total) == (at, 0)
    after = decision.after
    assert (after.status, after.ended_at, after.canceled_at) == (S.CANCELED, at, at)
    charged = cancel(found, at, at_period_end=True, is_charged=True).after
    assert (charged.status, charged.cancel_at_period_end) == (found.status, True)
    back = resume(charged, at)
    assert (back.kind, back.after.status) == (StepKind.UNDO, found.status)


def test_an_end_that_is_to_come_is_undone() -> None:
    leaving = cancel(running(), BEGIN + DAY, at_period_end=True).after
    back = resume(leaving, BEGIN + 2 * DAY)
    assert back.kind is StepKind.UNDO
    assert not back.after.cancel_at_period_end
    assert back.after.canceled_at is None
    assert at_period_end(back.after).kind is StepKind.RENEWAL


@pytest.mark.parametrize(("refund", "amount"), [(False, 0), (True, 855)])
def test_canceled_now_it_may_give_back_the_rest(refund: bool, amount: int) -> None:
    found = running(plan(amount=1710))
    half = found.period.start + (found.period.end - found.period.start) / 2
    decision = cancel(found, half, at_period_end=False, refund=refund)
    assert (decision.refund, decision.preview.total) == (amount, 0)
    assert (decision.after.status, decision.after.ended_at) == (S.CANCELED, half)


@pytest.mark.parametrize(("refunded", "amount"), [(710, 500), (1710, 0), (2000, 0)])
def test_canceled_now_it_gives_back_the_rest_of_what_still_stands(
    refunded: int, amount: int
) -> None:
    found = running(plan(amount=1710))
    half = found.period.start + (found.period.end - found.period.start) / 2
    decision = cancel(found, half, at_period_end=False, refund=True, refunded=refunded)
    assert decision.refund == amount


def test_canceled_while_paused_it_gives_back_what_was_left_at_the_pause() -> None:
    found = running()
    assert found.paid is not None
    paused = pause(found, BEGIN + 3 * DAY, at_period_end=False).after
    decision = cancel(paused, BEGIN + 20 * DAY, at_period_end=False, refund=True)
    assert decision.refund == found.paid.unused(BEGIN + 3 * DAY) > 0


def test_a_pause_within_a_period_keeps_what_was_left() -> None:
    found = running()
    paused = pause(found, BEGIN + 3 * DAY, at_period_end=False).after
    assert paused.status is S.PAUSED
    resumed = resume(paused, BEGIN + 13 * DAY)
    assert (resumed.kind, resumed.preview.total) == (StepKind.RESUMPTION, 0)
    after = resumed.after
    assert (after.status, after.pause) == (S.ACTIVE, None)
    assert after.period.end == found.period.end + 10 * DAY
    assert after.period.seconds == found.period.seconds
    assert at_period_end(after).after.period.start == after.period.end
    assert found.paid is not None
    assert after.paid is not None
    assert after.paid.unused(BEGIN + 13 * DAY) == found.paid.unused(BEGIN + 3 * DAY)


@pytest.mark.parametrize("year", [2037, 9999])
def test_nothing_waits_for_longer_than_can_be_counted(year: int) -> None:
    until = BEGIN.replace(year=year, month=12)
    found = running()
    for is_later in (True, False):
        with pytest.raises(InvalidRequest):
            pause(found, BEGIN + DAY, at_period_end=is_later, until=until)
    with pytest.raises(InvalidRequest):
        move_end(found, until, BEGIN + DAY)


def test_a_trial_that_is_paused_goes_on_as_a_trial() -> None:
    found = running(trial_days=7)
    paused = pause(found, BEGIN + DAY, at_period_end=False).after
    after = resume(paused, BEGIN + 2 * DAY).after
    assert (after.status, after.period.end) == (S.TRIALING, BEGIN + 8 * DAY)
    assert at_period_end(after).effective_at == BEGIN + 8 * DAY


def test_a_pause_from_the_periods_end_charges_as_it_ends() -> None:
    found = running()
    until = found.period.end + 40 * DAY
    planned = pause(found, BEGIN + DAY, at_period_end=True, until=until)
    assert (planned.effective_at, planned.after.status) == (found.period.end, S.ACTIVE)
    asleep = at_period_end(planned.after)
    assert (asleep.kind, asleep.after.status) == (StepKind.PAUSE, S.PAUSED)
    awake = resume(asleep.after, until)
    assert (awake.kind, awake.preview.total) == (StepKind.RESUMPTION, found.plan.amount)
    assert (awake.after.status, awake.after.period.start) == (S.ACTIVE, until)
    assert awake.after.period.number == 2
    late = unpaid(asleep.after, awake)
    assert (late.status, late.pause) == (S.PAST_DUE, None)


def test_a_change_that_was_to_come_comes_as_the_pause_ends() -> None:
    found = running(plan(Tier.SUPER))
    later = change(found, plan(), BEGIN + DAY, When.PERIOD_END).after
    asleep = at_period_end(pause(later, BEGIN + 2 * DAY, at_period_end=True).after).after
    awake = resume(asleep, found.period.end + DAY)
    assert awake.after.plan == plan()
    assert awake.preview.total == plan().amount


def test_a_pause_that_was_to_come_is_undone() -> None:
    planned = pause(running(), BEGIN + DAY, at_period_end=True).after
    back = resume(planned, BEGIN + 2 * DAY)
    assert (back.kind, back.after.pause) == (StepKind.UNDO, None)


def ended() -> Subscription:
    return cancel(running(), BEGIN, at_period_end=False).after


def leaving() -> Subscription:
    return cancel(running(), BEGIN, at_period_end=True).after


def asleep() -> Subscription:
    return pause(running(), BEGIN, at_period_end=False).after


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (lambda: cancel(ended(), BEGIN, at_period_end=False), SubscriptionEnded),
        (lambda: pause(ended(), BEGIN, at_period_end=False), SubscriptionEnded),
        (lambda: resume(ended(), BEGIN), SubscriptionEnded),
        (lambda: at_period_end(ended()), SubscriptionEnded),
        (lambda: change(ended(), plan(Tier.SUPER), BEGIN), SubscriptionEnded),
        (lambda: resume(running(), BEGIN), SubscriptionNotResumable),
        (lambda: resume(late(), BEGIN), SubscriptionNotResumable),
        (lambda: paid_up(running(), BEGIN), SubscriptionNotChangeable),
        (lambda: at_period_end(asleep()), SubscriptionNotChangeable),
        (lambda: at_period_end(incomplete()), SubscriptionNotChangeable),
        (lambda: pause(late(), BEGIN, at_period_end=False), SubscriptionNotChangeable),
        (lambda: pause(asleep(), BEGIN, at_period_end=False), SubscriptionNotChangeable),
        (lambda: pause(leaving(), BEGIN, at_period_end=True), SubscriptionNotChangeable),
        (lambda: cancel(incomplete(), BEGIN, at_period_end=True), SubscriptionNotChangeable),
        (lambda: cancel(asleep(), BEGIN, at_period_end=True), SubscriptionNotChangeable),
        (lambda: change(asleep(), plan(Tier.SUPER), BEGIN), SubscriptionNotChangeable),
        (lambda: change(leaving(), plan(Tier.SUPER), BEGIN), SubscriptionNotChangeable),
        (lambda: pause(running(), BEGIN, at_period_end=False, until=BEGIN), InvalidRequest),
        (lambda: cancel(running(), BEGIN, at_period_end=True, refund=True), InvalidRequest),
    ],
)
def test_what_a_state_does_not_allow_is_refused(
    command: object, refusal: type[BillingError]
) -> None:
    assert callable(command)
    with pytest.raises(refusal):
        command()


def test_the_subscription_survives_its_json() -> None:
    for one in (incomplete(), running(trial_days=7), late(), asleep(), leaving(), ended()):
        assert Subscription.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize("is_paused", [True, False])
def test_an_end_that_is_taken_back_leaves_what_was_to_come(is_paused: bool) -> None:
    found = running()
    soon = found.period.start + timedelta(days=1)
    if is_paused:
        found = pause(found, soon, at_period_end=True).after
    else:
        found = change(found, plan(amount=900), soon, When.PERIOD_END).after
    ending = cancel(found, soon, at_period_end=True).after
    assert at_period_end(ending).kind is StepKind.CANCELLATION
    assert at_period_end(ending).after.pending is None
    back = resume(ending, soon).after
    assert (back.pending, back.pause) == (found.pending, found.pause)
    assert at_period_end(back) == at_period_end(found)
