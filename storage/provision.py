"""Logins and database on a PostgreSQL server that we administer; idempotent.

everbill_owner   owns the schema and runs migrations
everbill         the application's login, a member of everbill_app, owns nothing
"""

from typing import Final, NamedTuple

from psycopg import AsyncConnection, sql
from sqlalchemy import make_url

OWNER: Final = "everbill_owner"
LOGIN: Final = "everbill"
GROUP: Final = "everbill_app"


# Until the connection ends: two that provision at once would both create.
_LOCK: Final = "SELECT pg_advisory_lock(hashtextextended('everbill.provision', 0))"


class Logins(NamedTuple):
    """The URLs of the schema's owner and of the application."""

    owner: str
    application: str


async def provision(
    superuser_url: str, *, database: str, owner_password: str, app_password: str
) -> Logins:
    """Make what is missing and set the passwords; both URLs. Migrations are run apart.

    `superuser_url` names any database of the server, not the one to be made.
    """
    url = make_url(superuser_url).set(drivername="postgresql")
    async with await _connect(url.render_as_string(hide_password=False)) as connection:
        await connection.execute(_LOCK)
        for role, password in ((OWNER, owner_password), (LOGIN, app_password)):
            await _login(connection, role, password)
        await _group(connection)
        await _database(connection, database)
    at = url.set(database=database)

    def as_login(role: str, password: str) -> str:
        return at.set(username=role, password=password).render_as_string(hide_password=False)

    return Logins(as_login(OWNER, owner_password), as_login(LOGIN, app_password))


async def _connect(url: str) -> AsyncConnection[tuple[object, ...]]:
    return await AsyncConnection.connect(url, autocommit=True)


async def _login(connection: AsyncConnection[tuple[object, ...]], role: str, password: str) -> None:
    exists = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
    verb = "CREATE" if await exists.fetchone() is None else "ALTER"
    # Hashed here, since the server may log the statement.
    hashed = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    ).decode()
    await connection.execute(
        sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
            sql.SQL(verb), sql.Identifier(role), sql.Literal(hashed)
        )
    )


async def _group(connection: AsyncConnection[tuple[object, ...]]) -> None:
    exists = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [GROUP])
    if await exists.fetchone() is None:
        await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(GROUP)))
    await connection.execute(
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(GROUP), sql.Identifier(LOGIN))
    )


async def _database(connection: AsyncConnection[tuple[object, ...]], database: str) -> None:
    exists = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
    if await exists.fetchone() is None:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(database), sql.Identifier(OWNER)
            )
        )
