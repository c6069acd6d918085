"""Proration: what the unused rest of a period is worth, to the minor unit.

The basis is seconds: an amount paid for a stretch of time is divided in the ratio of the seconds
before and after an instant. Every division is by largest remainder over exact integers, so that the
parts sum to the whole in currencies of 0, 2 and 3 decimals alike, and what is credited and what is
kept are together what was paid. Fractions of a second count as not yet used.

A preview and a charge are one model: whoever charges takes `Preview.total`, nothing else.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from billing.calendar import Period, seconds_between
from billing.money import CurrencyCode


class LineCode(StrEnum):
    """What a line is for. CREDIT_APPLIED takes from the customer's balance, or adds what was owed
    there; CARRIED puts onto it what this charge does not settle."""

    PERIOD = "period"
    TRIAL = "trial"
    UNUSED_REST = "unused_rest"
    NEW_REST = "new_rest"
    CREDIT_APPLIED = "credit_applied"
    CARRIED = "carried"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Line(_Frozen):
    """`amount` is in minor units, negative for what the customer gets."""

    code: LineCode
    amount: int
    period_start: AwareDatetime | None = None
    period_end: AwareDatetime | None = None


class Preview(_Frozen):
    """What a step costs: `total` (minor units) is the sum of the lines and exactly what a charge
    takes. `balance_after` is the customer's credit thereafter, negative for what is owed."""

    currency: CurrencyCode
    lines: tuple[Line, ...]
    total: Annotated[int, Field(ge=0)]
    balance_after: int

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(line.amount for line in self.lines) != self.total:
            raise ValueError("the lines do not sum to the total")
        return self


class PaidStretch(_Frozen):
    """What was charged (minor units) for the time from `start` to `end`. `refunded_before` is what
    had gone back of the period's payments until then, and is no part of it. `since_period` is the
    number of the earlier period whose payments are in it too, as the credit of a change."""

    amount: Annotated[int, Field(ge=0)]
    start: AwareDatetime
    end: AwareDatetime
    refunded_before: Annotated[int, Field(ge=0)] = 0
    since_period: int | None = None

    @classmethod
    def of(cls, period: Period, amount: int) -> "PaidStretch":
        return cls(amount=amount, start=period.start, end=period.end)

    def less(self, refunded: int) -> "PaidStretch":
        """What of it still stands once so much of its payments has gone back in all."""
        gone = max(refunded - self.refunded_before, 0)
        return self.model_copy(update={"amount": max(self.amount - gone, 0)})

    def unused(self, instant: datetime) -> int:
        """The part of the amount that belongs to the time from the instant on."""
        return divide_at(self.amount, self.start, instant, self.end)[1]


def allocate(amount: int, weights: Sequence[int]) -> tuple[int, ...]:
    """The amount in parts as the weights are to each other, by largest remainder; of equal
    remainders the first is served first. Raises ValueError for weights that cannot divide."""
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError("weights are none negative, and not all nothing")
    sign, size = (-1, -amount) if amount < 0 else (1, amount)
    parts = [size * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda one: -(size * weights[one] % whole))
    for one in by_remainder[: size - sum(parts)]:
        parts[one] += 1
    return tuple(sign * part for part in parts)


def divide_at(amount: int, start: datetime, instant: datetime, end: datetime) -> tuple[int, int]:
    """The amount for the time before and after the instant, which counts as the start where it
    is earlier, and as the end where it is later."""
    total = seconds_between(start, end)
    used = min(max(seconds_between(start, instant), 0), total)
    before, after = allocate(amount, (used, total - used))
    return before, after


def credit_for_rest(paid: PaidStretch, instant: datetime) -> Line:
    """What comes back of a stretch that is given up at the instant."""
    return Line(
        code=LineCode.UNUSED_REST,
        amount=-paid.unused(instant),
        period_start=max(instant, paid.start),
        period_end=paid.end,
    )


def charge_for_rest(price: int, period: Period, instant: datetime) -> Line:
    """What the rest of a period costs at `price` (minor units) for all of it."""
    return Line(
        code=LineCode.NEW_REST,
        amount=divide_at(price, period.start, instant, period.end)[1],
        period_start=max(instant, period.start),
        period_end=period.end,
    )


def charge_for_period(price: int, period: Period) -> Line:
    return Line(
        code=LineCode.PERIOD, amount=price, period_start=period.start, period_end=period.end
    )


def preview(lines: Iterable[Line], currency: str, *, balance: int = 0, minimum: int = 1) -> Preview:
    """The lines with what the balance does to them.

    A credit (`balance` above zero) is used as far as it goes, a debt is added. What would be given
    back goes onto the balance, and so does what is below `minimum`, the least a gateway charges:
    it is owed with the next charge.
    """
    told = [line for line in lines if line.amount]
    gross = sum(line.amount for line in told)
    due = gross - balance
    total = due if due >= minimum else 0
    after = total - due
    if gross > 0 or balance < 0:
        applied, carried = _applied_and_carried(gross, balance, total)
    else:
        applied, carried = 0, -gross
    told += _unless_nothing(LineCode.CREDIT_APPLIED, applied)
    told += _unless_nothing(LineCode.CARRIED, carried)
    return Preview(currency=currency, lines=tuple(told), total=total, balance_after=after)


def _applied_and_carried(gross: int, balance: int, total: int) -> tuple[int, int]:
    """A credit is shown as far as it is used, a debt as a whole."""
    applied = -min(balance, gross) if balance > 0 else -balance
    return applied, total - gross - applied


def _unless_nothing(code: LineCode, amount: int) -> list[Line]:
    return [Line(code=code, amount=amount)] if amount else []
