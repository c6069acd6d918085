"""Logins and database on a server that we administer."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from embedded.postgres import PostgresServer
from storage.provision import Logins, provision
from tests.fixtures.database import DatabaseUrls


@pytest.fixture
async def name(postgres_server: PostgresServer, template_urls: DatabaseUrls) -> AsyncIterator[str]:
    """A database to make. The logins are the server's: their passwords are put back."""
    name = f"provisioned_{secrets.token_hex(6)}"
    yield name
    logins = make_url(template_urls.owner), make_url(template_urls.app)
    await provision(
        postgres_server.url(),
        database="everbill_template",
        owner_password=str(logins[0].password),
        app_password=str(logins[1].password),
    )
    async with await psycopg.AsyncConnection.connect(
        postgres_server.url(), autocommit=True
    ) as connection:
        await connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


async def make(server: PostgresServer, name: str, passwords: tuple[str, str]) -> Logins:
    owner, app = passwords
    return await provision(server.url(), database=name, owner_password=owner, app_password=app)


async def who(url: str) -> tuple[object, ...] | None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        rows = await connection.execute(
            "SELECT current_user, current_database(),"
            " pg_has_role(current_user, 'everbill_app', 'MEMBER')"
        )
        return await rows.fetchone()


async def test_both_logins_work_and_a_repeat_sets_new_passwords(
    postgres_server: PostgresServer, name: str
) -> None:
    first = await make(postgres_server, name, ("one", "p@ss/word:%#?"))
    assert await who(first.owner) == ("everbill_owner", name, False)
    assert await who(first.application) == ("everbill", name, True)
    second = await make(postgres_server, name, ("three", "four"))
    assert await who(second.application) == ("everbill", name, True)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await who(first.application)


async def test_several_at_once_take_turns(postgres_server: PostgresServer, name: str) -> None:
    made = await asyncio.gather(*(make(postgres_server, name, ("o", "a")) for _ in range(4)))
    assert len(set(made)) == 1
    assert await who(made[0].owner) == ("everbill_owner", name, False)


async def test_neither_login_has_power_over_the_server(
    postgres_server: PostgresServer, name: str
) -> None:
    await make(postgres_server, name, ("o", "a"))
    async with await psycopg.AsyncConnection.connect(postgres_server.url()) as connection:
        rows = await connection.execute(
            "SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls,"
            " rolreplication FROM pg_roles WHERE rolname LIKE 'everbill%' ORDER BY rolname"
        )
        assert await rows.fetchall() == [
            ("everbill", True, *[False] * 5),
            ("everbill_app", False, *[False] * 5),
            ("everbill_owner", True, *[False] * 5),
        ]
