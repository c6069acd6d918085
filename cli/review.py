"""`everbill review`: what waits for a person, and the person's decision."""

import getpass
from datetime import timedelta
from typing import Annotated, Final

import typer
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from activities.resumption import Resumption
from billing.cards import contains_card_number
from billing.errors import BillingError, NothingToReturn, PaymentNotFound, PaymentNotUnderReview
from billing.messages import ReviewAction, ReviewDecision
from billing.payment import Payment, PaymentStatus
from cli.session import Session, run
from workflows.payment import PaymentWorkflow

_LONGEST_REASON: Final = 500
# Asking the gateway again may take a minute, where it does not answer.
_ANSWER_WITHIN: Final = timedelta(seconds=90)

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
    reason: Annotated[str, typer.Option(help="Kept with the decision.")],
    gateway_number: Annotated[
        str | None, typer.Option(help="The gateway's own number of the payment, as evidence.")
    ] = None,
) -> None:
    """Decide on a parked payment: `retry` asks the gateway again, `close` ends it as failed,
    `return` sends back what came in."""
    if gateway_number is not None and action is not ReviewAction.RETRY:
        raise typer.BadParameter("it is evidence for `retry` alone", param_hint="--gateway-number")
    decision = ReviewDecision(
        action=action,
        reason=_presentable(reason),
        reviewed_by=f"login:{getpass.getuser()}",
        gateway_number=gateway_number,
    )

    async def send(session: Session) -> bool:
        async with session.database.begin() as work:
            record = await work.payments.find(payment_id)
        if record is None:
            raise PaymentNotFound(f"there is no payment {payment_id}")
        if action is ReviewAction.RETURN and record.payment.status.is_terminal:
            resumption = Resumption(session.client, session.database)
            refund_ids = await resumption.give_back(payment_id, decision)
            for refund_id in refund_ids:
                typer.echo(f"{refund_id} gives it back.")
            if not refund_ids:
                typer.echo(
                    "The gateway is asked again, and what it confirms goes back; see"
                    f" `everbill review list` whether {payment_id} is gone from it."
                )
            return True
        if record.payment.status is not PaymentStatus.NEEDS_REVIEW:
            raise PaymentNotUnderReview(
                f"{payment_id} is {record.payment.status.value}: nobody has to decide on it"
            )
        payment = await _decided(session, payment_id, decision)
        if action is ReviewAction.RETURN and payment.status is PaymentStatus.NEEDS_REVIEW:
            raise NothingToReturn("the gateway confirms no money that could be returned")
        typer.echo(f"{payment_id} is now {payment.status.value}.")
        return True

    run("review", send)


def _presentable(reason: str) -> str:
    """As the API takes it: something, not too long, and no card number. Raises BadParameter."""
    if not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise typer.BadParameter(
            f"expected 1 to {_LONGEST_REASON} printable characters", param_hint="--reason"
        )
    if contains_card_number(reason):
        raise typer.BadParameter("it holds a card number; leave it out", param_hint="--reason")
    return reason


async def _decided(session: Session, payment_id: str, decision: ReviewDecision) -> Payment:
    handle = session.client.get_workflow_handle_for(PaymentWorkflow.run, payment_id)
    try:
        return await handle.execute_update(
            PaymentWorkflow.review, decision, rpc_timeout=_ANSWER_WITHIN
        )
    except WorkflowUpdateRPCTimeoutOrCancelledError:
        raise BillingError(
            f"no answer within {_ANSWER_WITHIN.seconds} s: is a worker running? `everbill review"
            " list` tells whether the decision was carried out"
        ) from None
    except RPCError as problem:
        if problem.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise BillingError(
            f"no workflow of {payment_id} runs: `everbill resume {payment_id}`, then decide again"
        ) from None
