"""Spends of points, beside a bare workflow of the same shape: `python -m benchmarks points`."""

import asyncio
import itertools
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)

from benchmarks.bare import QUEUE, BareMovement, BareSpend
from benchmarks.contenders import (
    BASE,
    COME_BACK,
    LONGEST_SECONDS,
    PATIENCE_SECONDS,
    TASK_TIMEOUT,
    Contender,
    RunFailed,
    Taken,
    expect,
)
from benchmarks.figures import quantile
from benchmarks.house import House
from benchmarks.load import Slice, many, steady
from billing.points import PointsMovement
from embedded.options import StackOptions
from embedded.stack import Stack, interruptible
from runtime import attributes
from storage.points_tables import points_balances, points_transactions

_USERS: Final = 100
_PACKAGE: Final = "points_3000"
_POINTS: Final = 1
_ORDER: Final = ("bare", "ours", "ours", "bare")
"""Whatever grows slower with time hits both alike."""


@dataclass(frozen=True)
class SpendPlan:
    """`windows` are seconds of measuring by concurrency, each after the seconds of `ramp`."""

    runs: int
    windows: dict[int, float]
    ramp: float


FULL: Final = SpendPlan(runs=2, windows={1: 4.0, 10: 6.0, 50: 8.0}, ramp=2.0)
QUICK: Final = SpendPlan(runs=1, windows={1: 2.0, 10: 3.0, 50: 4.0}, ramp=1.0)


@dataclass(frozen=True)
class SpendPace:
    """How both did at one concurrency: medians of runs, and ours over the bare one's rate."""

    concurrency: int
    everbill_per_second: float
    bare_per_second: float
    ratio: float
    everbill_ms_p50: float
    everbill_ms_p99: float
    bare_ms_p50: float
    bare_ms_p99: float
    measured: int


@dataclass
class Spends:
    """Spent over REST by many users in turn, each of whom has bought points before."""

    api: httpx.AsyncClient
    users: list[str]
    name: str = "everbill spends"
    spent: int = 0
    _turn: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._turn = itertools.cycle(self.users)

    async def take(self) -> Taken:
        body = {"user_id": next(self._turn), "points": _POINTS, "reason": "a hint"}
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        began = time.monotonic()
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                answer = await self.api.post(f"{BASE}/points/spend", headers=headers, json=body)
                if answer.status_code not in COME_BACK:
                    break
                await asyncio.sleep(PATIENCE_SECONDS)
        over = time.monotonic()
        self.spent += 1
        return Taken(expect(answer, 201)["id"], None, over - began, over - began, over)


@dataclass
class BareSpends:
    temporal: Client
    name: str = "bare spends"

    async def take(self) -> Taken:
        movement = BareMovement(id=f"bare_{secrets.token_hex(13)}", points=_POINTS)
        began = time.monotonic()
        async with asyncio.timeout(LONGEST_SECONDS):
            await self.temporal.execute_update_with_start_workflow(
                BareSpend.create,
                movement,
                start_workflow_operation=_starting(movement),
                id=f"spend/{secrets.token_hex(16)}",
            )
        over = time.monotonic()
        return Taken(movement.id, None, over - began, over - began, over)


def _starting(movement: BareMovement) -> WithStartWorkflowOperation[Any, Any]:
    return WithStartWorkflowOperation(
        BareSpend.run,
        movement,
        id=movement.id,
        task_queue=QUEUE,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        search_attributes=TypedSearchAttributes(
            [SearchAttributePair(attributes.CUSTOMER_ID, "benchmark")]
        ),
        static_summary=f"spend of {movement.points} points",
    )


async def measured(
    folder: Path, announce: Callable[[str], None], *, quick: bool
) -> list[SpendPace] | None:
    """On a stack of its own in `folder`; None where it was interrupted. Raises StackRefused and
    RunFailed."""
    stack = Stack(StackOptions.isolated(folder), announce)

    async def course() -> list[SpendPace]:
        async with House.opened(stack) as house:
            return await _measure(house, QUICK if quick else FULL, announce)

    return await interruptible(course(), stack)


