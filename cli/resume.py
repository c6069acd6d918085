"""`everbill resume`: start the workflow of a payment again, from its row alone."""

from typing import Annotated

import typer

from activities.resumption import Resumption
from cli.session import Session, run


def resume(
    payment_id: Annotated[str | None, typer.Argument(help="The payment to go on with.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every payment that has none running and needs one.")
    ] = False,
) -> None:
    """Start the workflow of a payment that has none running; it asks the gateway first."""
    if (payment_id is None) != every:
        typer.echo("everbill resume: give a payment's id, or --all", err=True)
        raise typer.Exit(2)

    async def start(session: Session) -> bool:
        resumption = Resumption(session.client, session.database)
        if payment_id is None:
            typer.echo(f"Resumed {await resumption.sweep()} payments.")
        elif await resumption.resume(payment_id):
            typer.echo(f"Resumed {payment_id}.")
        else:
            typer.echo(f"{payment_id} needs no resuming: its workflow runs, or all is over.")
        return True

    run("resume", start)
