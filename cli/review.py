"""`everbill review`: what waits for a person, and the person's decision."""

import getpass
from typing import Annotated, Final

import typer

from billing.errors import PaymentNotFound, PaymentNotUnderReview
from billing.messages import ReviewAction, ReviewDecision
from billing.payment import PaymentStatus
from cli.session import Session, run
from workflows.payment import PaymentWorkflow

_RETURN_NEEDS_REFUNDS: Final = (
    "`return` needs refunds, which this version does not have yet: send the money back at the"
    " gateway, then `close`"
)

app = typer.Typer(name="review", help="Payments that wait for a person.", no_args_is_help=True)


@app.command("list")
def list_waiting() -> None:
    """Every payment that calls for a person: why, and since when."""

    async def show(session: Session) -> bool:
        async with session.database.begin() as work:
            waiting = await work.attention.open()
        for one in waiting:
            typer.echo(f"{one.payment_id}  {one.raised_at:%Y-%m-%d %H:%M} UTC  {one.reason}")
            typer.echo(f"  {one.detail}")
        if not waiting:
            typer.echo("Nothing waits for a person.")
        return True

    run("review list", show)


@app.command("decide")
def decide(
    payment_id: str,
    action: ReviewAction,
    reason: Annotated[str, typer.Option(help="Kept with the decision.", min=1)],
    gateway_number: Annotated[
        str | None, typer.Option(help="The gateway's own number of the payment, as evidence.")
    ] = None,
) -> None:
    """Decide on a parked payment: `retry` asks the gateway again, `close` ends it as failed."""
    if action is ReviewAction.RETURN:
        typer.echo(f"everbill review: {_RETURN_NEEDS_REFUNDS}", err=True)
        raise typer.Exit(1)
    decision = ReviewDecision(
        action=action,
        reason=reason,
        reviewed_by=f"login:{getpass.getuser()}",
        gateway_number=gateway_number,
    )

    async def send(session: Session) -> bool:
        async with session.database.begin() as work:
            record = await work.payments.find(payment_id)
        if record is None:
            raise PaymentNotFound(f"there is no payment {payment_id}")
        if record.payment.status is not PaymentStatus.NEEDS_REVIEW:
            raise PaymentNotUnderReview(
                f"{payment_id} is {record.payment.status.value}: nobody has to decide on it"
            )
        handle = session.client.get_workflow_handle_for(PaymentWorkflow.run, payment_id)
        payment = await handle.execute_update(PaymentWorkflow.review, decision)
        typer.echo(f"{payment_id} is now {payment.status.value}.")
        return True

    run("review", send)
