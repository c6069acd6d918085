"""A clean record for each test, and the means to break it behind PostgreSQL's back."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import psycopg
import pytest

from audit.evidence import Evidence
from audit.report import run_all
from storage.database import Database
from tests.audit.record import CleanRecord, write_clean_record
from tests.fixtures.database import DatabaseUrls

Plant = Callable[..., None]
Broken = Callable[[], Awaitable[list[tuple[int, str]]]]


@pytest.fixture
async def clean(database: Database) -> CleanRecord:
    return await write_clean_record(database)


@pytest.fixture
def plant(database_urls: DatabaseUrls) -> Plant:
    """Do as a superuser with triggers and foreign keys asleep; more statements, one transaction."""

    def do(*statements: str) -> None:
        with psycopg.connect(database_urls.superuser) as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in statements:
                connection.execute(statement)

    return do


@pytest.fixture
def broken(database: Database, clean: CleanRecord) -> Broken:
    """Which promises the checker calls broken, and of what, without Temporal."""

    async def look() -> list[tuple[int, str]]:
        report = await run_all(
            Evidence(
                database=database,
                charges=await clean.truth.charges(),
                truth=clean.truth,
                now=datetime.now(UTC),
            )
        )
        return sorted((finding.promise, finding.subject) for finding in report.findings)

    return look
