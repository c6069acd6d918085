"""The schema goes forward and back, is the one that the code believes in, and keeps its money."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import create_engine, make_url, pool
from sqlalchemy.exc import ProgrammingError

from billing.errors import SettingError
from embedded.postgres import PostgresServer
from runtime.cipher import Cipher
from storage import migrate as migrate_module
from storage.database import Database, sync_url
from storage.migrate import RecordWouldBeLost, migrate, migration_url
from storage.provision import OWNER
from storage.tables import metadata
from tests.fixtures.database import DatabaseUrls
from tests.storage.method_samples import save
from tests.storage.samples import NOW, make_dispute, make_order, reserve, take

# They are named by their order.
REVISIONS = sorted(
    file.name.partition("_")[0]
    for file in (Path(migrate_module.__file__).parent / "migrations" / "versions").glob("*.py")
)

TABLES = """
    SELECT relname || '.' || attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
           attcollation::regcollation::text, pg_get_expr(adbin, adrelid)
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
      AND NOT attisdropped AND relname <> 'alembic_version'
    UNION ALL
    SELECT conname, pg_get_constraintdef(oid), false, '', '', conrelid::regclass::text
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
      AND contype <> 't'
    UNION ALL
    SELECT indexname, indexdef, false, '', '', tablename FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    ORDER BY 1, 2
"""
BEHAVIOUR = """
    SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT tgname, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT relname, relacl::text, '' FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
      AND relname <> 'alembic_version_pkc'
    UNION ALL
    SELECT attrelid::regclass || '.' || attname, attacl::text, '' FROM pg_attribute
    WHERE attacl IS NOT NULL AND attrelid::regclass::text = 'events'
    UNION ALL
    SELECT nspname, nspacl::text, '' FROM pg_namespace WHERE nspname = 'public'
    ORDER BY 1, 2
"""


@pytest.fixture
async def empty_url(
    postgres_server: PostgresServer, template_urls: DatabaseUrls
) -> AsyncIterator[str]:
    """The owner's URL of a database without a schema."""
    database = f"empty_{secrets.token_hex(6)}"
    name = sql.Identifier(database)
    async with await psycopg.AsyncConnection.connect(
        postgres_server.url(), autocommit=True
    ) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(name, sql.Identifier(OWNER))
        )
        try:
            url = make_url(template_urls.owner).set(database=database)
            yield url.render_as_string(hide_password=False)
        finally:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_down_and_up_again_gives_the_same_schema(empty_url: str) -> None:
    bare = rows(empty_url, BEHAVIOUR)
    migrate(empty_url)
    first = rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)
    assert first[0]
    migrate(empty_url, "base")
    assert rows(empty_url, TABLES) == []
    assert [row for row in rows(empty_url, BEHAVIOUR) if row[0] != "public"] == [
        row for row in bare if row[0] != "public"
    ]
    migrate(empty_url)
    assert (rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)) == first


@pytest.mark.parametrize(("before", "after"), list(pairwise(REVISIONS)))
def test_each_step_back_and_forward_again_gives_the_same_schema(
    empty_url: str, before: str, after: str
) -> None:
    migrate(empty_url, before)
    without = rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)
    migrate(empty_url, after)
    first = rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)
    assert first != without
    migrate(empty_url, before)
    assert (rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)) == without
    migrate(empty_url, after)
    assert (rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)) == first


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    first = rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)
    migrate(empty_url)
    migrate(empty_url, REVISIONS[-1])
    assert (rows(empty_url, TABLES), rows(empty_url, BEHAVIOUR)) == first


