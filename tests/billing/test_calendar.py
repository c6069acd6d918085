import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from billing.calendar import Anchor, Cycle, Schedule, seconds_between, to_local_date, trial
from tests.billing.calendar_reference import boundary

ZONES = [
    "UTC",
    "Asia/Shanghai",
    "Asia/Kathmandu",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Chatham",
]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def clock(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A local time, as a clock on a wall shows it."""
    return utc(year, month, day, hour, minute).replace(tzinfo=None)


def schedule(
    local: datetime, zone: str = "UTC", cycle: Cycle = Cycle.MONTHLY, fold: int = 0
) -> Schedule:
    return Schedule(
        anchor=Anchor.model_validate({"local": local, "zone": zone, "fold": fold}), cycle=cycle
    )


def any_local(rng: random.Random) -> datetime:
    """Ends of months, nights in which clocks change and any other time, each often enough."""
    year, month = rng.randrange(1995, 2036), rng.randrange(1, 13)
    first = clock(year, month, 1)
    day = rng.choice((rng.randrange(28), rng.randrange(27, 31), 30))
    local = first + timedelta(days=day, hours=rng.choice((0, 1, 2, 3, rng.randrange(24))))
    return local + timedelta(minutes=rng.randrange(60), seconds=rng.randrange(60))


def check_against_reference(seed: int, cases: int) -> None:
    rng = random.Random(seed)
    for case in range(cases):
        local, zone = any_local(rng), rng.choice(ZONES)
        cycle = rng.choice(list(Cycle))
        number = rng.randrange(1, 2 + 48 // cycle.months)
        found = schedule(local, zone, cycle).period(number)
        expected = (
            boundary(local, zone, (number - 1) * cycle.months),
            boundary(local, zone, number * cycle.months),
        )
        told = f"seed {seed} case {case}: {local} {zone} {cycle} {number}"
        assert (found.start, found.end) == expected, told
        assert schedule(local, zone, cycle).period_at(found.start) == found, told
        inside = found.start + timedelta(seconds=rng.randrange(found.seconds))
        assert schedule(local, zone, cycle).period_at(inside) == found, told


@pytest.mark.parametrize("seed", range(5))
def test_periods_are_those_of_the_reference(seed: int) -> None:
    check_against_reference(seed, 1000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_more_periods_are_those_of_the_reference(seed: int) -> None:
    check_against_reference(seed, 5000)


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York", "Australia/Lord_Howe"])
def test_ten_years_of_months_anchored_on_the_31st(zone: str) -> None:
    local = clock(2026, 1, 31, 2, 15)
    months = schedule(local, zone)
    starts = [months.starts_at(number) for number in range(1, 121)]
    assert starts == [boundary(local, zone, number) for number in range(120)]
    days = [to_local_date(start, zone) for start in starts]
    assert all((day + timedelta(days=1)).day == 1 for day in days)
    assert [(day.year, day.month) for day in days] == [
        (2026 + number // 12, number % 12 + 1) for number in range(120)
    ]
    periods = [months.period(number) for number in range(1, 121)]
    assert all(one.end == next_one.start for one, next_one in pairwise(periods))


def test_a_subscription_of_the_31st_falls_on_the_last_day_of_short_months() -> None:
    months = schedule(clock(2024, 1, 31, 12))
    assert [months.starts_at(number) for number in (2, 3, 4, 14)] == [
        utc(2024, 2, 29, 12),
        utc(2024, 3, 31, 12),
        utc(2024, 4, 30, 12),
        utc(2025, 2, 28, 12),
    ]


def test_a_leap_day_comes_back_every_fourth_year() -> None:
    years = schedule(clock(2024, 2, 29), cycle=Cycle.YEARLY)
    assert [years.starts_at(number).date() for number in range(1, 6)] == [
        date(2024, 2, 29),
        date(2025, 2, 28),
        date(2026, 2, 28),
        date(2027, 2, 28),
        date(2028, 2, 29),
    ]


def test_a_skipped_local_time_is_read_with_the_offset_before() -> None:
    months = schedule(clock(2026, 2, 8, 2, 30), "America/New_York")
    assert months.starts_at(2) == utc(2026, 3, 8, 7, 30)  # 03:30 EDT
    half_an_hour = schedule(clock(2026, 9, 4, 2, 15), "Australia/Lord_Howe")
    assert half_an_hour.starts_at(2) == utc(2026, 10, 3, 15, 45)  # 02:45 on the 4th


def test_a_skipped_day_is_read_as_the_one_after() -> None:
    assert schedule(clock(2011, 11, 30, 9), "Pacific/Apia").starts_at(2) == utc(2011, 12, 30, 19)


def test_of_two_equal_local_times_the_first_is_taken() -> None:
    months = schedule(clock(2026, 10, 1, 1, 30), "America/New_York")
    assert months.starts_at(2) == utc(2026, 11, 1, 5, 30)  # EDT still


def test_an_anchor_begins_at_its_own_instant_also_in_a_repeated_hour() -> None:
    for instant in (utc(2026, 11, 1, 5, 30), utc(2026, 11, 1, 6, 30)):
        anchor = Anchor.at(instant + timedelta(microseconds=7), "America/New_York")
        assert anchor.local == clock(2026, 11, 1, 1, 30)
        assert anchor.after_months(0) == instant
        assert anchor.after_months(1) == utc(2026, 12, 1, 6, 30)
        assert Anchor.model_validate_json(anchor.model_dump_json()) == anchor


def test_every_instant_is_an_anchor_of_itself() -> None:
    rng = random.Random(11)
    for _ in range(2000):
        instant = utc(2000, 1, 1) + timedelta(seconds=rng.randrange(35 * 365 * 86400))
        zone = rng.choice(ZONES)
        assert Anchor.at(instant, zone).after_months(0) == instant, (instant, zone)


def test_a_period_contains_its_start_and_not_its_end() -> None:
    period = schedule(clock(2026, 1, 1)).period(1)
    assert period.contains(utc(2026, 1, 1))
    assert not period.contains(utc(2026, 2, 1))
    assert period.seconds == 31 * 86400


def test_there_is_no_period_before_the_first() -> None:
    months = schedule(clock(2026, 1, 31))
    with pytest.raises(ValueError, match="comes before 1"):
        months.period(0)
    with pytest.raises(ValueError, match="comes before 1"):
        months.period_at(utc(2026, 1, 30))


def test_a_trial_counts_calendar_days_and_its_end_is_the_anchor() -> None:
    # The clocks in New York change on 8 March: fourteen days that are an hour short.
    free, paid = trial(utc(2026, 3, 1, 15), "America/New_York", 14, Cycle.MONTHLY)
    assert (free.number, free.start, free.end) == (0, utc(2026, 3, 1, 15), utc(2026, 3, 15, 14))
    assert paid.period(1).start == free.end
    assert paid.period(1).end == utc(2026, 4, 15, 14)


def test_a_trial_that_ends_in_a_short_month_keeps_its_day() -> None:
    _, paid = trial(utc(2026, 1, 17), "UTC", 14, Cycle.MONTHLY)
    assert [paid.starts_at(number).date() for number in (1, 2, 3)] == [
        date(2026, 1, 31),
        date(2026, 2, 28),
        date(2026, 3, 31),
    ]


def test_another_cycle_keeps_the_day_of_the_anchor() -> None:
    months = schedule(clock(2026, 1, 31))
    years = months.with_cycle(Cycle.YEARLY, 2)
    assert years.period(2).start == months.period(1).end == utc(2026, 2, 28)
    assert years.period(2).end == utc(2027, 2, 28)
    back = years.with_cycle(Cycle.QUARTERLY, 3)
    assert back.period(3).start == utc(2027, 2, 28)
    assert back.period(3).end == utc(2027, 5, 31)


def test_a_pause_moves_the_anchor_by_what_it_lasted() -> None:
    months = schedule(clock(2026, 1, 31))
    interrupted = months.period(1)
    paused, resumed = utc(2026, 2, 10), utc(2026, 2, 15)
    after = months.resumed(interrupted, paused, resumed)
    assert after.starts_at(2) == interrupted.end + timedelta(days=5) == utc(2026, 3, 5)
    assert after.starts_at(3) == utc(2026, 4, 5)


def test_a_pause_of_no_length_moves_nothing() -> None:
    months = schedule(clock(2026, 1, 31))
    instant = utc(2026, 2, 10)
    after = months.resumed(months.period(1), instant, instant)
    assert [after.period(number) for number in (2, 3)] == [
        months.period(number) for number in (2, 3)
    ]


@pytest.mark.parametrize(
    ("lasted", "days"),
    [
        (timedelta(seconds=1), [28, 31, 30, 31]),
        (timedelta(hours=13, minutes=59, seconds=59), [28, 31, 30, 31]),
        (timedelta(hours=14), [1, 1, 1, 1]),  # which is another day
        (timedelta(days=3), [3, 3, 3, 3]),
        (timedelta(days=31), [31, 30, 31, 30]),
    ],
    ids=str,
)
def test_a_pause_within_a_day_keeps_the_day_of_the_anchor(
    lasted: timedelta, days: list[int]
) -> None:
    months = schedule(clock(2026, 1, 31, 10))
    paused = utc(2026, 2, 28, 9)
    after = months.resumed(months.period(1), paused, paused + lasted)
    assert after.starts_at(2) == utc(2026, 2, 28, 10) + lasted
    assert [after.starts_at(number).day for number in (2, 3, 4, 5)] == days


def test_any_short_pause_keeps_the_day_of_the_anchor() -> None:
    """Where the next start lies on the day on which it would have lain, and clocks show its time
    for the first time that day, only the time of day moves."""
    rng = random.Random(6)
    kept = 0
    for case in range(1500):
        local, zone = any_local(rng), rng.choice(ZONES)
        cycle = rng.choice(list(Cycle))
        months = schedule(local, zone, cycle)
        interrupted = months.period(rng.randrange(1, 9))
        lasted = timedelta(seconds=rng.choice((1, 3600, rng.randrange(1, 3 * 86400))))
        paused = interrupted.start + timedelta(seconds=rng.randrange(interrupted.seconds))
        after = months.resumed(interrupted, paused, paused + lasted)
        start, number = interrupted.end + lasted, interrupted.number + 1
        shown = start.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        first, passed = shown, 0
        if to_local_date(interrupted.end, zone) == shown.date():
            moved = datetime.combine(local.date(), shown.time())
            if boundary(moved, zone, interrupted.number * cycle.months) == start:
                first, passed = moved, interrupted.number * cycle.months
                kept += 1
        told = f"case {case}: {local} {zone} {cycle} {interrupted.number} {lasted}"
        assert after.starts_at(number) == start, told
        for later in range(1, 1 + 24 // cycle.months):
            expected = boundary(first, zone, passed + later * cycle.months)
            assert after.starts_at(number + later) == expected, told
    assert kept > 300


def test_any_pause_keeps_every_paid_second() -> None:
    rng = random.Random(5)
    for _ in range(1000):
        months = schedule(any_local(rng), rng.choice(ZONES), rng.choice(list(Cycle)))
        interrupted = months.period(rng.randrange(1, 9))
        paused = interrupted.start + timedelta(seconds=rng.randrange(interrupted.seconds))
        resumed = paused + timedelta(seconds=rng.randrange(100 * 86400))
        next_start = months.resumed(interrupted, paused, resumed).starts_at(interrupted.number + 1)
        used = seconds_between(interrupted.start, paused) + seconds_between(resumed, next_start)
        assert used == interrupted.seconds


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "asia/shanghai", "../etc/passwd", "right/UTC", "Asia", "localtime"]
)
def test_a_zone_nobody_knows_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="zone"):
        Anchor(local=clock(2026, 1, 1), zone=zone)


def test_an_anchor_with_an_offset_of_its_own_is_refused() -> None:
    with pytest.raises(ValidationError):
        Anchor(local=utc(2026, 1, 1), zone="UTC")
