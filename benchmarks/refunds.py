"""Refunds beside a bare workflow of their shape: so many, so many at a time, the two in turns.

Each refund is the whole of a payment of its own, taken before anything is measured: gateways want
pauses between refunds of one payment.
"""

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from benchmarks.contenders import LONGEST_SECONDS, Contender, Everbill, RunFailed, Taken
from benchmarks.house import House, Size
from benchmarks.load import Slice, many
from benchmarks.progress import Progress
from billing.refund import RefundStatus

_TAKING: Final = 50
_WARMING: Final = 12
_HISTORIES: Final = 9
_ORDER: Final = ("bare", "ours", "ours", "bare")


@dataclass(frozen=True)
class RefundPlan:
    """`counts` are how many refunds a slice measures, by concurrency."""

    runs: int
    counts: dict[int, int]

    @property
    def slices(self) -> int:
        return self.runs * len(self.counts) * len(_ORDER)

    @property
    def payments(self) -> int:
        return self.runs * sum(self.counts.values()) * _ORDER.count("ours") + _WARMING


FULL: Final = RefundPlan(runs=2, counts={1: 15, 10: 60, 50: 150})
QUICK: Final = RefundPlan(runs=1, counts={1: 5, 10: 30, 50: 60})


@dataclass
class MeasuredRefunds:
    """By concurrency, the slices of each run; histories by gateway, and of the bare workflow."""

    runs: dict[int, list[list[Slice]]] = field(default_factory=dict)
    histories: dict[str, Size] = field(default_factory=dict)


@dataclass
class Refunding:
    """Asked for over REST; a refund is over when its workflow has ended, which is after its ledger
    entry is committed."""

    everbill: Everbill
    stock: deque[Taken] = field(default_factory=deque)
    name: str = "everbill"

    async def take(self) -> Taken:
        """Refund one payment of the stock. Raises RunFailed."""
        paid = self.stock.popleft()
        body = {"payment_id": paid.id, "reason": "benchmark"}
        async with asyncio.timeout(LONGEST_SECONDS):
            began = time.monotonic()
            refund = await self.everbill.post("/refund", secrets.token_hex(16), body)
            answered = time.monotonic()
            ended = await self.everbill.temporal.get_workflow_handle(refund["id"]).result()
        over = time.monotonic()
        if ended["status"] != RefundStatus.SUCCEEDED:
            raise RunFailed(f"{refund['id']} by {paid.gateway} ended {ended['status']}")
        self.everbill.refunded.append(refund["id"])
        return Taken(refund["id"], paid.gateway, answered - began, over - began, over)


@dataclass
class _Stocking:
    """Takes payments for the stock."""

    refunding: Refunding
    name: str = "payments"

    async def take(self) -> Taken:
        taken = await self.refunding.everbill.take()
        self.refunding.stock.append(taken)
        return taken


async def measure_refunds(house: House, plan: RefundPlan, progress: Progress) -> MeasuredRefunds:
    """Raises RunFailed."""
    found = MeasuredRefunds()
    ours = Refunding(house.everbill)
    progress.begin("payments to refund", plan.payments)
    await many(_Stocking(ours), plan.payments, _TAKING, progress.advance)
    sides: dict[str, Contender] = {"ours": ours, "bare": house.refund_shape}
    progress.begin("warming up refunds", _WARMING * len(sides))
    for side in sides.values():
        await many(side, _WARMING, _WARMING, progress.advance)
    progress.begin("refunding, beside the bare workflow", plan.slices)
    for _ in range(plan.runs):
        for concurrency, count in plan.counts.items():
            slices = []
            for name in _ORDER:
                slices.append(await _slice(house, sides[name], concurrency, count))
                progress.advance()
            found.runs.setdefault(concurrency, []).append(slices)
    await _histories(house, ours, found)
    return found


async def _slice(house: House, side: Contender, concurrency: int, count: int) -> Slice:
    taken: list[Taken] = []

    class Kept:
        name = side.name

        async def take(self) -> Taken:
            one = await side.take()
            taken.append(one)
            return one

    before = house.cpu_clock()
    seconds = await many(Kept(), count, concurrency, lambda: None)
    spent = {name: each - before[name] for name, each in house.cpu_clock().items()}
    return Slice(side.name, concurrency, seconds, tuple(taken), spent)


async def _histories(house: House, ours: Refunding, found: MeasuredRefunds) -> None:
    """The largest of a few, by gateway, and of the bare ones."""
    for slice_ in next(iter(found.runs.values()))[0]:
        for taken in slice_.taken[:_HISTORIES]:
            label = str(taken.gateway) if slice_.contender == ours.name else slice_.contender
            size = await house.history_of(taken)
            known = found.histories.get(label, size)
            found.histories[label] = max(known, size, key=lambda one: (one.events, one.bytes))