async def _measure(
    house: House, plan: SpendPlan, announce: Callable[[str], None]
) -> list[SpendPace]:
    announce(f"{_USERS} users buy {_PACKAGE}")
    ours = Spends(house.everbill.api, await _buyers(house))
    bare = BareSpends(house.temporal)
    sides: dict[str, Contender] = {"ours": ours, "bare": bare}
    for side in sides.values():
        await many(side, 60, 10, lambda: None)
    found: dict[int, list[Slice]] = {}
    for _ in range(plan.runs):
        for concurrency, window in plan.windows.items():
            announce(f"spending, {concurrency} at a time")
            for name in _ORDER:
                found.setdefault(concurrency, []).append(
                    await steady(
                        sides[name],
                        concurrency,
                        ramp_seconds=plan.ramp,
                        window_seconds=window,
                        cpu_clock=house.cpu_clock,
                    )
                )
    await _check(house, ours)
    return [_pace(slices, ours.name, bare.name) for slices in found.values()]


async def _buyers(house: House) -> list[str]:
    users = [f"spender_{number}" for number in range(_USERS)]
    waiting = iter(users)

    async def buy() -> None:
        for user_id in waiting:
            payment = expect(
                await house.everbill.api.post(
                    f"{BASE}/points/purchase",
                    headers={"Idempotency-Key": secrets.token_hex(16)},
                    json={
                        "user_id": user_id,
                        "package": _PACKAGE,
                        "currency": "USD",
                        "gateway": "stripe",
                        "method": "card",
                    },
                ),
                201,
            )
            expect(
                await house.everbill.payer.post(
                    "/control/pay",
                    json={"gateway": "stripe", "next_action": payment["next_action"]},
                ),
                200,
            )
            await house.temporal.get_workflow_handle(payment["id"]).result()

    await asyncio.gather(*(buy() for _ in range(10)))
    return users


async def _check(house: House, ours: Spends) -> None:
    """Raises RunFailed unless each spend that was answered is in the record once, and no other."""
    async with house.database.begin() as work:
        spends = await work.connection.scalar(
            select(func.count()).where(points_transactions.c.kind == PointsMovement.SPEND.value)
        )
        least = await work.connection.scalar(select(func.min(points_balances.c.balance)))
    if spends != ours.spent or least is None or least < 0:
        raise RunFailed(
            f"{ours.spent} spends were answered, the record has {spends}, and the least balance"
            f" is {least}"
        )


def _pace(slices: list[Slice], ours: str, bare: str) -> SpendPace:
    rates, times = {}, {}
    for name in (ours, bare):
        own = [each for each in slices if each.contender == name]
        rates[name] = statistics.median(each.settled_per_second for each in own)
        times[name] = [1000 * one.settled_seconds for each in own for one in each.taken]
    return SpendPace(
        concurrency=slices[0].concurrency,
        everbill_per_second=round(rates[ours], 1),
        bare_per_second=round(rates[bare], 1),
        ratio=round(rates[ours] / rates[bare], 2),
        everbill_ms_p50=round(quantile(times[ours], 0.50), 1),
        everbill_ms_p99=round(quantile(times[ours], 0.99), 1),
        bare_ms_p50=round(quantile(times[bare], 0.50), 1),
        bare_ms_p99=round(quantile(times[bare], 0.99), 1),
        measured=len(times[ours]),
    )


def document(found: list[SpendPace]) -> dict[str, Any]:
    """As it stands in `results.json`."""
    return {"users": _USERS, "points_each": _POINTS, "paces": [asdict(each) for each in found]}


def show(found: list[SpendPace], console: Console) -> None:
    title = "\nSpends of points a second, beside a bare workflow of the same shape; milliseconds"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    headings = ("concurrency", "spends/s", "bare/s", "ratio", "p50", "p99", "bare p50", "p99")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        table.add_row(
            str(each.concurrency),
            f"{each.everbill_per_second:.1f}",
            f"{each.bare_per_second:.1f}",
            f"{each.ratio:.2f}",
            f"{each.everbill_ms_p50:.0f}",
            f"{each.everbill_ms_p99:.0f}",
            f"{each.bare_ms_p50:.0f}",
            f"{each.bare_ms_p99:.0f}",
        )
    console.print(table)
