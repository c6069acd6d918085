"""`everbill up`: the whole stack on this machine, until Ctrl-C."""

import asyncio
import contextlib
import time
from typing import Annotated

import typer

from embedded.errors import StackRefused
from embedded.options import COMPONENTS, StackOptions
from embedded.stack import Stack, interruptible


def up(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Start this part alone; may be repeated. One of {', '.join(COMPONENTS)}."
        ),
    ] = None,
) -> None:
    """Start PostgreSQL, Temporal, the sandbox gateways, the worker and the API; stop at Ctrl-C."""
    try:
        options = StackOptions.from_environment(components=_chosen(only))
        asyncio.run(_serve(options))
    except StackRefused as problem:
        typer.echo(f"everbill up: {problem}", err=True)
        raise typer.Exit(1) from None


def _chosen(only: list[str] | None) -> frozenset[str]:
    unknown = sorted(set(only or ()) - set(COMPONENTS))
    if unknown:
        raise StackRefused(
            f"--only {unknown[0]}: there is no such part; there are {', '.join(COMPONENTS)}"
        )
    return frozenset(only or COMPONENTS)


async def _serve(options: StackOptions) -> None:
    stack = Stack(options, announce)
    await interruptible(_until_cancelled(stack), stack)
    announce("stopped; the data stays")


async def _until_cancelled(stack: Stack) -> None:
    announce(f"starting; data and logs are in {stack.folder.path}")
    began = time.monotonic()
    async with stack:
        announce(f"ready after {time.monotonic() - began:.1f} s\n{_directions(stack)}")
        await asyncio.Event().wait()


def _directions(stack: Stack) -> str:
    addresses, runs = stack.addresses, stack.options.runs
    lines = {
        "API": addresses.api if runs("api") else None,
        "OpenAPI": addresses.openapi if runs("api") else None,
        "API key": stack.api_key or None,
        "Sandbox gateways": addresses.sandbox if runs("sandbox") else None,
        "Temporal": addresses.temporal if runs("temporal") else None,
        "Temporal UI": addresses.temporal_ui if runs("temporal") else None,
        "PostgreSQL": addresses.postgresql if runs("postgresql") else None,
        "For a shell": f"set -a; . {stack.folder.address_file}; set +a" if runs("api") else None,
    }
    table = [f"  {name:<17} {value}" for name, value in lines.items() if value]
    return "\n".join(["", *table, "", "Ctrl-C stops everything."])


def announce(text: str) -> None:
    """Print a line; the terminal may be gone while what runs in it is being stopped."""
    with contextlib.suppress(OSError):
        typer.echo(text)
