"""How a benchmark goes: slice by slice, the two in turns."""

from dataclasses import dataclass, field
from typing import Final

from benchmarks import refunds
from benchmarks.contenders import Contender
from benchmarks.house import House, Memory, Size
from benchmarks.load import Slice, many, steady
from benchmarks.progress import Progress
from benchmarks.refunds import MeasuredRefunds, RefundPlan, measure_refunds
from billing.payment import GatewayName


@dataclass(frozen=True)
class Plan:
    """How long each part takes. `windows` are seconds of measuring by concurrency, each after
    `ramps` seconds that are not measured: longer than one payment takes, for all begin at once."""

    runs: int
    windows: dict[int, float]
    ramps: dict[int, float]
    memory_payments: int
    histories: int
    refunds: RefundPlan

    @property
    def slices(self) -> int:
        return len(self.windows) * (self.runs * len(_ORDER) + 1)


FULL: Final = Plan(
    runs=2,
    windows={1: 5.0, 10: 6.0, 50: 15.0},
    ramps={1: 0.5, 10: 2.0, 50: 8.0},
    memory_payments=2000,
    histories=10,
    refunds=refunds.FULL,
)
QUICK: Final = Plan(
    runs=1,
    windows={1: 2.0, 10: 3.0, 50: 12.0},
    ramps={1: 0.5, 10: 2.0, 50: 8.0},
    memory_payments=200,
    histories=3,
    refunds=refunds.QUICK,
)

_ORDER: Final = ("bare", "ours", "ours", "bare")
"""Whatever grows slower with time hits both alike."""


@dataclass
class Measured:
    """All that a benchmark found."""

    runs: dict[int, list[list[Slice]]] = field(default_factory=dict)
    """By concurrency, the slices of each run of ours and the same shape."""
    plain: list[Slice] = field(default_factory=list)
    refunds: MeasuredRefunds = field(default_factory=MeasuredRefunds)
    histories: dict[str, Size] = field(default_factory=dict)
    memory_before: Memory | None = None
    memory_after: Memory | None = None
    sustained_per_second: float = 0.0
    ledger_entries: int = 0
    orders_repeated: int = 0
    versions: dict[str, str] = field(default_factory=dict)


async def measure(house: House, plan: Plan, progress: Progress) -> Measured:
    """Go the whole course. Raises RunFailed."""
    found = Measured(versions=await house.versions())
    await _warm_up(house, progress)
    await _memory(house, plan, found, progress)
    await _histories(house, plan, found, progress)
    progress.begin("settling, beside the bare workflow", plan.slices)
    for run in range(plan.runs):
        for concurrency in plan.windows:
            slices = [
                await _slice(house, plan, side, concurrency, progress)
                for side in (
                    house.same_shape if name == "bare" else house.everbill for name in _ORDER
                )
            ]
            found.runs.setdefault(concurrency, []).append(slices)
            if run == plan.runs // 2:
                found.plain.append(await _slice(house, plan, house.plain, concurrency, progress))
    found.refunds = await measure_refunds(house, plan.refunds, progress)
    found.ledger_entries = await house.check_ledger()
    found.orders_repeated = house.everbill.repeated
    return found


async def measure_refunds_alone(house: House, plan: Plan, progress: Progress) -> Measured:
    """The refunds' part of the course. Raises RunFailed."""
    found = Measured(versions=await house.versions())
    await _warm_up(house, progress)
    found.refunds = await measure_refunds(house, plan.refunds, progress)
    found.ledger_entries = await house.check_ledger()
    found.orders_repeated = house.everbill.repeated
    return found


async def _slice(
    house: House, plan: Plan, side: Contender, concurrency: int, progress: Progress
) -> Slice:
    measured = await steady(
        side,
        concurrency,
        ramp_seconds=plan.ramps[concurrency],
        window_seconds=plan.windows[concurrency],
        cpu_clock=house.cpu_clock,
    )
    progress.advance()
    return measured


async def _warm_up(house: House, progress: Progress) -> None:
    """Connections, caches, compiled statements: what only the first ones wait for."""
    sides: tuple[Contender, ...] = (house.everbill, house.same_shape, house.plain)
    progress.begin("warming up", 60 * len(sides))
    for side in sides:
        await many(side, 60, 10, progress.advance)


async def _memory(house: House, plan: Plan, found: Measured, progress: Progress) -> None:
    found.memory_before = await house.memory()
    progress.begin(f"{plan.memory_payments} payments, for memory", plan.memory_payments)
    seconds = await many(house.everbill, plan.memory_payments, 50, progress.advance)
    found.sustained_per_second = round(plan.memory_payments / seconds, 1)
    found.memory_after = await house.memory()


async def _histories(house: House, plan: Plan, found: Measured, progress: Progress) -> None:
    """The largest of a few, by gateway, and of the bare ones."""
    gateways = len(GatewayName)
    sides: tuple[Contender, ...] = (house.everbill, house.same_shape, house.plain)
    progress.begin("histories", len(sides) * gateways * plan.histories)
    for side in sides:
        for _ in range(plan.histories * gateways):
            taken = await side.take()
            label = side.name
            if side is house.everbill and taken.gateway is not None:
                label = taken.gateway.value
            size = await house.history_of(taken)
            known = found.histories.get(label, size)
            found.histories[label] = max(known, size, key=lambda one: (one.events, one.bytes))
            progress.advance()
