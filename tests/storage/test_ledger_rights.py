"""What the application's login may do to the record, and what not."""

import psycopg
import pytest
from psycopg import errors, sql

from storage.database import Database
from tests.fixtures.database import DatabaseUrls

LEDGER = ("ledger_accounts", "ledger_transactions", "ledger_postings")
STATEMENTS = {
    "insert": "INSERT INTO {} DEFAULT VALUES",
    "update": "UPDATE {} SET id = DEFAULT",
    "delete": "DELETE FROM {}",
    "truncate": "TRUNCATE {}",
    "drop": "DROP TABLE {}",
    "disable": "ALTER TABLE {} DISABLE TRIGGER ALL",
}
STATS = ("stats_changes", "stats_money", "stats_payments", "stats_declines")
ALLOWED = {
    "gateway_customers": {"SELECT", "INSERT"},
    "payment_methods": {"SELECT", "INSERT", "UPDATE"},
    "subscriptions": {"SELECT", "INSERT", "UPDATE"},
    "subscription_charges": {"SELECT", "INSERT", "UPDATE"},
    "payments": {"SELECT", "INSERT", "UPDATE"},
    "refunds": {"SELECT", "INSERT", "UPDATE"},
    "disputes": {"SELECT", "INSERT", "UPDATE"},
    "customers": {"SELECT", "INSERT"},
    "payment_attempts": {"SELECT", "INSERT", "UPDATE"},
    "receipts": {"SELECT", "INSERT"},
    "reviews": {"SELECT", "INSERT"},
    "events": {"SELECT", "INSERT"},
    "points_balances": {"SELECT", "INSERT", "UPDATE"},
    "points_lots": {"SELECT", "INSERT", "UPDATE"},
    "points_clawbacks": {"SELECT", "INSERT", "UPDATE"},
    "points_takings": {"SELECT", "INSERT", "UPDATE", "DELETE"},
    "points_transactions": {"SELECT", "INSERT"},
    "attention": {"SELECT", "INSERT", "UPDATE"},
    "webhook_inbox": {"SELECT", "INSERT", "UPDATE"},
    "api_keys": {"SELECT", "INSERT", "UPDATE"},
    "idempotency_claims": {"SELECT", "INSERT", "UPDATE", "DELETE"},
    **{table: {"SELECT"} for table in (*LEDGER, *STATS)},
}


async def refused(url: str, statement: sql.SQL | sql.Composed) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        try:
            await connection.execute(statement)
        except errors.InsufficientPrivilege:
            return True
    return False


@pytest.mark.parametrize("table", LEDGER)
async def test_the_application_may_not_write_the_ledger_itself(
    database_urls: DatabaseUrls, table: str
) -> None:
    for name, statement in STATEMENTS.items():
        composed = sql.SQL(statement).format(sql.Identifier(table))
        assert await refused(database_urls.app, composed), name


async def test_the_application_has_exactly_the_rights_it_needs(
    database_urls: DatabaseUrls,
) -> None:
    async with await psycopg.AsyncConnection.connect(database_urls.app) as connection:
        rows = await connection.execute(
            "SELECT relname, array_agg(right_name) FROM pg_class,"
            " unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE','REFERENCES','TRIGGER'])"
            " AS right_name"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND has_table_privilege(oid, right_name) GROUP BY relname"
        )
        assert {name: set(rights) for name, rights in await rows.fetchall()} == ALLOWED
        owned = await connection.execute(
            "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole"
        )
        assert await owned.fetchone() == (0,)


async def test_an_event_gets_its_place_and_is_never_rewritten(database_urls: DatabaseUrls) -> None:
    assert await refused(database_urls.app, sql.SQL("UPDATE events SET data = 'null'"))
    assert not await refused(database_urls.app, sql.SQL("UPDATE events SET place = place"))


async def test_the_application_creates_nothing_in_the_schema(database_urls: DatabaseUrls) -> None:
    for statement in (
        "CREATE TABLE intruder ()",
        "CREATE FUNCTION intruder() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        "SET ROLE everbill_owner",
        "SET session_replication_role = replica",
    ):
        assert await refused(database_urls.app, sql.SQL(statement)), statement


async def test_a_login_outside_the_group_reads_and_posts_nothing(
    database_urls: DatabaseUrls,
) -> None:
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        await superuser.execute("CREATE ROLE stranger")
        try:
            await superuser.execute("SET LOCAL ROLE stranger")
            for statement in (
                "SELECT ledger_post('x', now(), '[]')",
                "SELECT * FROM ledger_postings",
                "SELECT * FROM payments",
            ):
                await superuser.execute("SAVEPOINT before")
                with pytest.raises(errors.InsufficientPrivilege):
                    await superuser.execute(statement)
                await superuser.execute("ROLLBACK TO before")
        finally:
            await superuser.rollback()


async def test_temporary_tables_cannot_stand_in_for_the_ledger(
    database: Database, database_urls: DatabaseUrls
) -> None:
    """A function that runs as its owner must not find what the caller put in its way."""
    async with await psycopg.AsyncConnection.connect(database_urls.app) as connection:
        for table in LEDGER:
            await connection.execute(
                sql.SQL("CREATE TEMP TABLE {0} (LIKE public.{0} INCLUDING ALL)").format(
                    sql.Identifier(table)
                )
            )
        await connection.execute(
            "SELECT ledger_post('receipt/hijacked', now(), '["
            '{"account": "a", "currency": "CNY", "amount_minor": 1},'
            '{"account": "b", "currency": "CNY", "amount_minor": -1}]\')'
        )
    async with database.begin() as work:
        assert "a" in {balance.account for balance in await work.ledger.balances()}
