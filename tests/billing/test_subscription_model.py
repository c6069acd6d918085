"""Whole lives of subscriptions against books kept another way: exact fractions of what each second
was worth, and boundaries walked day by day."""

import random
from datetime import datetime, timedelta
from fractions import Fraction

import pytest

from billing.calendar import Cycle
from billing.changes import change
from billing.errors import BillingError
from billing.lifecycle import at_period_end, cancel, paid_up, pause, resume, unpaid
from billing.plans import Plan, Tier
from billing.proration import LineCode, PaidStretch
from billing.subscription import (
    TRANSITIONS,
    Decision,
    StepKind,
    Subscription,
    SubscriptionStatus,
    When,
)
from billing.upcoming import upcoming
from tests.billing.calendar_reference import boundary
from tests.billing.subscriptions import BEGIN, incomplete, plan, running

S = SubscriptionStatus
ZONES = ("Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "UTC")
CURRENCIES = ("JPY", "CNY", "KWD")
DAY = timedelta(days=1)


class Life:
    """One subscription and its books: `charged` at the gateway, `gross` what was sold for it, and
    what was given up of that again. `refunded` is what went back of what was paid for the
    period."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.currency = chance.choice(CURRENCIES)
        self.minimum = chance.choice((1, 50))
        begin = BEGIN + timedelta(seconds=chance.randrange(400 * 86400))
        waiting = incomplete(
            self.any_plan(),
            at=begin,
            zone=chance.choice(ZONES),
            trial_days=chance.choice((0, 0, 7, 30)),
            balance=chance.choice((0, 0, 500, 100_000)),
        )
        assert waiting.owed is not None
        self.granted = waiting.balance
        self.charged, self.gross, self.given_up = waiting.owed.total, 0, 0
        self.refunded = 0
        if not waiting.is_trial:
            self.gross = waiting.plan.amount
        self.subscription = paid_up(waiting, begin)
        self.now = begin
        self.steps = 0

    def any_plan(self) -> Plan:
        tier = self.chance.choice((Tier.BASIC, Tier.PREMIUM, Tier.SUPER))
        return plan(tier, self.chance.choice(list(Cycle)), self.currency)

    def step(self) -> None:
        before = self.subscription
        if before.status.is_terminal:
            return
        self.steps += 1
        if before.status is S.PAST_DUE:
            self.settle_debt()
        elif before.status is S.PAUSED:
            self.now += timedelta(seconds=self.chance.randrange(90 * 86400))
            self.take(resume(before, self.now, minimum=self.minimum))
        elif self.chance.random() < 0.4:
            self.now = before.period.end
            self.take(at_period_end(before, minimum=self.minimum))
        else:
            self.refund()
            left = (before.period.end - self.now) // timedelta(seconds=1)
            self.now += timedelta(seconds=self.chance.randrange(left))
            self.command()
        after = self.subscription
        if after.period.number != before.period.number and after.paid_since != before.paid_since:
            self.refunded = 0
        assert after.status is before.status or after.status in TRANSITIONS[before.status]
        assert self.charged - after.balance + self.granted == self.gross - self.given_up

    def refund(self) -> None:
        paid = self.subscription.paid
        if paid is not None and self.chance.random() < 0.2:
            self.refunded += self.chance.choice((0, 1, paid.amount // 3, paid.amount))

    def standing_paid(self, paid: PaidStretch) -> int:
        """What was paid for the stretch and has not gone back since it began."""
        return max(paid.amount - (self.refunded - paid.refunded_before), 0)

    def command(self) -> None:
        subscription, now = self.subscription, self.now
        end = self.chance.random() < 0.5
        when = self.chance.choice((When.NOW, When.NOW, When.PERIOD_END, None))
        command = self.chance.choice(("change",) * 8 + ("pause", "cancel", "resume", "resume"))
        try:
            if command == "change":
                target = self.any_plan()
                self.take(
                    change(
                        subscription,
                        target,
                        now,
                        when,
                        minimum=self.minimum,
                        refunded=self.refunded,
                    )
                )
            elif command == "pause":
                until = self.chance.choice((None, now + 40 * DAY))
                self.take(pause(subscription, now, at_period_end=end, until=until))
            elif command == "resume":
                self.take(resume(subscription, now, minimum=self.minimum))
            else:
                self.cancel(self.chance.random() < 0.9)
        except BillingError:
            assert self.subscription == subscription

    def cancel(self, at_end: bool) -> None:
        decision = cancel(
            self.subscription,
            self.now,
            at_period_end=at_end,
            refund=not at_end,
            refunded=self.refunded,
        )
        paid = self.subscription.paid
        if not at_end and paid is not None:
            self.agrees(decision.refund, self.standing_paid(paid), paid.start, paid.end)
        self.take(decision)

    def settle_debt(self) -> None:
        owed = self.subscription.owed
        assert owed is not None
        self.charged += owed.total
        self.gross += self.subscription.plan.amount
        self.subscription = paid_up(self.subscription, self.now)

    def take(self, decision: Decision) -> None:
        """What a charge does: exactly what the preview says, or nothing at all."""
        before, after = self.subscription, decision.after
        is_new_period = decision.kind in (StepKind.RENEWAL, StepKind.RESUMPTION)
        if is_new_period and decision.preview.total and self.chance.random() < 0.2:
            self.subscription = unpaid(before, decision)
            return
        assert Subscription.model_validate_json(after.model_dump_json()) == after
        self.subscription = after
        if decision.effective_at > self.now:
            assert after.balance == before.balance
            return
        self.charged += decision.preview.total
        for line in decision.preview.lines:
            self.enter(line.code, line.amount, before, after)

    def enter(self, code: LineCode, amount: int, before: Subscription, after: Subscription) -> None:
        if code is LineCode.UNUSED_REST:
            assert before.paid is not None
            stands = self.standing_paid(before.paid)
            self.agrees(-amount, stands, before.paid.start, before.paid.end)
            self.given_up -= amount
        elif code is LineCode.NEW_REST:
            self.agrees(amount, after.plan.amount, after.period.start, after.period.end)
            self.gross += amount
        elif code is LineCode.PERIOD:
            assert amount == after.plan.amount
            self.gross += amount

    def agrees(self, part: int, whole: int, start: datetime, end: datetime) -> None:
        rest = Fraction((end - self.now) // timedelta(seconds=1))
        exact = whole * rest / Fraction((end - start) // timedelta(seconds=1))
        assert abs(part - exact) <= Fraction(1, 2)


def live(seed: int, number: int) -> int:
    life = Life(random.Random(f"{seed}/{number}"))
    for _ in range(50):
        life.step()
    return life.steps


def run(seed: int, lives: int) -> None:
    steps = 0
    for number in range(lives):
        try:
            steps += live(seed, number)
        except AssertionError as problem:
            problem.add_note(f"live({seed}, {number})")
            raise
    assert steps > 20 * lives


@pytest.mark.parametrize("seed", range(4))
def test_books_and_previews_agree_to_the_minor_unit(seed: int) -> None:
    run(seed, 250)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_books_and_previews_agree_in_many_more_lives() -> None:
    run(1000, 5000)


@pytest.mark.parametrize("zone", ZONES)
def test_two_years_to_come_are_told_and_come_as_told(zone: str) -> None:
    found = running(zone=zone)
    told = upcoming(found, BEGIN)
    assert len(told) == 24
    assert {one.kind for one in told} == {StepKind.RENEWAL}
    local = found.schedule.anchor.local
    assert [one.at for one in told] == [boundary(local, zone, month) for month in range(1, 25)]
    assert {one.amount for one in told} == {found.plan.amount}
    for one in told:
        decision = at_period_end(found)
        assert (decision.effective_at, decision.preview.total) == (one.at, one.amount)
        found = decision.after
        assert found.period == one.period
    assert upcoming(found, BEGIN) == ()


def test_what_is_to_come_shows_trial_credit_change_and_end() -> None:
    found = running(trial_days=7, balance=2000)
    found = change(found, plan(Tier.SUPER), BEGIN + DAY, When.NOW).after
    found = change(found, plan(), BEGIN + DAY, When.PERIOD_END).after
    first, second, third, *_ = upcoming(found, BEGIN)
    assert (first.at, first.tier, first.amount) == (BEGIN + 7 * DAY, Tier.BASIC, 0)
    assert (second.amount, third.amount) == (2 * 1710 - 2000, 1710)
    leaving = cancel(found, BEGIN + DAY, at_period_end=True).after
    (only,) = upcoming(leaving, BEGIN)
    assert (only.kind, only.status, only.amount) == (StepKind.CANCELLATION, S.CANCELED, 0)
    assert upcoming(at_period_end(leaving).after, BEGIN) == ()


def test_what_is_to_come_waits_for_the_end_of_a_pause() -> None:
    found = running()
    until = found.period.end + 30 * DAY
    planned = pause(found, BEGIN + DAY, at_period_end=True, until=until).after
    asleep, awake, after, *_ = upcoming(planned, BEGIN, months=4)
    assert (asleep.kind, asleep.status, asleep.amount) == (StepKind.PAUSE, S.PAUSED, 0)
    assert (awake.kind, awake.at, awake.amount) == (StepKind.RESUMPTION, until, 1710)
    assert after.kind is StepKind.RENEWAL
    endless = pause(found, BEGIN + DAY, at_period_end=False).after
    assert upcoming(endless, BEGIN) == ()


def test_what_is_owed_comes_first() -> None:
    found = running()
    late = unpaid(found, at_period_end(found))
    at = found.period.end + DAY
    payment, renewal = upcoming(late, at, months=2)[:2]
    assert (payment.kind, payment.at, payment.amount) == (StepKind.PAYMENT, at, 1710)
    assert (renewal.kind, renewal.at) == (StepKind.RENEWAL, late.period.end)
