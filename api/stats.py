"""Totals for operators."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field

from api.authentication import Reader
from api.context import context
from api.openapi import problems
from api.queries import DistinctQuery, StrictQuery
from billing.errors import InvalidRequest
from billing.money import CurrencyCode
from billing.payment import GatewayName, PaymentMethod
from storage.database import Database
from storage.stats import DayMoney, Money, Outcomes, Sum, Totals

router = APIRouter(tags=["stats"])

LONGEST_DAYS: Final = 366
_USUAL_DAYS: Final = 30
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _date(value: object) -> object:
    if isinstance(value, str) and not _DATE.fullmatch(value):
        raise ValueError("a date such as 2026-01-31 is expected")
    return value


Day = Annotated[date, BeforeValidator(_date)]


class StatsQuery(StrictQuery):
    first: Day | None = Field(
        default=None,
        alias="from",
        description="The first day, of UTC; if none, 30 days end with the last",
    )
    last: Day | None = Field(
        default=None,
        alias="to",
        description=f"The last day, of UTC, itself included, the {LONGEST_DAYS}th at most; today"
        " if none",
    )
    currency: CurrencyCode | None = None
    gateway: GatewayName | None = None


class Movements(BaseModel):
    """`amount` is in minor units."""

    count: int
    amount: int


class CurrencyTotals(BaseModel):
    """`taken`: receipts that paid for their payment, by when the gateway took the money (its
    `paid_at`). `refunded`: refunds that have succeeded, by when they did (`refunded_at`), of taken
    and of unapplied money. `unapplied`: receipts that paid for nothing, such as a second one for
    the same payment, by `paid_at`."""

    currency: str
    taken: Movements
    refunded: Movements
    unapplied: Movements


class DayTotals(CurrencyTotals):
    """One currency on one day of UTC."""

    day: date


class DeclineCount(BaseModel):
    """Payments that ended unpaid, by the reason of their last failed try: `failure.code` and
    `failure.decline_code`, each at most 100 characters."""

    code: str
    decline_code: str | None
    count: int


class PayTimes(BaseModel):
    """Milliseconds from `created_at` to `paid_at` of payments that succeeded, by nearest rank.
    Each is rounded up on a scale of steps of 125 ms to two seconds and then of eight steps to each
    doubling: by an eighth, or 125 ms, at most."""

    median_ms: int
    p95_ms: int


class MethodTotals(BaseModel):
    """Payments made in these days (`created_at`) that have ended in whatever way, canceled and
    expired included, by the gateway and method they had then. `success_rate` is `succeeded` of
    `ended`, rounded to four decimals; `time_to_pay` is null where none succeeded."""

    gateway: GatewayName
    method: PaymentMethod
    ended: int
    succeeded: int
    success_rate: str = Field(pattern=r"^[01]\.[0-9]{4}$")
    declines: list[DeclineCount]
    time_to_pay: PayTimes | None


class StatsAnswer(BaseModel):
    """Days oldest first. What there was nothing of is not listed."""

    first: date = Field(serialization_alias="from")
    last: date = Field(serialization_alias="to")
    days: list[DayTotals]
    totals: list[CurrencyTotals]
    methods: list[MethodTotals]


@router.get(
    "/stats",
    response_model=StatsAnswer,
    operation_id="read_stats",
    responses=problems(401, 403, 422, 500, 503),
)
async def stats(
    request: Request, caller: Reader, _: DistinctQuery, wanted: Annotated[StatsQuery, Query()]
) -> Response:
    """Takings, refunds, success rates, declines and times to pay of the key's own application.

    Everything that was recorded before the request is in it."""
    first, last = _window(wanted, datetime.now(UTC).date())
    totals = await _read(context(request).database, caller.application, first, last, wanted)
    answer = StatsAnswer(
        first=first,
        last=last,
        days=[_day(one) for one in totals.days],
        totals=[_currency(one) for one in totals.currencies],
        methods=[_method(one) for one in totals.outcomes],
    )
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


def _window(wanted: StatsQuery, today: date) -> tuple[date, date]:
    """Raises InvalidRequest where it ends before it begins, or is too long."""
    last = wanted.last or today
    usual = date.fromordinal(max(1, last.toordinal() - _USUAL_DAYS + 1))
    first = wanted.first or usual
    if first > last:
        raise InvalidRequest(f"the first day, {first}, is after the last, {last}", param="from")
    if (last - first).days >= LONGEST_DAYS:
        raise InvalidRequest(
            f"from {first} to {last} are more than {LONGEST_DAYS} days", param="from"
        )
    return first, last


async def _read(
    database: Database, application: str, first: date, last: date, wanted: StatsQuery
) -> Totals:
    while True:
        async with database.begin() as work:
            if await work.stats.fold():
                return await work.stats.read(
                    application, first, last, currency=wanted.currency, gateway=wanted.gateway
                )


def _movements(total: Sum) -> Movements:
    return Movements(count=total.count, amount=total.amount)


def _currency(money: Money) -> CurrencyTotals:
    return CurrencyTotals(
        currency=money.currency,
        taken=_movements(money.taken),
        refunded=_movements(money.refunded),
        unapplied=_movements(money.unapplied),
    )


def _day(money: DayMoney) -> DayTotals:
    return DayTotals(day=money.day, **dict(_currency(money)))


def _method(outcomes: Outcomes) -> MethodTotals:
    times = outcomes.time_to_pay
    return MethodTotals(
        gateway=outcomes.gateway,
        method=outcomes.method,
        ended=outcomes.ended,
        succeeded=outcomes.succeeded,
        success_rate=_rate(outcomes.succeeded, outcomes.ended),
        declines=[
            DeclineCount(code=one.code, decline_code=one.decline_code, count=one.count)
            for one in outcomes.declines
        ],
        time_to_pay=(
            None if times is None else PayTimes(median_ms=times.median_ms, p95_ms=times.p95_ms)
        ),
    )


def _rate(succeeded: int, ended: int) -> str:
    """Rounded half up, in integers."""
    parts = (20_000 * succeeded + ended) // (2 * ended)
    return f"{parts // 10_000}.{parts % 10_000:04d}"
