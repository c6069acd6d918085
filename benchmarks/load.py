"""A steady load: a fixed number of customers, each ordering again as soon as it is over."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders import Contender, Taken


@dataclass(frozen=True)
class Slice:
    """What ended within a stretch of a load that was steady before and went on afterwards."""

    contender: str
    concurrency: int
    seconds: float
    taken: tuple[Taken, ...]
    cpu_seconds: dict[str, float]
    """Of each process, in that stretch."""

    @property
    def settled_per_second(self) -> float:
        return len(self.taken) / self.seconds


async def steady(
    contender: Contender,
    concurrency: int,
    *,
    ramp_seconds: float,
    window_seconds: float,
    cpu_clock: Callable[[], dict[str, float]],
) -> Slice:
    """Measure one window; what was begun in it is let to its end. Raises RunFailed."""
    taken: list[Taken] = []
    opens_at = time.monotonic() + ramp_seconds
    closes_at = opens_at + window_seconds

    async def customer() -> None:
        while time.monotonic() < closes_at:
            taken.append(await contender.take())

    async def clock() -> dict[str, float]:
        await asyncio.sleep(ramp_seconds)
        before = cpu_clock()
        await asyncio.sleep(window_seconds)
        return {name: spent - before[name] for name, spent in cpu_clock().items()}

    async with asyncio.TaskGroup() as group:
        clocked = group.create_task(clock())
        for _ in range(concurrency):
            group.create_task(customer())
    return Slice(
        contender.name,
        concurrency,
        window_seconds,
        tuple(one for one in taken if opens_at <= one.ended_at < closes_at),
        clocked.result(),
    )


async def many(
    contender: Contender, number: int, concurrency: int, advance: Callable[[], None]
) -> float:
    """So many payments, so many at a time; how many seconds they took. Raises RunFailed."""
    left = number
    began = time.monotonic()

    async def customer() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await contender.take()
            advance()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(customer())
    return time.monotonic() - began
