"""The daily totals by counting: what is read is compared with the record, row by row."""

import random
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from billing.payment import GatewayName
from storage.database import Database
from storage.stats import TimeToPay, Totals
from tests.fixtures.database import DatabaseUrls

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENDINGS = ("succeeded", "failed", "canceled", "expired")
SCALE = [125 * step for step in range(1, 9)]
while SCALE[-1] < 400 * 86_400_000:
    SCALE += [SCALE[-1] + SCALE[-1] // 8 * step for step in range(1, 9)]


async def totals(
    database: Database, application: str, first: date = DAY, last: date = DAY, **filters: Any
) -> Totals:
    while True:
        async with database.begin() as work:
            if await work.stats.fold():
                return await work.stats.read(application, first, last, **filters)


def plain(
    record: dict[str, list[dict[str, Any]]],
    application: str,
    first: date,
    last: date,
    currency: str | None,
    gateway: str | None,
) -> tuple[Any, Any, Any]:
    """The three lists of `Totals` from rows of the record, by counting them one by one."""

    def chosen(rows: Iterable[dict[str, Any]], instant: str) -> Iterable[tuple[date, Any]]:
        for row in rows:
            if (
                row["application"] == application
                and currency in (None, row["currency"])
                and gateway in (None, row["gateway"])
                and row[instant] is not None
                and first <= (day := row[instant].astimezone(UTC).date()) <= last
            ):
                yield day, row

    days: dict[tuple[date, str], list[int]] = defaultdict(lambda: [0] * 6)
    currencies: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
    for instant, rows in (("paid_at", record["receipts"]), ("refunded_at", record["refunds"])):
        for day, row in chosen(rows, instant):
            place = 2 if instant == "refunded_at" else 0 if row["kept"] else 4
            for sums in (days[day, row["currency"]], currencies[row["currency"]]):
                sums[place] += 1
                sums[place + 1] += row["amount_minor"]
    ends: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, [], Counter()])
    for _, row in chosen(record["payments"], "created_at"):
        if row["status"] not in ENDINGS:
            continue
        end = ends[row["gateway"], row["method"]]
        end[0] += 1
        if row["status"] == "succeeded":
            took = (row["paid_at"] - row["created_at"]) // timedelta(milliseconds=1)
            end[1].append(SCALE[bisect_left(SCALE, max(took, 1))])
        elif row["failure"]:
            end[2][row["failure"]["code"], row["failure"].get("decline_code")] += 1
    return days, currencies, ends


def rank(values: list[int], of_hundred: int) -> int:
    return sorted(values)[-(-len(values) * of_hundred // 100) - 1]


def check(found: Totals, expected: tuple[Any, Any, Any]) -> None:
    def sums(one: Any) -> list[int]:
        return [
            each
            for kind in (one.taken, one.refunded, one.unapplied)
            for each in (kind.count, kind.amount)
        ]

    days, currencies, ends = expected
    assert [((one.day, one.currency), sums(one)) for one in found.days] == sorted(days.items())
    assert [(one.currency, sums(one)) for one in found.currencies] == sorted(currencies.items())
    assert [(one.gateway, one.method) for one in found.outcomes] == sorted(ends)
    for one in found.outcomes:
        ended, took, declines = ends[one.gateway, one.method]
        assert (one.ended, one.succeeded) == (ended, len(took))
        assert {(each.code, each.decline_code): each.count for each in one.declines} == declines
        assert [each.count for each in one.declines] == sorted(declines.values(), reverse=True)
        assert one.time_to_pay == (TimeToPay(rank(took, 50), rank(took, 95)) if took else None)


async def record_of(urls: DatabaseUrls) -> dict[str, list[dict[str, Any]]]:
    async with await psycopg.AsyncConnection.connect(
        urls.superuser, row_factory=dict_row
    ) as connection:
        return {
            table: await (await connection.execute(query)).fetchall()
            for table, query in (
                ("payments", b"SELECT * FROM payments"),
                ("refunds", b"SELECT * FROM refunds"),
                (
                    "receipts",
                    b"SELECT receipts.*, application FROM receipts"
                    b" JOIN payments ON payments.id = payment_id",
                ),
            )
        }


async def compare(database: Database, urls: DatabaseUrls, dice: random.Random, times: int) -> int:
    """Random windows and filters; how many of them had anything."""
    record = await record_of(urls)
    applications = sorted({row["application"] for row in record["payments"]})
    latest = max(row["created_at"] for row in record["payments"]).date() + timedelta(days=3)
    full = 0
    for turn in range(times):
        first = latest - timedelta(days=dice.randrange(40))
        last = first + timedelta(days=dice.choice([0, 1, 7, 30, 200]))
        if turn == 0:
            first, last = date(2000, 1, 1), date(2100, 1, 1)
        currency = dice.choice([None, None, "CNY", "USD"]) if turn else None
        gateway = dice.choice([None, None, *GatewayName]) if turn else None
        for application in applications:
            found = await totals(
                database, application, first, last, currency=currency, gateway=gateway
            )
            check(found, plain(record, application, first, last, currency, gateway))
            full += bool(found.days and found.outcomes)
    return full
