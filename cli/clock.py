"""`everbill clock advance`: move the time of one subscription on, against the sandbox."""

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from temporalio.service import RPCError

from billing.calendar import Anchor
from billing.errors import SubscriptionNotFound
from cli.session import Session, run
from runtime.skipping import WorkflowClock, advance_clock, read_clock

app = typer.Typer(name="clock", help="Test clocks of subscriptions.", no_args_is_help=True)

_STEP: Final = re.compile(r"(\d{1,4})(min|mo|h|d|w|y)")
_UNITS: Final = {
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_MONTHS: Final = {"mo": 1, "y": 12}
_PATIENCE: Final = timedelta(minutes=2)


@app.callback()
def clock() -> None:
    """Test clocks of subscriptions."""


@app.command()
def advance(
    subscription_id: Annotated[str, typer.Argument(metavar="SUBSCRIPTION")],
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="30min, 12h, 10d, 2w, 3mo or 1y; a year at most.")
    ],
) -> None:
    """Move its time on: everything that falls due on the way happens as it would."""
    if _STEP.fullmatch(step) is None:
        typer.echo(f"everbill clock: {step} is no step such as 12h, 10d, 3mo or 1y", err=True)
        raise typer.Exit(2)

    async def move(session: Session) -> bool:
        async with session.database.single() as work:
            record = await work.subscriptions.find(subscription_id)
        if record is None:
            raise SubscriptionNotFound(f"there is no subscription {subscription_id}")
        gateway = record.standing.subscription.gateway
        if not session.settings.is_sandbox(gateway):
            typer.echo(f"{gateway} is no sandbox here: its time is everybody's.", err=True)
            return False
        try:
            moved = await _moved(session, subscription_id, step)
        except (RPCError, TimeoutError, ValueError) as problem:
            reason = str(problem) or "a payment under way holds its clock"
            typer.echo(f"everbill clock: {subscription_id} was not moved: {reason}", err=True)
            return False
        async with session.database.single() as work:
            record = await work.subscriptions.find(subscription_id)
        assert record is not None
        found = record.standing.subscription
        held = ", held by a payment under way" if moved.is_held else ""
        typer.echo(
            f"{subscription_id} is at {moved.now:%Y-%m-%d %H:%M} UTC{held}: {found.status},"
            f" period {found.period.number} until {found.period.end:%Y-%m-%d %H:%M} UTC."
        )
        return True

    run("clock", move)


async def _moved(session: Session, subscription_id: str, step: str) -> WorkflowClock:
    now = (await read_clock(session.client, subscription_id)).now
    return await advance_clock(
        session.client,
        subscription_id,
        length_of(step, now),
        step_id=secrets.token_hex(8),
        patience=_PATIENCE,
    )


def length_of(step: str, now: datetime) -> timedelta:
    """How long a step such as `3mo` is from that instant. Raises ValueError for none."""
    match = _STEP.fullmatch(step)
    if match is None:
        raise ValueError(f"{step} is no step")
    count, unit = int(match[1]), match[2]
    if unit in _UNITS:
        return count * _UNITS[unit]
    return Anchor.at(now.astimezone(UTC), "UTC").after_months(count * _MONTHS[unit]) - now
