"""The billing calendar: periods on an anchor that short months, leap days, time zones and daylight
saving do not wear down.

Every boundary is counted in whole months from the anchor, never from the boundary before it: a
subscription of 31 January renews on 28 or 29 February and on 31 March. Days a month does not have
become its last. Local times become instants by one rule:

- a local time that is skipped (a gap) is read with the offset before the gap, and so lies as long
  after the clocks were changed as it would have lain after the hour that is missing (RFC 5545);
- a local time that comes twice (a fold) is the first of the two, except the anchor's own where it
  was taken from an instant in the second.

Instants are UTC, in whole seconds. The time zone database changes from time to time: what was
promised to a payer is kept as an instant, and only periods to come are counted anew.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    StringConstraints,
    WithJsonSchema,
)

MAX_TRIAL_DAYS: Final = 730
_ZONE_NAME: Final = r"^(UTC|[A-Z][A-Za-z]+(/[A-Za-z][A-Za-z0-9_+-]*)+)$"


class Cycle(StrEnum):
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    YEARLY = "yearly"

    @property
    def months(self) -> int:
        return _MONTHS[self]


_MONTHS: Final = {Cycle.MONTHLY: 1, Cycle.QUARTERLY: 3, Cycle.YEARLY: 12}


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone of the IANA database") from None
    return name


ZoneName = Annotated[str, StringConstraints(pattern=_ZONE_NAME), AfterValidator(_known)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


_LOCAL_TIME: Final = {
    "type": "string",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$",
    "description": "A local time, without an offset",
}


class Anchor(_Frozen):
    """The local date and time on which periods begin; `fold` is 1 where the anchor itself is the
    second of two equal local times."""

    local: Annotated[NaiveDatetime, WithJsonSchema(_LOCAL_TIME)]
    zone: ZoneName
    fold: Literal[0, 1] = 0

    @classmethod
    def at(cls, instant: datetime, zone: str) -> "Anchor":
        """The anchor of what begins at that instant, whose fractions of a second are dropped."""
        local = instant.astimezone(ZoneInfo(zone)).replace(microsecond=0)
        return cls(local=local.replace(tzinfo=None, fold=0), zone=zone, fold=1 if local.fold else 0)

    def after_days(self, days: int) -> "Anchor":
        """The same local time that many calendar days later, as a trial moves it."""
        if days == 0:
            return self
        return Anchor(local=self.local + timedelta(days=days), zone=self.zone)

    def after_months(self, months: int) -> datetime:
        """The instant that many months from the anchor."""
        index = self.local.year * 12 + self.local.month - 1 + months
        year, month = index // 12, index % 12 + 1
        day = min(self.local.day, monthrange(year, month)[1])
        local = self.local.replace(year=year, month=month, day=day)
        return to_instant(local, self.zone, fold=self.fold if months == 0 else 0)


class Period(_Frozen):
    """`number` counts a subscription's periods, the end of one being the start of the next."""

    number: int
    start: AwareDatetime
    end: AwareDatetime

    @property
    def seconds(self) -> int:
        return seconds_between(self.start, self.end)

    def contains(self, instant: datetime) -> bool:
        return self.start <= instant < self.end


class Schedule(_Frozen):
    """Which instants bound the periods from `first_number` on: the first of them begins
    `offset_months` after the anchor, each lasts one cycle."""

    anchor: Anchor
    cycle: Cycle
    offset_months: Annotated[int, Field(ge=0)] = 0
    first_number: int = 1

    def starts_at(self, number: int) -> datetime:
        """Raises ValueError for a period before the first."""
        if number < self.first_number:
            raise ValueError(f"period {number} comes before {self.first_number}, the first")
        return self.anchor.after_months(self._months(number))

    def period(self, number: int) -> Period:
        """Raises ValueError for a period before the first."""
        start = self.starts_at(number)
        return Period(number=number, start=start, end=self.starts_at(number + 1))

    def period_at(self, instant: datetime) -> Period:
        """The period that contains the instant. Raises ValueError before the first."""
        local = instant.astimezone(ZoneInfo(self.anchor.zone))
        months = (local.year - self.anchor.local.year) * 12 + local.month - self.anchor.local.month
        number = self.first_number + (months - self.offset_months) // self.cycle.months
        # A whole cycle more or less: the day within the month, and zones that skip a day.
        number = max(number + 1, self.first_number)
        while instant < self.starts_at(number):
            number -= 1
        return self.period(number)

    def with_cycle(self, cycle: Cycle, number: int) -> "Schedule":
        """The schedule on which that period and those after it last another cycle. The anchor
        stays, so that its day is not lost to the short month the change falls in."""
        return Schedule(
            anchor=self.anchor,
            cycle=cycle,
            offset_months=self._months(number),
            first_number=number,
        )

    def resumed(self, interrupted: Period, paused_at: datetime, resumed_at: datetime) -> "Schedule":
        """The schedule after a pause that stopped `interrupted` and what was left of it: the next
        period begins as much later as the pause lasted, and the anchor moves with it. Where that is
        the same local day, the anchor keeps its date, and only its time of day moves."""
        lasted = resumed_at - paused_at
        number = interrupted.number + 1
        if not lasted:
            return self.with_cycle(self.cycle, number)
        start, zone = interrupted.end + lasted, self.anchor.zone
        anchor = Anchor.at(start, zone)
        if anchor.local.date() == to_local_date(interrupted.end, zone):
            local = datetime.combine(self.anchor.local.date(), anchor.local.time())
            kept = self.model_copy(update={"anchor": Anchor(local=local, zone=zone)})
            # Of a time that comes twice on the day, the second cannot be counted from another date.
            if kept.starts_at(number) == start:
                return kept.with_cycle(self.cycle, number)
        return Schedule(anchor=anchor, cycle=self.cycle, first_number=number)

    def _months(self, number: int) -> int:
        return self.offset_months + (number - self.first_number) * self.cycle.months


def trial(begins_at: datetime, zone: str, days: int, cycle: Cycle) -> tuple[Period, Schedule]:
    """A trial of that many calendar days (1 or more), as period 0, and the schedule of the paid
    periods, whose anchor is the trial's end."""
    begin = Anchor.at(begins_at, zone)
    anchor = begin.after_days(days)
    schedule = Schedule(anchor=anchor, cycle=cycle)
    return Period(number=0, start=begin.after_months(0), end=schedule.starts_at(1)), schedule


def to_instant(local: datetime, zone: str, *, fold: int = 0) -> datetime:
    """The instant of a naive local time, by this module's rule for gaps and folds."""
    return local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def to_local_date(instant: datetime, zone: str) -> date:
    return instant.astimezone(ZoneInfo(zone)).date()


def seconds_between(start: datetime, end: datetime) -> int:
    """Whole seconds from one to the other, rounded down."""
    return (end - start) // timedelta(seconds=1)
