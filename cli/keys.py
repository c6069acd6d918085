"""`everbill keys`: who may ask the API."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import InterfaceError, OperationalError

from billing.errors import SettingError
from runtime.cipher import Cipher
from runtime.settings import load_settings
from storage.database import Database, UnitOfWork
from storage.keys import Scope

app = typer.Typer(
    name="keys", help="Create, rotate, revoke and list the API's keys.", no_args_is_help=True
)

_APPLICATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NARROWEST: Final = 200
ResultT = TypeVar("ResultT")


@app.command()
def create(
    application: Annotated[str, typer.Argument(help="The application that the key belongs to")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; repeat it. Without: read, write")
    ] = None,
    name: Annotated[str, typer.Option(help="A name to tell it by")] = "default",
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    if not _APPLICATION.fullmatch(application):
        raise typer.BadParameter(
            "expected 1 to 64 letters, digits, `_`, `.`, `-`, the first a letter or digit",
            param_hint="application",
        )
    scopes = sorted(set(scope or (Scope.READ, Scope.WRITE)))
    key, secret = _with_keys(
        lambda work: work.keys.create(application, name, scopes, datetime.now(UTC))
    )
    _show_new(key.id, secret)


@app.command()
def rotate(key_id: Annotated[str, typer.Argument(help="The key to replace")]) -> None:
    """Replace a key by a new one of the same application and scopes; the old one ends now."""
    key, secret = _in_force(
        key_id, _with_keys(lambda work: work.keys.rotate(key_id, datetime.now(UTC)))
    )
    _show_new(key.id, secret)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key to end")]) -> None:
    """End a key; whoever uses it is refused from now on."""
    _in_force(key_id, _with_keys(lambda work: work.keys.revoke(key_id, datetime.now(UTC))))
    typer.echo(f"{key_id} is revoked")


@app.command("list")
def list_keys(
    application: Annotated[str | None, typer.Option(help="Only this application's")] = None,
) -> None:
    """The keys, without their secrets."""
    keys = _with_keys(lambda work: work.keys.list(application))
    table = Table("id", "application", "name", "scopes", "ends with", "created", "revoked")
    for key in keys:
        table.add_row(
            key.id,
            key.application,
            key.name,
            " ".join(sorted(key.scopes)),
            key.last_four,
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
        )
    # A narrower terminal folds the lines: an id that is cut off could not be typed again.
    Console(width=max(Console().width, _NARROWEST)).print(table)


def _show_new(key_id: str, secret: str) -> None:
    """The secret alone on standard output, so that a script can take it."""
    typer.echo(f"{key_id}: keep this key now, it is not shown again", err=True)
    typer.echo(secret)


def _in_force(key_id: str, result: ResultT | None) -> ResultT:
    if result is None:
        typer.echo(
            f"everbill keys: {key_id} is no key in force; see `everbill keys list`", err=True
        )
        raise typer.Exit(1)
    return result


def _with_keys(act: Callable[[UnitOfWork], Awaitable[ResultT]]) -> ResultT:
    try:
        return asyncio.run(_in_transaction(act))
    except SettingError as problem:
        typer.echo(f"everbill keys: {problem}", err=True)
        raise typer.Exit(1) from None
    except (OperationalError, InterfaceError) as problem:
        typer.echo(
            f"everbill keys: PostgreSQL does not answer, see DATABASE_URL: {problem.orig}", err=True
        )
        raise typer.Exit(1) from None


async def _in_transaction(act: Callable[[UnitOfWork], Awaitable[ResultT]]) -> ResultT:
    settings = load_settings()
    database = Database(
        settings.database_url.get_secret_value(),
        Cipher(settings.encryption_keys),
        application_name="everbill keys",
    )
    try:
        async with database.begin() as work:
            return await act(work)
    finally:
        await database.dispose()
