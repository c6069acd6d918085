"""`everbill migrate`: bring the schema forward or back."""

import typer

from billing.errors import SettingError
from storage.migrate import migrate, migration_url


def migrate_command(
    to: str = typer.Option("head", help="`head`, `base`, or a revision's id"),
) -> None:
    """Bring the database's schema to a revision, as the login that owns it."""
    try:
        migrate(migration_url(), to)
    except SettingError as problem:
        typer.echo(f"everbill migrate: {problem}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"The schema is at {to}.")
