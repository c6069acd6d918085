"""Totals for operators, from daily totals that triggers and `stats_fold` keep equal to the record.

A day is one of UTC. Money counts on the day it moved: takings and unapplied money by the
receipt's `paid_at`, refunds by the refund's `refunded_at`. Payments that have ended count on the
day they were made, `created_at`, whenever they ended.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Date,
    FromClause,
    Integer,
    RowMapping,
    Select,
    Table,
    Text,
    and_,
    column,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from billing.payment import GatewayName, PaymentMethod
from storage.stats_tables import stats_declines, stats_money, stats_payments

FOLDED_AT_ONCE: Final = 10_000
_UNIT_MILLISECONDS: Final = 125
_STEPS: Final = 8
_SPANS: Final = (64, 8, 1)
_MOST_STEPS: Final = 1000
_Columns = ReadOnlyColumnCollection[str, ColumnElement[Any]]
_WAYS: Final = [
    (gateway.value, method.value) for gateway in GatewayName for method in PaymentMethod
]


@dataclass(frozen=True)
class Sum:
    """So many movements, together so much in minor units."""

    count: int
    amount: int

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.count + other.count, self.amount + other.amount)


@dataclass(frozen=True)
class Money:
    """Receipts that paid for their payment; refunds that have succeeded, of whatever receipt;
    receipts that paid for nothing. What stayed is taken and unapplied without refunded."""

    currency: str
    taken: Sum
    refunded: Sum
    unapplied: Sum


@dataclass(frozen=True)
class DayMoney(Money):
    day: date


@dataclass(frozen=True)
class Decline:
    """How many payments ended unpaid with this as the reason of their last failed try: our code
    and the gateway's own word, which is null where it gave none; each at most 100 characters."""

    code: str
    decline_code: str | None
    count: int


@dataclass(frozen=True)
class TimeToPay:
    """Milliseconds from order to payment, nearest rank, over payments that succeeded.

    Each time is first rounded up on a scale of steps of 125 ms to two seconds and then of eight
    steps to each doubling: by an eighth, or 125 ms, at most.
    """

    median_ms: int
    p95_ms: int


@dataclass(frozen=True)
class Outcomes:
    """Payments by the gateway and method they ended with: `ended` in any way, canceled and expired
    included, of which `succeeded`."""

    gateway: GatewayName
    method: PaymentMethod
    ended: int
    succeeded: int
    declines: list[Decline]
    time_to_pay: TimeToPay | None


@dataclass(frozen=True)
class Totals:
    """By day and currency, by currency, by gateway and method; only where there was anything."""

    days: list[DayMoney]
    currencies: list[Money]
    outcomes: list[Outcomes]


@dataclass(frozen=True)
class _Window:
    application: str
    first: date
    last: date
    currency: str | None
    gateway: GatewayName | None

    def of(self, table: Table) -> ColumnElement[bool]:
        conditions = [table.c.application == self.application]
        if self.currency is not None:
            conditions.append(table.c.currency == self.currency)
        if self.gateway is not None:
            conditions.append(table.c.gateway == self.gateway.value)
        return and_(*conditions)

    def pieces(self, table: Table) -> tuple[FromClause, _Columns]:
        """The table's rows of the fewest spans that make up the window, and their columns.

        Each span is looked up by the key, whatever the planner thinks of reading the whole table:
        it takes the spans of a window for more than they are, and the table only grows.
        """
        spans = list(_spans(self.first.toordinal() - 1, self.last.toordinal()))
        each = (
            func.unnest(
                literal([days for days, _ in spans], ARRAY(Integer)),
                literal([date.fromordinal(start + 1) for _, start in spans], ARRAY(Date)),
            )
            .table_valued("days", "day", name="span")
            .render_derived()
        )
        piece = (
            select(table)
            .where(self.of(table), table.c.days == each.c.days, table.c.day == each.c.day)
            .offset(0)
            .lateral("piece")
        )
        return each.join(piece, true()), piece.c


