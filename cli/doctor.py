"""`everbill doctor`: hold gateways, record, ledger and Temporal against every promise."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import text

from audit.evidence import Evidence, GatewayTruth
from audit.report import run_all
from audit.truth import GatewayQueryTruth, SandboxTruth
from billing.errors import SettingError
from cli.session import Session, run
from gateways.registry import build_gateways, configured_gateways
from runtime.settings import Settings
from runtime.temporal import describe_namespace


class Source(StrEnum):
    """Who is asked what was taken."""

    SANDBOX = "sandbox"
    QUERY = "query"


def doctor(
    window_hours: Annotated[
        int, typer.Option(min=1, help="Ask gateways about payments of the last so many hours.")
    ] = 24,
    gateway_truth: Annotated[
        Source | None,
        typer.Option(
            help="`sandbox`: its book, for every payment; `query`: each gateway, payment by"
            " payment. Without: the sandbox's book where every gateway is the sandbox."
        ),
    ] = None,
    log: Annotated[
        list[Path] | None, typer.Option(exists=True, help="A log file to read; may be repeated.")
    ] = None,
) -> None:
    """Check every promise on the live system; exit 1 if one does not hold, and say what to do."""

    async def examine(session: Session) -> bool:
        # In another namespace every workflow would be taken for lost.
        await describe_namespace(session.client)
        return await _examine(session, timedelta(hours=window_hours), gateway_truth, log or [])

    run("doctor", examine)


async def _examine(
    session: Session, window: timedelta, source: Source | None, logs: Sequence[Path]
) -> bool:
    console = Console(soft_wrap=True)
    now = datetime.now(UTC)
    async with contextlib.AsyncExitStack() as stack:
        progress = stack.enter_context(Progress(console=console, transient=True))
        truth = await _truth(session, now - window, source, stack, progress)
        charges = await truth.charges()
        task = progress.add_task("checking", total=None)
        report = await run_all(
            Evidence(
                database=session.database,
                charges=charges,
                truth=truth,
                now=now,
                client=session.client,
                logs=logs,
            ),
            lambda promise: progress.update(task, description=promise),
        )
    console.print(report.table())
    for explanation in report.explanations():
        console.print(explanation, markup=False, highlight=False)
    for note in report.information():
        console.print(f"for information: {note}", markup=False, highlight=False)
    if isinstance(truth, GatewayQueryTruth):
        for payment_id, why in truth.unanswered.items():
            console.print(f"not compared: {payment_id}: {why}", markup=False, highlight=False)
    async with session.database.begin() as work:
        waiting = await work.attention.open()
    for one in waiting:
        console.print(
            f"waits for a person: {one.payment_id}, {one.reason}: {one.detail}",
            markup=False,
            highlight=False,
        )
    return report.is_clean


async def _truth(
    session: Session,
    since: datetime,
    source: Source | None,
    stack: contextlib.AsyncExitStack,
    progress: Progress,
) -> GatewayTruth:
    """The sandbox's own book where every gateway is the sandbox; else what each one answers."""
    sandbox = _sandbox_url(session.settings)
    if source is Source.SANDBOX and sandbox is None:
        raise SettingError("--gateway-truth sandbox: a gateway here is not the sandbox")
    if sandbox is not None and source is not Source.QUERY:
        return SandboxTruth(sandbox)
    async with session.database.begin() as work:
        rows = await work.connection.execute(
            text(
                "SELECT id FROM payments WHERE created_at >= :since"
                " OR status NOT IN ('succeeded', 'failed', 'canceled', 'expired') ORDER BY id"
            ),
            {"since": since},
        )
        payment_ids = list(rows.scalars())
    gateways = build_gateways(session.settings)
    for gateway in gateways.values():
        stack.push_async_callback(gateway.aclose)
    task = progress.add_task("asking the gateways", total=len(payment_ids))
    return GatewayQueryTruth(
        gateways,
        session.database,
        payment_ids,
        lambda done, _total: progress.update(task, completed=done),
    )


def _sandbox_url(settings: Settings) -> str | None:
    on = sorted(configured_gateways(settings))
    if on and all(settings.is_sandbox(gateway) for gateway in on):
        return settings.gateway_endpoint(on[0]).removesuffix("/gateway.do")
    return None
