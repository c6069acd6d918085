"""`everbill migrate`: bring the schema forward or back."""

import typer
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from billing.errors import SettingError
from storage.migrate import RecordWouldBeLost, migrate, migration_url


def migrate_command(
    to: str = typer.Option("head", help="`head`, `base`, or a revision's id"),
    discard: bool = typer.Option(
        False, "--discard", help="Go back to base even though payments are lost by it"
    ),
) -> None:
    """Bring the database's schema to a revision, as the login that owns it."""
    try:
        migrate(migration_url(), to, discard=discard)
    except (SettingError, RecordWouldBeLost, CommandError) as problem:
        raise _failed(str(problem)) from None
    except DBAPIError as problem:
        raise _failed(
            "PostgreSQL did not do it, and nothing was changed; the login is that of"
            f" EVERBILL_MIGRATION_DATABASE_URL, else DATABASE_URL: {problem.orig}"
        ) from None
    typer.echo(f"The schema is at {to}.")


def _failed(why: str) -> typer.Exit:
    typer.echo(f"everbill migrate: {why}", err=True)
    return typer.Exit(1)
