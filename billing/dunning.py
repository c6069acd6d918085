"""Dunning: what is done about a period that is not paid.

One schedule, a setting, drives retries, reminders and access, all counted from the instant at which
the payment was due. `next_step` is a pure function of the schedule and of what has happened so far;
whoever carries a step out records that and asks again. What was declined decides what a retry is
worth (`billing.payment.DeclineClass`):

- hard: none, until the customer has another method (or a backup may be used);
- needs customer: none by us; the customer is asked, and pays with the gateway's own step;
- soft: spaced by its reason: lack of funds waits for a pay day, a failure on the way is repeated
  as soon as the networks allow, what the bank does not explain is repeated rarely.

A method gets no more tries than the card networks allow within their window, and none while the
outcome of another is unknown: each try is a new attempt with a key of its own.
"""

from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from billing.calendar import to_instant, to_local_date
from billing.payment import DeclineClass
from billing.subscription import Access

Hours = Annotated[int, Field(ge=0, le=365 * 24)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class DunningSchedule(_Frozen):
    """The setting. Hours count from when the payment was due, and rise.

    `min_gap_hours` and `network_tries` in `network_days` are what card networks allow per method.
    A retry for lack of funds moves to the first of `pay_days` (of the month, local time at
    `pay_hour`) that comes no later than `pay_day_reach_days` after its own time. `vague_tries` are
    all that an unexplained decline is worth. A backup method is tried after `tries_before_backup`.
    The codes are the gateways' own words; those in neither list are unexplained.
    """

    retry_after_hours: tuple[Hours, ...] = (24, 72, 120, 192, 288, 408)
    remind_after_hours: tuple[Hours, ...] = (0, 72, 192, 408)
    grace_after_hours: Hours = 1
    restricted_after_hours: Hours = 168
    end_after_hours: Annotated[int, Field(ge=1, le=365 * 24)] = 504
    min_gap_hours: Annotated[int, Field(ge=1)] = 24
    vague_gap_hours: Annotated[int, Field(ge=1)] = 72
    vague_tries: Annotated[int, Field(ge=1)] = 4
    network_tries: Annotated[int, Field(ge=1, le=15)] = 10
    network_days: Annotated[int, Field(ge=1)] = 30
    pay_days: tuple[Annotated[int, Field(ge=1, le=28)], ...] = (1, 10, 15, 25)
    pay_hour: Annotated[int, Field(ge=0, le=23)] = 10
    pay_day_reach_days: Annotated[int, Field(ge=0, le=31)] = 3
    tries_before_backup: Annotated[int, Field(ge=1)] = 2
    funds_codes: tuple[str, ...] = (
        "insufficient_funds",
        "card_velocity_exceeded",
        "withdrawal_count_limit_exceeded",
        "BUYER_BALANCE_NOT_ENOUGH",
        "BUYER_BANKCARD_BALANCE_NOT_ENOUGH",
        "NOT_ENOUGH",
        "NOTENOUGH",
    )
    transient_codes: tuple[str, ...] = (
        "processing_error",
        "issuer_not_available",
        "try_again_later",
        "reenter_transaction",
        "outside_window",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in ("retry_after_hours", "remind_after_hours"):
            hours = getattr(self, name)
            if list(hours) != sorted(set(hours)):
                raise ValueError(f"{name} does not rise")
        if not self.grace_after_hours <= self.restricted_after_hours <= self.end_after_hours:
            raise ValueError("access goes from grace to restricted to its end")
        return self


class SoftReason(StrEnum):
    FUNDS = "funds"
    TRANSIENT = "transient"
    VAGUE = "vague"


class Try(_Frozen):
    """One charge that was tried. `decline` is None while its outcome is unknown."""

    at: AwareDatetime
    method_id: str
    decline: DeclineClass | None = None
    decline_code: str | None = None


class Debt(_Frozen):
    """A period that is not paid, and what was done about it.

    `ends_at` is the period's own end, at which dunning is over whatever the schedule says.
    `method_since` is when the customer last set `method_id`; tries before it count for nothing but
    the card networks' limit, and `None` for the method means that the customer is asked each time.
    `asked_at` is when the customer was last asked to act, `access` what was last granted.
    `not_before` is when its gateway lets the next charge be made, where that keeps windows.
    """

    due_at: AwareDatetime
    ends_at: AwareDatetime
    zone: str
    method_id: str | None
    method_since: AwareDatetime | None = None
    backup_method_id: str | None = None
    tries: tuple[Try, ...] = ()
    reminded: Annotated[int, Field(ge=0)] = 0
    asked_at: AwareDatetime | None = None
    access: Access = Access.ACTIVE
    not_before: AwareDatetime | None = None


class DunningAction(StrEnum):
    """SETTLE: first learn the outcome of the try under way. ASK: let the customer pay, or give
    another method. ACCESS: grant what the step says from now on. END: it is not paid any more."""

    SETTLE = "settle"
    RETRY = "retry"
    REMIND = "remind"
    ASK = "ask"
    ACCESS = "access"
    END = "end"


class Step(_Frozen):
    """What is to be done at `at`, or at once where that is past."""

    kind: DunningAction
    at: AwareDatetime
    method_id: str | None = None
    access: Access | None = None


_PRECEDENCE = (DunningAction.RETRY, DunningAction.ASK, DunningAction.ACCESS, DunningAction.REMIND)


def next_step(schedule: DunningSchedule, debt: Debt) -> Step:
    """The next thing to do. Of several at one instant a retry comes first, since it may make the
    others needless."""
    if debt.tries and debt.tries[-1].decline is None:
        return Step(kind=DunningAction.SETTLE, at=debt.tries[-1].at)
    end = _end(schedule, debt)
    steps = (
        _allowed(debt, _retry(schedule, debt)),
        _ask(debt),
        _access(schedule, debt),
        _remind(schedule, debt),
    )
    due = [step for step in steps if step is not None and step.at < end]
    if not due:
        return Step(kind=DunningAction.END, at=end, access=Access.ENDED)
    return min(due, key=lambda step: (step.at, _PRECEDENCE.index(step.kind)))


def access_at(schedule: DunningSchedule, debt: Debt, at: datetime) -> Access:
    """What an unpaid period grants at an instant."""
    if at >= _end(schedule, debt):
        return Access.ENDED
    if at >= debt.due_at + timedelta(hours=schedule.restricted_after_hours):
        return Access.RESTRICTED
    if at >= debt.due_at + timedelta(hours=schedule.grace_after_hours):
        return Access.GRACE
    return Access.ACTIVE


def timetable(schedule: DunningSchedule, debt: Debt, decline_code: str) -> tuple[Step, ...]:
    """Every step until the end if each try from now on is softly declined with that code: what a
    preview shows."""
    steps = []
    while True:
        step = next_step(schedule, debt)
        if step.kind is DunningAction.SETTLE:
            debt = declined(debt, DeclineClass.SOFT, decline_code)
            continue
        steps.append(step)
        if step.kind is DunningAction.END:
            return tuple(steps)
        debt = carried_out(schedule, debt, step, step.at)


def carried_out(schedule: DunningSchedule, debt: Debt, step: Step, at: datetime) -> Debt:
    """The debt once a step is done, a retry's outcome being unknown still. One reminder stands for
    all that were due by then."""
    if step.kind is DunningAction.RETRY and step.method_id is not None:
        tried = Try(at=at, method_id=step.method_id)
        return debt.model_copy(update={"tries": (*debt.tries, tried), "not_before": None})
    if step.kind is DunningAction.REMIND:
        passed = sum(
            debt.due_at + timedelta(hours=hours) <= at for hours in schedule.remind_after_hours
        )
        return debt.model_copy(update={"reminded": max(passed, debt.reminded + 1)})
    if step.kind is DunningAction.ASK:
        return debt.model_copy(update={"asked_at": at})
    return debt.model_copy(update={"access": step.access}) if step.access else debt


def declined(debt: Debt, decline: DeclineClass, decline_code: str | None) -> Debt:
    """The debt once the outcome of its last try is known."""
    last = debt.tries[-1].model_copy(update={"decline": decline, "decline_code": decline_code})
    return debt.model_copy(update={"tries": (*debt.tries[:-1], last)})


def postponed(
    schedule: DunningSchedule, debt: Debt, method_id: str, at: datetime, now: datetime
) -> Debt:
    """The debt once the gateway has told when that method may be charged again. Where no try of it
    was to come, somebody has asked for this one, and it counts as the method's first."""
    later = debt.model_copy(update={"not_before": at})
    retry = _retry(schedule, debt)
    if retry is not None and retry.method_id == method_id:
        return later
    return later.model_copy(update={"method_id": method_id, "method_since": now})


def allowed_from(schedule: DunningSchedule, debt: Debt, method_id: str, at: datetime) -> datetime:
    """The time, or the first after it at which the card networks' window holds fewer tries of the
    method than they allow: whoever has set it, and however often."""
    tries = [one for one in debt.tries if one.method_id == method_id]
    if len(tries) < schedule.network_tries:
        return at
    oldest = tries[-schedule.network_tries].at
    return max(at, oldest + timedelta(days=schedule.network_days))


def soft_reason(schedule: DunningSchedule, decline_code: str | None) -> SoftReason:
    if decline_code in schedule.funds_codes:
        return SoftReason.FUNDS
    if decline_code in schedule.transient_codes:
        return SoftReason.TRANSIENT
    return SoftReason.VAGUE


def _end(schedule: DunningSchedule, debt: Debt) -> datetime:
    return min(debt.due_at + timedelta(hours=schedule.end_after_hours), debt.ends_at)


def _tries_of(debt: Debt, method_id: str) -> list[Try]:
    since = debt.method_since if method_id == debt.method_id else None
    return [
        one
        for one in debt.tries
        if one.method_id == method_id and (since is None or one.at >= since)
    ]


def _retry(schedule: DunningSchedule, debt: Debt) -> Step | None:
    if debt.method_id is None:
        return None
    tries = _tries_of(debt, debt.method_id)
    if not tries:
        at = max(debt.due_at, debt.method_since or debt.due_at)
        at = allowed_from(schedule, debt, debt.method_id, at)
        return Step(kind=DunningAction.RETRY, at=at, method_id=debt.method_id)
    last = tries[-1]
    is_soft = last.decline is DeclineClass.SOFT
    backup = debt.backup_method_id
    is_enough = not is_soft or len(tries) >= schedule.tries_before_backup
    if backup is not None and is_enough and not _tries_of(debt, backup):
        return Step(kind=DunningAction.RETRY, at=last.at, method_id=backup)
    if not is_soft:
        return None
    next_at = _after_soft(schedule, debt, tries)
    if next_at is None:
        return None
    return Step(kind=DunningAction.RETRY, at=next_at, method_id=debt.method_id)


def _allowed(debt: Debt, retry: Step | None) -> Step | None:
    if retry is None or debt.not_before is None or retry.at >= debt.not_before:
        return retry
    return retry.model_copy(update={"at": debt.not_before})


def _after_soft(schedule: DunningSchedule, debt: Debt, tries: list[Try]) -> datetime | None:
    """The next try of a method after a soft decline; None where the schedule has no more."""
    last = tries[-1]
    reason = soft_reason(schedule, last.decline_code)
    if reason is SoftReason.VAGUE and len(tries) >= schedule.vague_tries:
        return None
    gap = schedule.vague_gap_hours if reason is SoftReason.VAGUE else schedule.min_gap_hours
    earliest = last.at + timedelta(hours=max(gap, schedule.min_gap_hours))
    planned = (debt.due_at + timedelta(hours=hours) for hours in schedule.retry_after_hours)
    at = next((one for one in planned if one > last.at), None)
    if at is None:
        return None
    if reason is SoftReason.TRANSIENT:
        at = earliest
    at = max(at, earliest)
    if reason is SoftReason.FUNDS:
        at = _pay_day(schedule, debt.zone, earliest, at)
    return allowed_from(schedule, debt, last.method_id, at)


def _pay_day(
    schedule: DunningSchedule, zone: str, earliest: datetime, planned: datetime
) -> datetime:
    """The first pay day that is early enough, or else the planned time."""
    latest = planned + timedelta(days=schedule.pay_day_reach_days)
    day = to_local_date(earliest, zone)
    while day <= to_local_date(latest, zone):
        at = _at_hour(day, schedule.pay_hour, zone)
        if day.day in schedule.pay_days and earliest <= at <= latest:
            return at
        day += timedelta(days=1)
    return planned


def _at_hour(day: date, hour: int, zone: str) -> datetime:
    return to_instant(datetime.combine(day, time(hour)), zone)


def _ask(debt: Debt) -> Step | None:
    """Once for each decline that needs the customer, and once where there is no method to try."""
    if debt.method_id is None:
        return None if debt.asked_at else Step(kind=DunningAction.ASK, at=debt.due_at)
    tries = _tries_of(debt, debt.method_id)
    if not tries or tries[-1].decline is DeclineClass.SOFT:
        return None
    last = tries[-1].at
    if debt.asked_at is not None and debt.asked_at >= last:
        return None
    return Step(kind=DunningAction.ASK, at=last)


def _access(schedule: DunningSchedule, debt: Debt) -> Step | None:
    changes = (
        (Access.ACTIVE, Access.GRACE, schedule.grace_after_hours),
        (Access.GRACE, Access.RESTRICTED, schedule.restricted_after_hours),
    )
    for before, after, hours in changes:
        if debt.access is before:
            at = debt.due_at + timedelta(hours=hours)
            return Step(kind=DunningAction.ACCESS, at=at, access=after)
    return None


def _remind(schedule: DunningSchedule, debt: Debt) -> Step | None:
    if debt.reminded >= len(schedule.remind_after_hours):
        return None
    hours = schedule.remind_after_hours[debt.reminded]
    return Step(kind=DunningAction.REMIND, at=debt.due_at + timedelta(hours=hours))