def test_the_code_and_the_migrations_mean_the_same_tables(
    empty_url: str, database_urls: DatabaseUrls
) -> None:
    """Alembic compares columns, keys and plain indexes; the catalog, all the rest."""
    engine = create_engine(sync_url(database_urls.owner), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine = create_engine(sync_url(empty_url), poolclass=pool.NullPool)
    with engine.begin() as connection:
        metadata.create_all(connection)
    assert rows(empty_url, TABLES) == rows(database_urls.owner, TABLES)


async def test_several_that_migrate_at_once_take_turns(empty_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, empty_url) for _ in range(4)))
    assert rows(empty_url, "SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]


async def test_going_back_does_not_drop_payments_unasked(empty_url: str, cipher: Cipher) -> None:
    await asyncio.to_thread(migrate, empty_url)
    database = Database(empty_url, cipher)
    async with database.begin() as work:
        await work.payments.insert(make_order(), NOW)
    await database.dispose()
    with pytest.raises(RecordWouldBeLost, match="--discard"):
        await asyncio.to_thread(migrate, empty_url, "base")
    assert rows(empty_url, "SELECT count(*) FROM payments") == [(1,)]
    await asyncio.to_thread(migrate, empty_url, "base", discard=True)
    assert rows(empty_url, TABLES) == []


async def test_going_back_does_not_drop_refunds_unasked(empty_url: str, cipher: Cipher) -> None:
    await asyncio.to_thread(migrate, empty_url)
    database = Database(empty_url, cipher)
    await reserve(database, await take(database))
    await database.dispose()
    with pytest.raises(RecordWouldBeLost, match="holds payments and refunds"):
        await asyncio.to_thread(migrate, empty_url, "base")
    with pytest.raises(RecordWouldBeLost, match="holds refunds, and going back to 0001"):
        await asyncio.to_thread(migrate, empty_url, "0001")
    assert rows(empty_url, "SELECT count(*) FROM refunds") == [(1,)]
    await asyncio.to_thread(migrate, empty_url, "0001", discard=True)
    assert rows(empty_url, "SELECT count(*) FROM payments") == [(1,)]
    assert rows(empty_url, "SELECT version_num FROM alembic_version") == [("0001",)]


async def test_going_back_does_not_drop_disputes_unasked(empty_url: str, cipher: Cipher) -> None:
    await asyncio.to_thread(migrate, empty_url)
    database = Database(empty_url, cipher)
    order = await take(database)
    async with database.begin() as work:
        await work.disputes.record(make_dispute(order), NOW)
    await database.dispose()
    with pytest.raises(RecordWouldBeLost, match="holds disputes, and going back to 0002"):
        await asyncio.to_thread(migrate, empty_url, "0002")
    assert rows(empty_url, "SELECT count(*) FROM disputes") == [(1,)]
    await asyncio.to_thread(migrate, empty_url, "0002", discard=True)
    assert rows(empty_url, "SELECT count(*) FROM payments") == [(1,)]


async def test_going_back_does_not_drop_saved_methods_unasked(
    empty_url: str, cipher: Cipher
) -> None:
    await asyncio.to_thread(migrate, empty_url)
    database = Database(empty_url, cipher)
    await save(database)
    await database.dispose()
    with pytest.raises(RecordWouldBeLost, match="holds saved methods, and going back to 0008"):
        await asyncio.to_thread(migrate, empty_url, "0008")
    assert rows(empty_url, "SELECT status FROM payment_methods") == [("active",)]


async def test_who_had_paid_before_is_a_customer_since_then(empty_url: str, cipher: Cipher) -> None:
    await asyncio.to_thread(migrate, empty_url)
    database = Database(empty_url, cipher)
    async with database.begin() as work:
        for user_id, days in (("first", 1), ("second", 0), ("first", 0), ("first", 2)):
            await work.payments.insert(
                make_order(user_id=user_id, created_at=NOW + timedelta(days=days)), NOW
            )
    await database.dispose()
    await asyncio.to_thread(migrate, empty_url, "0006")
    await asyncio.to_thread(migrate, empty_url)
    found = rows(empty_url, "SELECT user_id, created_at FROM customers ORDER BY user_id")
    assert found == [("first", NOW), ("second", NOW)]


def test_an_unknown_revision_changes_nothing(empty_url: str) -> None:
    with pytest.raises(CommandError, match="9999"):
        migrate(empty_url, "9999")
    assert rows(empty_url, TABLES) == []


def test_only_the_owner_migrates(empty_url: str, template_urls: DatabaseUrls) -> None:
    name = make_url(empty_url).database
    app = make_url(template_urls.app).set(database=name).render_as_string(hide_password=False)
    with pytest.raises(ProgrammingError, match="permission denied"):
        migrate(app)
    assert rows(empty_url, TABLES) == []


def test_a_missing_group_role_is_named(empty_url: str, template_urls: DatabaseUrls) -> None:
    """The owner may not create roles; where the group is missing it says what to run."""
    name = make_url(empty_url).database
    superuser = make_url(template_urls.superuser).set(database=name)
    with psycopg.connect(superuser.render_as_string(hide_password=False)) as connection:
        connection.execute("ALTER ROLE everbill_app RENAME TO everbill_app_away")
        connection.commit()
        try:
            with pytest.raises(ProgrammingError, match="CREATE ROLE everbill_app NOLOGIN"):
                migrate(empty_url)
        finally:
            connection.execute("ALTER ROLE everbill_app_away RENAME TO everbill_app")
            connection.commit()


def test_the_owners_login_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("EVERBILL_MIGRATION_DATABASE_URL", raising=False)
    with pytest.raises(SettingError, match="EVERBILL_MIGRATION_DATABASE_URL"):
        migration_url()
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@db/everbill")
    assert migration_url() == "postgresql://app@db/everbill"
    monkeypatch.setenv("EVERBILL_MIGRATION_DATABASE_URL", "postgresql://owner@db/everbill")
    assert migration_url() == "postgresql://owner@db/everbill"
