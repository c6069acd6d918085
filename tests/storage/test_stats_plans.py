"""Totals are read from few rows, by index, and never from the record: by their plans."""

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from benchmarks.record_rows import write_record
from storage.database import Database
from storage.stats import Totals
from tests.fixtures.database import DatabaseUrls
from tests.storage.plans import plan_of, rows_of, statements

UNTIL = datetime(2026, 11, 1, tzinfo=UTC)
COMBINATIONS = 12
"""Gateway, method and currency: 2 by 3 of Stripe, 3 each of the others."""
TABLES = {"stats_money", "stats_payments", "stats_declines"}


@pytest.fixture(scope="module")
async def record_urls(database_urls: DatabaseUrls) -> DatabaseUrls:
    await write_record(database_urls.superuser, application="shop", count=30_000, until=UNTIL)
    return database_urls


@pytest.mark.parametrize("currency", [None, "CNY"])
@pytest.mark.parametrize(
    ("days", "spans"), [(1, 1), (30, 17), (100, 29)], ids=["day", "month", "season"]
)
async def test_totals_are_few_rows_by_index(
    record_urls: DatabaseUrls, database: Database, days: int, spans: int, currency: str | None
) -> None:
    """A window is at most 7 days and 7 spans of 8 at either end of spans of 64."""
    last = UNTIL.date() - timedelta(days=1)
    with statements() as sent:
        totals = await read(database, last - timedelta(days=days - 1), last, currency)
    assert totals.outcomes
    async with await psycopg.AsyncConnection.connect(record_urls.superuser) as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            scanned: set[str] = set()
            for statement, parameters in sent:
                plan = await plan_of(connection, statement, parameters, mode)
                assert not plan.of("Seq Scan"), plan
                scans = [node for node in plan.nodes if "Relation Name" in node]
                assert all(not node.get("Rows Removed by Filter") for node in scans), plan
                scanned |= {node["Relation Name"] for node in scans}
                assert sum(map(rows_of, plan.scans("stats_payments"))) <= spans * COMBINATIONS
            assert scanned == TABLES


async def read(database: Database, first: date, last: date, currency: str | None) -> Totals:
    async with database.begin() as work:
        return await work.stats.read("shop", first, last, currency=currency)
