"""The sandbox's judge of cycle pay, and our own rules held to it over random timelines."""

import random
from datetime import date, datetime, timedelta

import pytest

from billing.rails import (
    BEIJING,
    AlipayStanding,
    alipay_deduct_date,
    alipay_moved_date,
    next_alipay_deduct,
)
from sandbox.alipay.judge import Plan

_PLAN = Plan(date(2027, 3, 1), "MONTH", 1, 5000)


@pytest.mark.parametrize(
    ("at", "amount", "code"),
    [
        ("2027-02-23T23:59:59", 5000, "CYCLE_PAY_DATE_NOT_MATCH"),
        ("2027-02-24T00:00:00", 5000, None),
        ("2027-03-01T23:59:59", 5000, None),
        ("2027-03-02T00:00:00", 5000, "CYCLE_PAY_DATE_NOT_MATCH"),
        ("2027-03-01T12:00:00", 5001, "CYCLE_PAY_SINGLE_FEE_EXCEED"),
    ],
)
def test_a_charge_is_taken_on_the_date_and_five_days_before(
    at: str, amount: int, code: str | None
) -> None:
    instant = datetime.fromisoformat(at).replace(tzinfo=BEIJING)
    assert _PLAN.objection(amount, instant) == code


@pytest.mark.parametrize(
    ("plan", "following"),
    [
        (Plan(date(2027, 12, 28), "MONTH", 1, 1), date(2028, 1, 28)),
        (Plan(date(2027, 11, 28), "MONTH", 3, 1), date(2028, 2, 28)),
        (Plan(date(2027, 3, 1), "MONTH", 12, 1), date(2028, 3, 1)),
        (Plan(date(2027, 2, 27), "DAY", 7, 1), date(2027, 3, 6)),
    ],
)
def test_a_success_moves_the_date_on_by_a_period(plan: Plan, following: date) -> None:
    assert plan.following == following


def test_a_date_is_moved_later_and_to_a_day_that_every_month_has() -> None:
    assert _PLAN.objection_to_move(date(2027, 3, 28)) is None
    assert _PLAN.objection_to_move(date(2027, 3, 29)) is not None
    assert _PLAN.objection_to_move(date(2027, 3, 1)) is not None


def _late(rng: random.Random) -> timedelta:
    return timedelta(seconds=rng.choice((0, 1, 60, 3600, 86_400, 400_000)) * rng.random())


def _live(rng: random.Random) -> int:
    """One agreement over some periods: each charge and move must be taken; how many charges."""
    start = datetime(2027, 1, 1, tzinfo=BEIJING) + timedelta(seconds=rng.randrange(40_000_000))
    plan = Plan(alipay_deduct_date(start), "MONTH", rng.choice((1, 3, 12)), 5000)
    now, made = start, 0
    for _ in range(rng.randint(2, 5)):
        tries = 0
        while True:
            standing = AlipayStanding(
                deduct_on=plan.deduct_on, single_amount=plan.most, tries=tries
            )
            at = next_alipay_deduct(standing, 1900, now)
            if at is None:
                moved = alipay_moved_date(standing, now)
                assert moved is not None
                assert plan.objection_to_move(moved) is None
                plan = Plan(moved, plan.period_type, plan.period, plan.most)
                tries = 0
                continue
            assert plan.objection(1900, at) is None, (plan, at)
            made, tries, now = made + 1, tries + 1, at + _late(rng)
            if rng.random() < 0.6:
                plan = Plan(plan.following, plan.period_type, plan.period, plan.most)
                break
    return made


def _run(seed: int, timelines: int) -> None:
    made = 0
    for number in range(timelines):
        try:
            made += _live(random.Random(f"{seed}/{number}"))
        except AssertionError as problem:
            problem.add_note(f"seed {seed}, timeline {number}")
            raise
    assert made > 2 * timelines


def test_no_charge_of_500_timelines_is_outside_the_window() -> None:
    _run(1, 500)


@pytest.mark.soak
def test_no_charge_of_10_000_timelines_is_outside_the_window() -> None:
    _run(2, 10_000)
