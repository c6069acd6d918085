import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from pydantic import ValidationError

from billing.calendar import Period
from billing.money import exponent
from billing.proration import (
    Line,
    LineCode,
    PaidStretch,
    Preview,
    allocate,
    charge_for_period,
    charge_for_rest,
    credit_for_rest,
    divide_at,
    preview,
)

START = datetime(2026, 1, 31, tzinfo=UTC)
CURRENCIES = ("JPY", "KRW", "CNY", "USD", "KWD", "BHD")


def month(seconds: int = 28 * 86400) -> Period:
    return Period(number=1, start=START, end=START + timedelta(seconds=seconds))


def by_fractions(amount: int, weights: Sequence[int]) -> list[int]:
    """Largest remainder by another way: units are dealt one by one, over the whole parts, to
    whoever is furthest below the exact share."""
    shares = [Fraction(abs(amount) * weight, sum(weights)) for weight in weights]
    parts = [share.numerator // share.denominator for share in shares]
    while sum(parts) < abs(amount):
        lacking = [share - part for share, part in zip(shares, parts, strict=True)]
        parts[lacking.index(max(lacking))] += 1
    return [part if amount >= 0 else -part for part in parts]


def price(rng: random.Random, currency: str) -> int:
    return int(rng.randrange(1, 2000) * 10 ** exponent(currency) - rng.choice((0, 1)))


def check_divisions(seed: int, cases: int) -> None:
    rng = random.Random(seed)
    for case in range(cases):
        told = f"seed {seed} case {case}"
        currency = rng.choice(CURRENCIES)
        amount = rng.choice((1, -1)) * price(rng, currency)
        weights = [rng.randrange(0, 100_000) for _ in range(rng.randrange(1, 12))] + [1]
        parts = allocate(amount, weights)
        assert sum(parts) == amount, told
        assert list(parts) == by_fractions(amount, weights), told

        period = month(rng.randrange(1, 366 * 86400))
        instant = START + timedelta(seconds=rng.randrange(period.seconds + 1))
        old, new = price(rng, currency), price(rng, currency)
        rest = Fraction((period.end - instant) // timedelta(seconds=1), period.seconds)
        credit = credit_for_rest(PaidStretch.of(period, old), instant).amount
        charge = charge_for_rest(new, period, instant).amount
        assert abs(-credit - old * rest) <= Fraction(1, 2), told
        assert abs(charge - new * rest) <= Fraction(1, 2), told
        kept = divide_at(old, period.start, instant, period.end)[0]
        assert kept - credit == old, told
        balance = rng.choice((0, rng.randrange(-5000, 5000)))
        check_preview(credit, charge, currency, balance, rng.choice((1, 50)), told)


def check_preview(
    credit: int, charge: int, currency: str, balance: int, minimum: int, told: str
) -> None:
    lines = [Line(code=LineCode.UNUSED_REST, amount=credit)]
    lines.append(Line(code=LineCode.NEW_REST, amount=charge))
    found = preview(lines, currency, balance=balance, minimum=minimum)
    due = credit + charge - balance
    assert found.total == (due if due >= minimum else 0), told
    assert found.total - found.balance_after == due, told
    moved = [
        line.amount
        for line in found.lines
        if line.code in (LineCode.CREDIT_APPLIED, LineCode.CARRIED)
    ]
    assert found.balance_after == balance + sum(moved), told
    assert sum(line.amount for line in found.lines) == found.total, told


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_those_of_the_reference_and_sum_to_the_whole(seed: int) -> None:
    check_divisions(seed, 1000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_more_parts_sum_to_the_whole(seed: int) -> None:
    check_divisions(seed, 10_000)


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_of_changes_gives_back_no_more_than_was_paid(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(300):
        currency = rng.choice(CURRENCIES)
        period = month()
        seconds = sorted(rng.sample(range(1, period.seconds), rng.randrange(1, 8)))
        paid = PaidStretch.of(period, price(rng, currency))
        charged, kept = paid.amount, 0
        for instant in (START + timedelta(seconds=second) for second in seconds):
            kept += divide_at(paid.amount, paid.start, instant, paid.end)[0]
            charged -= paid.unused(instant)
            rest = charge_for_rest(price(rng, currency), period, instant).amount
            paid = PaidStretch(amount=rest, start=instant, end=period.end)
            charged += rest
        assert charged == kept + paid.amount


@pytest.mark.parametrize(
    ("amount", "weights", "parts"),
    [
        (100, (1, 1, 1), (34, 33, 33)),
        (-100, (1, 1, 1), (-34, -33, -33)),
        (1, (1, 1), (1, 0)),
        (5, (0, 1), (0, 5)),
        (0, (3, 4), (0, 0)),
        (10, (1, 3, 6), (1, 3, 6)),
        (7, (50, 30, 20), (4, 2, 1)),
    ],
)
def test_the_largest_remainders_get_what_is_left(
    amount: int, weights: tuple[int, ...], parts: tuple[int, ...]
) -> None:
    assert allocate(amount, weights) == parts


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2)])
def test_weights_that_cannot_divide_are_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weights"):
        allocate(1, weights)


def test_an_upgrade_half_way_credits_half_and_charges_half() -> None:
    period, half = month(), START + timedelta(days=14)
    lines = [
        credit_for_rest(PaidStretch.of(period, 2900), half),
        charge_for_rest(5900, period, half),
    ]
    assert preview(lines, "CNY") == Preview(
        currency="CNY",
        lines=(
            Line(code=LineCode.UNUSED_REST, amount=-1450, period_start=half, period_end=period.end),
            Line(code=LineCode.NEW_REST, amount=2950, period_start=half, period_end=period.end),
        ),
        total=1500,
        balance_after=0,
    )


def test_at_the_ends_of_a_period_everything_or_nothing_is_left() -> None:
    paid = PaidStretch.of(month(), 2900)
    early, late = START - timedelta(days=1), paid.end + timedelta(days=1)
    assert [paid.unused(at) for at in (early, START, paid.end, late)] == [2900, 2900, 0, 0]


def test_fractions_of_a_second_are_not_yet_used() -> None:
    paid = PaidStretch.of(month(10), 10)
    assert paid.unused(START + timedelta(seconds=3, microseconds=999_999)) == 7


@pytest.mark.parametrize(
    ("gross", "balance", "minimum", "total", "after", "applied", "carried"),
    [
        (1000, 0, 1, 1000, 0, 0, 0),
        (1000, 300, 1, 700, 0, -300, 0),
        (1000, 1500, 1, 0, 500, -1000, 0),
        (-400, 0, 1, 0, 400, 0, 400),
        (-400, 500, 1, 0, 900, 0, 400),
        (30, 0, 50, 0, -30, 0, -30),
        (1000, -30, 50, 1030, 0, 30, 0),
        (-400, -30, 50, 0, 370, 30, 370),
        (50, 0, 50, 50, 0, 0, 0),
    ],
)
def test_the_balance_takes_part(
    gross: int, balance: int, minimum: int, total: int, after: int, applied: int, carried: int
) -> None:
    line = Line(code=LineCode.NEW_REST, amount=gross)
    found = preview([line], "USD", balance=balance, minimum=minimum)
    told = {one.code: one.amount for one in found.lines}
    assert (found.total, found.balance_after) == (total, after)
    assert told.get(LineCode.CREDIT_APPLIED, 0) == applied
    assert told.get(LineCode.CARRIED, 0) == carried


def test_lines_that_do_not_sum_to_the_total_are_refused() -> None:
    with pytest.raises(ValidationError, match="do not sum"):
        Preview(currency="USD", lines=(charge_for_period(5, month()),), total=4, balance_after=0)