def _spans(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Length and first day of each, in days since the first of the year 1; `end` is excluded."""
    while start < end:
        days = next(days for days in _SPANS if start % days == 0 and start + days <= end)
        yield days, start
        start += days


class Stats:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fold(self) -> bool:
        """Bring the totals nearer to the record; whether every change committed before is in them.

        False means: commit, and again. What `read` says in the same transaction belongs together.
        """
        folded = await self._connection.scalar(select(func.stats_fold(FOLDED_AT_ONCE)))
        return int(folded or 0) < FOLDED_AT_ONCE

    async def read(
        self,
        application: str,
        first: date,
        last: date,
        *,
        currency: str | None = None,
        gateway: GatewayName | None = None,
    ) -> Totals:
        """Both days included. What has changed since the last `fold` is not in it."""
        window = _Window(application, first, last, currency, gateway)
        money = [_day_money(row) for row in await self._rows(_money(window))]
        declines: dict[tuple[str, str], list[Decline]] = {}
        for row in await self._rows(_declines(window)):
            declines.setdefault((row["gateway"], row["method"]), []).append(
                Decline(row["code"], row["decline_code"] or None, row["count"])
            )
        times = {
            _WAYS[row["way"] - 1]: TimeToPay(
                _milliseconds(row["median"]), _milliseconds(row["p95"])
            )
            for row in await self._rows(_times(window))
        }
        outcomes = await self._rows(_outcomes(window))
        return Totals(
            days=money,
            currencies=_by_currency(money),
            outcomes=[_outcome(row, declines, times) for row in outcomes],
        )

    async def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        rows: Sequence[RowMapping] = (await self._connection.execute(query)).mappings().all()
        return rows


def _money(window: _Window) -> Select[Any]:
    kinds = ("taken", "refunded", "unapplied")
    counts = [func.sum(stats_money.c[f"{kind}_count"]) for kind in kinds]
    amounts = [func.sum(stats_money.c[f"{kind}_minor"]) for kind in kinds]
    return (
        select(
            stats_money.c.day,
            stats_money.c.currency,
            *(each.label(f"{kind}_count") for kind, each in zip(kinds, counts, strict=True)),
            *(each.label(f"{kind}_minor") for kind, each in zip(kinds, amounts, strict=True)),
        )
        .where(window.of(stats_money), stats_money.c.day.between(window.first, window.last))
        .group_by(stats_money.c.day, stats_money.c.currency)
        # A refund that succeeded and failed later leaves a row of nothing.
        .having(sum(counts[1:], counts[0]) > 0)
        .order_by(stats_money.c.day, stats_money.c.currency)
    )


def _declines(window: _Window) -> Select[Any]:
    pieces, of = window.pieces(stats_declines)
    count = func.sum(of["count"])
    return (
        select(of.gateway, of.method, of.code, of.decline_code, count.label("count"))
        .select_from(pieces)
        .group_by(of.gateway, of.method, of.code, of.decline_code)
        .having(count > 0)
        .order_by(count.desc(), of.code, of.decline_code)
    )


def _outcomes(window: _Window) -> Select[Any]:
    pieces, of = window.pieces(stats_payments)
    ended = func.sum(of.ended)
    return (
        select(
            of.gateway,
            of.method,
            ended.label("ended"),
            func.sum(of.succeeded).label("succeeded"),
        )
        .select_from(pieces)
        .group_by(of.gateway, of.method)
        .having(ended > 0)
        .order_by(of.gateway, of.method)
    )


def _times(window: _Window) -> Select[Any]:
    """The steps within which half, and 95 of 100, of the times lie; by place in `_WAYS`."""
    pieces, of = window.pieces(stats_payments)
    # Numbers, set apart before the steps are: thousands of rows are not to be sorted by two words.
    rows = (
        select(
            func.array_position(
                literal(["/".join(way) for way in _WAYS], ARRAY(Text)), of.gateway + "/" + of.method
            ).label("way"),
            of.took,
        )
        .select_from(pieces)
        .cte("rows")
        .prefix_with("MATERIALIZED")
    )
    each = (
        func.unnest(rows.c.took)
        .table_valued(column("count", Integer), with_ordinality="step", name="each")
        .render_derived()
        .lateral()
    )
    key = rows.c.way * _MOST_STEPS + each.c.step
    by_step = (
        select(key.label("key"), func.sum(each.c["count"]).label("count"))
        .select_from(rows.join(each, true()))
        .where(each.c["count"] != 0)
        .group_by(key)
        .subquery("by_step")
    )
    count, way = by_step.c["count"], by_step.c.key // _MOST_STEPS
    ranked = select(
        way.label("way"),
        (by_step.c.key % _MOST_STEPS).label("step"),
        func.sum(count).over(partition_by=way, order_by=by_step.c.key).label("within"),
        func.sum(count).over(partition_by=way).label("all"),
    ).subquery("ranked")
    is_half = ranked.c.within * 2 >= ranked.c.all
    is_p95 = ranked.c.within * 100 >= ranked.c.all * 95
    return (
        select(
            ranked.c.way,
            func.min(ranked.c.step).filter(is_half).label("median"),
            func.min(ranked.c.step).filter(is_p95).label("p95"),
        )
        .where(ranked.c.all > 0)
        .group_by(ranked.c.way)
    )


def _milliseconds(step: int) -> int:
    """The upper end of a step of `stats_step`'s scale."""
    doublings = max(0, (step - 1) // _STEPS - 1)
    return _UNIT_MILLISECONDS * (step - _STEPS * doublings) << doublings


def _day_money(row: RowMapping) -> DayMoney:
    def total(kind: str) -> Sum:
        return Sum(int(row[f"{kind}_count"]), int(row[f"{kind}_minor"]))

    return DayMoney(
        day=row["day"],
        currency=row["currency"],
        taken=total("taken"),
        refunded=total("refunded"),
        unapplied=total("unapplied"),
    )


def _by_currency(days: Iterable[DayMoney]) -> list[Money]:
    totals: dict[str, Money] = {}
    for one in days:
        known = totals.get(one.currency)
        totals[one.currency] = Money(
            one.currency,
            one.taken + known.taken if known else one.taken,
            one.refunded + known.refunded if known else one.refunded,
            one.unapplied + known.unapplied if known else one.unapplied,
        )
    return [totals[currency] for currency in sorted(totals)]


def _outcome(
    row: RowMapping,
    declines: Mapping[tuple[str, str], list[Decline]],
    times: Mapping[tuple[str, str], TimeToPay],
) -> Outcomes:
    key = row["gateway"], row["method"]
    return Outcomes(
        gateway=GatewayName(row["gateway"]),
        method=PaymentMethod(row["method"]),
        ended=int(row["ended"]),
        succeeded=int(row["succeeded"]),
        declines=declines.get(key, []),
        time_to_pay=times.get(key),
    )
