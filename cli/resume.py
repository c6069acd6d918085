"""`everbill resume`: start the workflow of a payment, refund, saved method or subscription again,
from its row alone."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from activities.resumption import Resumption
from billing.identifiers import is_method_id, is_refund_id, is_subscription_id
from cli.session import Session, run


def resume(
    object_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The payment, refund, saved method or subscription to go on with."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Everything that has none running and needs one.")
    ] = False,
) -> None:
    """Start the workflow of what has none running; it asks the gateway."""
    if (object_id is None) != every:
        typer.echo(
            "everbill resume: give the id of a payment, refund, saved method or subscription, or"
            " --all",
            err=True,
        )
        raise typer.Exit(2)

    async def start(session: Session) -> bool:
        resumption = Resumption(session.client, session.database)
        if object_id is None:
            typer.echo(f"Resumed {await resumption.sweep()} processes.")
            return True
        resume_one: Callable[[str], Awaitable[bool]] = resumption.resume
        if is_refund_id(object_id):
            resume_one = resumption.resume_refund
        elif is_method_id(object_id):
            resume_one = resumption.resume_method
        elif is_subscription_id(object_id):
            resume_one = resumption.resume_subscription
        if await resume_one(object_id):
            typer.echo(f"Resumed {object_id}.")
        else:
            typer.echo(f"{object_id} needs no resuming: its workflow runs, or all is over.")
        return True

    run("resume", start)
