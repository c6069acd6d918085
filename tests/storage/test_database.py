"""Connections: what a session is set to, and what a server that goes away costs."""

import asyncio

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from billing.errors import SettingError
from embedded.launch import free_port
from runtime.cipher import Cipher
from storage.database import Database
from tests.fixtures.database import DatabaseUrls


async def test_sessions_give_up_rather_than_hang(database: Database) -> None:
    async with database.begin() as work:
        for setting, expected in (
            ("TimeZone", "UTC"),
            ("lock_timeout", "5s"),
            ("statement_timeout", "15s"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("transaction_isolation", "read committed"),
            ("application_name", "everbill"),
        ):
            assert await work.connection.scalar(text(f"SHOW {setting}")) == expected, setting


async def test_idle_connections_are_made_anew_when_the_server_has_closed_them(
    database: Database, database_urls: DatabaseUrls
) -> None:
    """After a restart nobody gets an error that the first query of each connection would find."""

    async def ask() -> None:
        async with database.single() as work:
            await work.connection.scalar(text("SELECT 1"))

    async def use_all() -> None:
        await asyncio.gather(*(use() for use in (database.ping, ask) for _ in range(10)))

    await use_all()
    async with await psycopg.AsyncConnection.connect(
        database_urls.superuser, autocommit=True
    ) as superuser:
        ended = await superuser.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert len(await ended.fetchall()) >= 4
    await use_all()


async def test_a_statement_that_fails_alone_leaves_its_connection_usable(
    cipher: Cipher, database_urls: DatabaseUrls
) -> None:
    database = Database(database_urls.app, cipher, pool_size=1)
    with pytest.raises(DBAPIError):
        async with database.single() as work:
            await work.connection.scalar(text("SELECT 1 / 0"))
    async with database.single() as work:
        assert await work.connection.scalar(text("SELECT 1")) == 1
    await database.dispose()


async def test_a_connection_lost_within_a_transaction_is_an_error(
    database: Database, database_urls: DatabaseUrls
) -> None:
    async def lose() -> None:
        async with database.begin() as work:
            pid = await work.connection.scalar(text("SELECT pg_backend_pid()"))
            async with await psycopg.AsyncConnection.connect(database_urls.superuser) as other:
                await other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            await work.connection.scalar(text("SELECT 1"))

    with pytest.raises(DBAPIError) as problem:
        await lose()
    assert isinstance(problem.value.orig, errors.AdminShutdown | psycopg.OperationalError)
    await database.ping()


async def test_a_server_out_of_reach_is_an_error(cipher: Cipher) -> None:
    database = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none", cipher)
    with pytest.raises(OperationalError):
        await database.ping()
    await database.dispose()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://u:p@db/x", "names mysql"),
        ("everbill", "is not a URL"),
        ("", "is not a URL"),
    ],
)
def test_another_databases_url_is_refused(cipher: Cipher, url: str, complaint: str) -> None:
    with pytest.raises(SettingError, match=f"DATABASE_URL {complaint}"):
        Database(url, cipher)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
async def test_every_spelling_of_postgresql_will_do(
    database_urls: DatabaseUrls, cipher: Cipher, scheme: str
) -> None:
    database = Database(database_urls.app.replace("postgresql", scheme, 1), cipher)
    await database.ping()
    await database.dispose()
