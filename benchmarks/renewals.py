"""Renewals that fall due in one minute, beside a bare workflow of the same shape, and what
subscriptions take that only wait: `python -m benchmarks renewals`.

A subscription is written as one whose trial is about to end, and its process started from that row,
as after a loss: from then on everything happens as it does to one that was signed up for, the
charge to a card saved at the sandbox and its webhook included.
"""

import secrets
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from benchmarks.bare import QUEUE, BareDue, RenewalShape, Work
from benchmarks.contenders import TASK_TIMEOUT, RunFailed
from benchmarks.house import House, Size
from benchmarks.members import (
    LONGEST_SECONDS,
    TRIAL_DAYS,
    Counted,
    Members,
    application_of,
    at_once,
    due_at,
    looks,
    require_ahead,
    saved_card,
)
from billing.payment import GatewayName
from embedded.options import StackOptions
from embedded.stack import Stack, interruptible
from runtime import attributes


@dataclass(frozen=True)
class RenewalPlan:
    """`due` renewals in each slice, ours and the bare ones in turn; memory is read with so many
    subscriptions open as `open` says, one number after the other."""

    order: tuple[str, ...]
    due: int
    open: tuple[int, ...]


FULL: Final = RenewalPlan(("bare", "ours", "ours", "bare"), 1_000, (1_000, 10_000))
QUICK: Final = RenewalPlan(("bare", "ours"), 100, (100, 300))


@dataclass(frozen=True)
class Open:
    """Resident MiB by process, with so many subscriptions waiting for their next charge."""

    subscriptions: int
    resident_mb: dict[str, float]


@dataclass(frozen=True)
class Renewed:
    """How both did: medians of slices. A renewal is over when it is in the record and its money in
    the ledger; seconds are counted from when it was due. `cycle` is what one cycle adds to the
    history of the subscription's workflow, `payment` the whole history of its charge."""

    due: int
    everbill_per_second: float
    bare_per_second: float
    ratio: float
    everbill_last_seconds: float
    bare_last_seconds: float
    charged_twice: int
    skipped: int
    cycle: Size
    payment: Size
    open: list[Open]


async def measured(folder: Path, announce: Callable[[str], None], *, quick: bool) -> Renewed | None:
    """On a stack of its own in `folder`; None where it was interrupted. Raises StackRefused and
    RunFailed."""
    stack = Stack(StackOptions.isolated(folder), announce)

    async def course() -> Renewed:
        async with House.opened(stack) as house:
            return await _measure(house, QUICK if quick else FULL, announce)

    return await interruptible(course(), stack)


async def _measure(house: House, plan: RenewalPlan, announce: Callable[[str], None]) -> Renewed:
    members = Members(house, await saved_card(house), await application_of(house))
    counted = Counted()
    lasted: dict[str, list[float]] = {"ours": [], "bare": []}
    for name in plan.order:
        at = due_at(plan.due)
        announce(f"{plan.due} of {name} fall due at {at:%H:%M:%S} UTC")
        if name == "bare":
            seconds = await _bare_slice(house.temporal, plan.due, at)
        else:
            seconds = await members.renew(plan.due, at, counted)
        announce(f"the last was renewed after {seconds:.1f} s")
        lasted[name].append(seconds)
    waiting: list[Open] = []
    for wanted in plan.open:
        more = wanted - members.opened
        announce(f"{wanted} subscriptions are to be open, {max(more, 0)} more")
        if more > 0:
            await members.open(more, datetime.now(UTC) + timedelta(days=TRIAL_DAYS))
        memory = await house.memory()
        waiting.append(Open(members.opened, memory.resident_mb))
    ours, bare = (statistics.median(lasted[name]) for name in ("ours", "bare"))
    return Renewed(
        due=plan.due,
        everbill_per_second=round(plan.due / ours, 1),
        bare_per_second=round(plan.due / bare, 1),
        ratio=round(bare / ours, 2),
        everbill_last_seconds=round(ours, 1),
        bare_last_seconds=round(bare, 1),
        charged_twice=counted.charged_twice,
        skipped=counted.skipped,
        cycle=counted.cycle,
        payment=counted.payment,
        open=waiting,
    )


async def _bare_slice(temporal: Client, count: int, at: datetime) -> float:
    """Seconds from when they were due until the last was over. Raises RunFailed."""
    batch = secrets.token_hex(6)
    works = [
        BareDue(work=Work(id=f"bare_{batch}_{n}", gateway=GatewayName.STRIPE), due_at=at)
        for n in range(count)
    ]

    async def start(due: BareDue) -> None:
        await temporal.start_workflow(
            RenewalShape.run,
            due,
            id=due.work.id,
            task_queue=QUEUE,
            task_timeout=TASK_TIMEOUT,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(attributes.CUSTOMER_ID, batch),
                    SearchAttributePair(attributes.GATEWAY, due.work.gateway.value),
                ]
            ),
        )

    await at_once(works, start)
    require_ahead(at)
    query = f"WorkflowType = 'RenewalShape' AND CustomerId = '{batch}'"
    over = f"{query} AND ExecutionStatus = 'Completed'"
    async for _ in looks():
        if (await temporal.count_workflows(over)).count >= count:
            ends = [each.close_time async for each in temporal.list_workflows(over)]
            return (max(filter(None, ends)) - at).total_seconds()
    raise RunFailed(f"the bare renewals were not over within {LONGEST_SECONDS} s")


def document(found: Renewed) -> dict[str, Any]:
    """As it stands in `results.json`."""
    return asdict(found)


def show(found: Renewed, console: Console) -> None:
    title = f"\n{found.due} renewals due in one minute, beside a bare workflow of the same shape"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    headings = ("renewals/s", "bare/s", "ratio", "last after s", "bare s", "twice", "skipped")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row(
        f"{found.everbill_per_second:.1f}",
        f"{found.bare_per_second:.1f}",
        f"{found.ratio:.2f}",
        f"{found.everbill_last_seconds:.1f}",
        f"{found.bare_last_seconds:.1f}",
        str(found.charged_twice),
        str(found.skipped),
    )
    console.print(table)
    console.print(
        f"a cycle: {found.cycle.events} events and {found.cycle.bytes} bytes of its subscription,"
        f" {found.payment.events} and {found.payment.bytes} of its payment"
    )
    for each in found.open:
        resident = ", ".join(f"{name} {mb:.0f} MiB" for name, mb in each.resident_mb.items())
        console.print(f"{each.subscriptions} subscriptions open: {resident}")
