"""What operators' commands share: the settings, the connections, and how a refusal is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import typer
from sqlalchemy.exc import InterfaceError, OperationalError
from temporalio.client import Client
from temporalio.service import RPCError

from billing.errors import BillingError, SettingError
from runtime.cipher import Cipher
from runtime.settings import Settings, load_settings
from runtime.temporal import connect
from storage.database import Database


@dataclass(frozen=True)
class Session:
    settings: Settings
    database: Database
    client: Client


@asynccontextmanager
async def session() -> AsyncIterator[Session]:
    """Raises SettingError, and RuntimeError where Temporal does not answer."""
    settings = load_settings()
    cipher = Cipher(settings.encryption_keys)
    database = Database(
        settings.database_url.get_secret_value(), cipher, application_name="everbill command"
    )
    try:
        yield Session(settings, database, await connect(cipher))
    finally:
        await database.dispose()


def run(command: str, work: Callable[[Session], Awaitable[bool]]) -> None:
    """Do the work in a session; exit 1 when it says False or cannot be done, and say why."""

    async def connected() -> bool:
        async with session() as opened:
            return await work(opened)

    try:
        went_well = asyncio.run(connected())
    except SettingError as problem:
        _refuse(command, str(problem))
    except BillingError as problem:
        _refuse(command, problem.detail)
    except (OperationalError, InterfaceError) as problem:
        _refuse(command, f"PostgreSQL does not answer, see DATABASE_URL: {problem.orig}")
    except RPCError as problem:
        _refuse(
            command,
            f"Temporal refuses ({problem.status.name}): {problem.message}; see TEMPORAL_ADDRESS"
            " and TEMPORAL_NAMESPACE",
        )
    except RuntimeError as problem:
        _refuse(command, f"Temporal does not answer: {problem}; see TEMPORAL_ADDRESS")
    else:
        if not went_well:
            raise typer.Exit(1)


def _refuse(command: str, why: str) -> None:
    typer.echo(f"everbill {command}: {why}", err=True)
    raise typer.Exit(1)
