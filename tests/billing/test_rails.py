import random
from datetime import UTC, date, datetime, timedelta

import pytest

from billing.calendar import Anchor, Cycle, Schedule
from billing.rails import (
    ALIPAY_TRIES,
    AlipayStanding,
    DeductRefusal,
    WechatNotice,
    WechatStanding,
    alipay_deduct_date,
    alipay_moved_date,
    alipay_refusal,
    alipay_window,
    next_alipay_deduct,
    next_by_day,
    next_wechat_deduct,
    wechat_notice_window,
    wechat_refusal,
    wechat_window,
)

ZONES = ("Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "UTC")


def beijing(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


def ordinal(at: datetime) -> int:
    """The day in Beijing, counted another way: eight hours on, in whole days."""
    return int((at.timestamp() + 8 * 3600) // 86400)


def hour(at: datetime) -> float:
    return (at.timestamp() + 8 * 3600) % 86400 / 3600


class WechatReferee:
    """WeChat Pay as both readings of its documents have it: what either refuses is refused."""

    def __init__(self, signed_at: datetime) -> None:
        self.signed_at = signed_at
        self.notice: tuple[datetime, int] | None = None
        self.deductions = 0

    def notify(self, at: datetime, amount: int) -> None:
        assert 7 <= hour(at) < 22, "a notice at night"
        self.notice = (at, amount)

    def deduct(self, at: datetime, amount: int, *, pays: bool) -> None:
        assert 7 <= hour(at) < 22, "a deduction at night"
        first = self.deductions == 0 and (at - self.signed_at) < timedelta(hours=12)
        if not first:
            assert self.notice is not None, "a deduction nobody announced"
            noticed_at, announced = self.notice
            day = ordinal(at) - ordinal(noticed_at)
            assert 2 <= day <= 8, "a deduction outside days 3 to 9, the notice's being day 1"
            assert 3 <= day <= 9, "a deduction outside days 3 to 9, the notice's being day 0"
            assert amount <= announced, "more than was announced"
        if pays:
            self.deductions += 1
            self.notice = None


class AlipayReferee:
    def __init__(self, deduct_on: date, months: int) -> None:
        assert deduct_on.day <= 28
        self.deduct_on, self.months = deduct_on, months
        self.tries = 0

    def move(self, deduct_on: date) -> None:
        assert deduct_on > self.deduct_on, "a date moved earlier"
        assert deduct_on.day <= 28, "a date that not every month has"
        self.deduct_on, self.tries = deduct_on, 0

    def deduct(self, at: datetime, *, pays: bool) -> None:
        early = (self.deduct_on - date(1970, 1, 1)).days - ordinal(at)
        assert 0 <= early <= 3, f"a charge {early} days before its date"
        self.tries += 1
        assert self.tries <= 3, "too many charges in a window"
        if pays:
            month = self.deduct_on.year * 12 + self.deduct_on.month - 1 + self.months
            self.deduct_on = self.deduct_on.replace(year=month // 12, month=month % 12 + 1)
            self.tries = 0


def schedule(rng: random.Random, cycle: Cycle) -> Schedule:
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(400 * 86400))
    return Schedule(anchor=Anchor.at(begin, rng.choice(ZONES)), cycle=cycle)


def late(rng: random.Random) -> timedelta:
    """How long nobody was there to act: mostly seconds, sometimes days."""
    return timedelta(seconds=rng.choice((0, 5, 60, 7200, rng.randrange(12 * 86400))))


def live_wechat(rng: random.Random) -> tuple[int, int]:
    """Four renewals under one contract; how many deductions were made, and how many on their day
    in spite of nights."""
    months = schedule(rng, Cycle.MONTHLY)
    referee = WechatReferee(months.starts_at(1))
    made = on_time = 0
    now = referee.signed_at
    for number in range(1, 5):
        due, amount = months.starts_at(number), rng.randrange(100, 9900)
        standing = WechatStanding(
            signed_at=referee.signed_at, deducted_since_signing=referee.deductions > 0
        )
        if number > 1:
            now = max(now, next_by_day(wechat_notice_window(due).opens_at)) + late(rng)
        for _ in range(rng.randrange(1, 9)):
            at = next_wechat_deduct(standing, amount, max(now, due))
            if at is None:
                now = next_by_day(now)
                announced = amount - rng.choice((0, 0, 0, 1))
                referee.notify(now, announced)
                notice = WechatNotice(sent_at=now, amount=announced)
                standing = standing.model_copy(update={"notice": notice})
                now += late(rng)
                continue
            assert wechat_refusal(standing, amount, at) is None
            pays = rng.random() < 0.7
            referee.deduct(at, amount, pays=pays)
            made += 1
            on_time += ordinal(at) - ordinal(due) <= 1
            now = at + late(rng)
            if pays:
                done = standing.model_copy(update={"deducted": True})
                assert next_wechat_deduct(done, amount, now) is None
                break
            now += timedelta(days=1)
    return made, on_time


def live_alipay(rng: random.Random) -> int:
    cycle = rng.choice(list(Cycle))
    periods = schedule(rng, cycle)
    referee = AlipayReferee(alipay_deduct_date(periods.starts_at(1)), cycle.months)
    made = 0
    now = periods.starts_at(1)
    for number in range(1, 5):
        now = max(now, periods.starts_at(number)) + late(rng)
        for _ in range(rng.randrange(1, 9)):
            standing = AlipayStanding(
                deduct_on=referee.deduct_on, single_amount=10_000, tries=referee.tries
            )
            at = next_alipay_deduct(standing, 1900, now)
            if at is None:
                moved = alipay_moved_date(standing, now)
                assert moved is not None
                referee.move(moved)
                now += rng.choice((timedelta(0), late(rng)))
                continue
            assert alipay_refusal(standing, 1900, at) is None
            pays = rng.random() < 0.6
            referee.deduct(at, pays=pays)
            made += 1
            now = at + late(rng)
            if pays:
                break
    return made


def run(seed: int, timelines: int) -> None:
    made = on_time = 0
    for number in range(timelines):
        rng = random.Random(f"{seed}/{number}")
        try:
            by_wechat, punctual = live_wechat(rng)
            made += by_wechat + live_alipay(rng)
        except AssertionError as problem:
            problem.add_note(f"seed {seed}, timeline {number}")
            raise
        on_time += punctual
    assert made > 4 * timelines
    assert on_time > timelines / 2


@pytest.mark.parametrize("seed", range(4))
def test_no_deduction_of_ten_thousand_timelines_is_outside_its_window(seed: int) -> None:
    run(seed, 2500)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_deduction_of_many_more_timelines_is_outside_its_window() -> None:
    run(1000, 200_000)


NOTICE = WechatNotice(sent_at=beijing("2026-03-10T21:59:59"), amount=1900)
STANDING = WechatStanding(
    signed_at=beijing("2026-02-13T12:00:00"), notice=NOTICE, deducted_since_signing=True
)


@pytest.mark.parametrize(
    ("at", "refusal"),
    [
        ("2026-03-10T21:59:59", DeductRefusal.WAITING),
        ("2026-03-11T12:00:00", DeductRefusal.WAITING),
        ("2026-03-12T12:00:00", DeductRefusal.WAITING),
        ("2026-03-13T06:59:59", DeductRefusal.AT_NIGHT),
        ("2026-03-13T07:00:00", None),
        ("2026-03-14T22:00:00", DeductRefusal.AT_NIGHT),
        ("2026-03-18T21:59:59", None),
        ("2026-03-19T07:00:00", DeductRefusal.TOO_LATE),
    ],
)
def test_wechat_deducts_by_day_within_the_week(at: str, refusal: DeductRefusal | None) -> None:
    assert wechat_refusal(STANDING, 1900, beijing(at)) is refusal


def test_wechat_deducts_once_and_not_above_what_was_announced() -> None:
    at = beijing("2026-03-14T12:00:00")
    assert wechat_refusal(STANDING, 1901, at) is DeductRefusal.ABOVE_ANNOUNCED
    assert next_wechat_deduct(STANDING, 1901, at) is None
    assert next_wechat_deduct(STANDING, 1900, at) == at
    deducted = STANDING.model_copy(update={"deducted": True})
    assert wechat_refusal(deducted, 1, at) is DeductRefusal.ALREADY_DEDUCTED
    silent = STANDING.model_copy(update={"notice": None})
    assert wechat_refusal(silent, 1, at) is DeductRefusal.NOT_ANNOUNCED


def test_the_first_deduction_after_signing_needs_no_notice_for_twelve_hours() -> None:
    signed = WechatStanding(signed_at=beijing("2026-03-10T09:00:00"))
    assert wechat_refusal(signed, 1900, beijing("2026-03-10T09:00:00")) is None
    assert wechat_refusal(signed, 1900, beijing("2026-03-10T20:59:59")) is None
    late_one = beijing("2026-03-10T21:00:00")
    assert wechat_refusal(signed, 1900, late_one) is DeductRefusal.NOT_ANNOUNCED
    before = beijing("2026-03-10T08:59:59")
    assert wechat_refusal(signed, 1900, before) is DeductRefusal.NOT_ANNOUNCED
    again = signed.model_copy(update={"deducted_since_signing": True})
    at_noon = beijing("2026-03-10T12:00:00")
    assert wechat_refusal(again, 1900, at_noon) is DeductRefusal.NOT_ANNOUNCED


def test_who_signs_at_night_is_deducted_in_the_morning() -> None:
    signed_at = beijing("2026-03-10T23:00:00")
    signed = WechatStanding(signed_at=signed_at)
    assert next_wechat_deduct(signed, 1900, signed_at) == beijing("2026-03-11T07:05:00")


def test_a_notice_goes_out_a_spare_day_early_and_its_window_opens_on_the_day_due() -> None:
    window = wechat_notice_window(beijing("2026-03-31T12:00:00"))
    assert window.opens_at == beijing("2026-03-27T07:00:00")
    assert window.closes_at == beijing("2026-03-28T22:00:00")
    for sent_at in (window.opens_at, window.closes_at - timedelta(seconds=1)):
        notice = WechatNotice(sent_at=sent_at, amount=1)
        assert wechat_window(notice).contains(beijing("2026-03-31T07:00:00"))


def test_what_falls_due_at_night_is_deducted_in_the_morning() -> None:
    due = beijing("2026-03-31T22:30:00")
    assert next_by_day(due) == beijing("2026-04-01T07:05:00")
    assert wechat_notice_window(due).closes_at == beijing("2026-03-29T22:00:00")
    assert next_by_day(beijing("2026-03-31T21:56:00")) == beijing("2026-04-01T07:05:00")
    assert next_by_day(beijing("2026-03-31T21:54:00")) == beijing("2026-03-31T21:54:00")


def test_a_closed_window_takes_another_notice() -> None:
    assert next_wechat_deduct(STANDING, 1900, beijing("2026-03-18T21:54:00")) is not None
    assert next_wechat_deduct(STANDING, 1900, beijing("2026-03-18T21:55:00")) is None


@pytest.mark.parametrize(
    ("due", "deduct_on"),
    [
        ("2026-03-01T00:00:00", "2026-03-03"),
        ("2026-03-26T23:59:59", "2026-03-28"),
        ("2026-03-27T12:00:00", "2026-03-28"),
        ("2026-03-28T12:00:00", "2026-03-28"),
        ("2026-03-29T12:00:00", "2026-04-01"),
        ("2026-01-31T12:00:00", "2026-02-01"),
        ("2026-12-31T12:00:00", "2027-01-01"),
        ("2028-02-29T12:00:00", "2028-03-01"),
    ],
)
def test_every_day_of_a_month_has_its_deduct_date(due: str, deduct_on: str) -> None:
    assert alipay_deduct_date(beijing(due)) == date.fromisoformat(deduct_on)


def test_any_charge_is_due_within_the_window_of_its_deduct_date() -> None:
    day = beijing("2023-12-25T00:00:00")
    for _ in range(3000):
        window = alipay_window(alipay_deduct_date(day))
        assert window.opens_at <= day
        assert day + timedelta(days=1) <= window.closes_at
        day += timedelta(days=1)


AGREEMENT = AlipayStanding(deduct_on=date(2026, 4, 1), single_amount=10_000)


@pytest.mark.parametrize(
    ("at", "refusal"),
    [
        ("2026-03-28T23:59:59", DeductRefusal.TOO_EARLY),
        ("2026-03-29T00:00:00", None),
        ("2026-04-01T23:59:59", None),
        ("2026-04-02T00:00:00", DeductRefusal.TOO_LATE),
    ],
)
def test_alipay_charges_on_the_date_and_three_days_before(
    at: str, refusal: DeductRefusal | None
) -> None:
    assert alipay_refusal(AGREEMENT, 10_000, beijing(at)) is refusal


@pytest.mark.parametrize(
    ("update", "amount", "refusal"),
    [
        ({}, 10_001, DeductRefusal.ABOVE_CAP),
        ({"tries": ALIPAY_TRIES}, 1, DeductRefusal.TRIES_EXHAUSTED),
        ({"deducted": True}, 1, DeductRefusal.ALREADY_DEDUCTED),
    ],
)
def test_alipay_carries_no_more_than_was_agreed(
    update: dict[str, object], amount: int, refusal: DeductRefusal
) -> None:
    standing = AGREEMENT.model_copy(update=update)
    at = beijing("2026-03-31T12:00:00")
    assert alipay_refusal(standing, amount, at) is refusal
    assert next_alipay_deduct(standing, amount, at) is None


def test_a_missed_date_is_moved_later_and_never_earlier() -> None:
    before, missed = beijing("2026-03-20T12:00:00"), beijing("2026-04-01T23:56:00")
    assert alipay_moved_date(AGREEMENT, before) is None
    assert next_alipay_deduct(AGREEMENT, 1, before) == beijing("2026-03-29T00:05:00")
    assert next_alipay_deduct(AGREEMENT, 1, missed) is None
    assert alipay_moved_date(AGREEMENT, missed) == date(2026, 4, 4)
    exhausted = AGREEMENT.model_copy(update={"tries": ALIPAY_TRIES})
    assert alipay_moved_date(exhausted, beijing("2026-03-30T12:00:00")) == date(2026, 4, 5)


@pytest.mark.parametrize("day", range(1, 29))
@pytest.mark.parametrize("month", [2, 3, 4])
def test_where_tries_are_used_up_no_day_is_in_both_windows(month: int, day: int) -> None:
    exhausted = AlipayStanding(
        deduct_on=date(2026, month, day), single_amount=10_000, tries=ALIPAY_TRIES
    )
    before = alipay_window(exhausted.deduct_on)
    moved = alipay_moved_date(exhausted, before.opens_at)
    assert moved is not None
    assert moved.day <= 28
    after = alipay_window(moved)
    assert timedelta(0) <= after.opens_at - before.closes_at < timedelta(days=4)
