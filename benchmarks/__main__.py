"""`python -m benchmarks [refunds] [--quick]`: measure on this machine, print, keep the results.

With `refunds`, these alone; only the whole course is kept."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from benchmarks import machine, report
from benchmarks.contenders import RunFailed
from benchmarks.course import FULL, QUICK, Measured, Plan, measure, measure_refunds_alone
from benchmarks.house import House
from benchmarks.progress import Progress
from embedded.errors import StackRefused
from embedded.options import StackOptions
from embedded.stack import Stack, interruptible

RESULTS: Final = Path(__file__).with_name("results.json")

Course = Callable[[House, Plan, Progress], Awaitable[Measured]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes, for trying; keeps no results"
    )
    parser.add_argument("part", nargs="?", choices=["refunds"], help="measure this part alone")
    given = parser.parse_args()
    quick: bool = given.quick
    course = measure if given.part is None else measure_refunds_alone
    plan = QUICK if quick else FULL
    console = Console(soft_wrap=True)
    here = machine.describe()
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="everbill-bench-") as folder:
            found = asyncio.run(_measured(Path(folder), plan, console, course))
    except (StackRefused, RunFailed) as problem:
        sys.exit(f"everbill bench: {problem}")
    if found is None:
        sys.exit("everbill bench: interrupted; nothing was kept")
    if given.part is None:
        report.show(found, plan, console)
    else:
        report.show_refunds(found, console)
    console.print(
        f"\n{found.ledger_entries} payments and refunds, each in the ledger once;"
        f" {found.orders_repeated} orders had to be sent again;"
        f" {time.monotonic() - began:.0f} s in all"
    )
    if not quick and given.part is None:
        RESULTS.write_text(json.dumps(report.document(found, plan, here), indent=2) + "\n")
        console.print("kept in benchmarks/results.json")


async def _measured(
    folder: Path, plan: Plan, console: Console, measuring: Course
) -> Measured | None:
    def announce(text: str) -> None:
        console.print(text, markup=False, style="dim")

    stack = Stack(StackOptions.isolated(folder), announce)

    async def course() -> Measured:
        async with House.opened(stack) as house:
            with _shown(console) as progress:
                return await measuring(house, plan, progress)

    try:
        return await interruptible(course(), stack)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Many customers fail of one cause."""
    problem = failures.exceptions[0]
    return _first(problem) if isinstance(problem, BaseExceptionGroup) else problem


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Progress]:
    """A bar where there is a terminal; else a line for each part."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def begin(part: str, steps: int) -> None:
            if not console.is_terminal:
                console.print(f"{part} ({steps} steps)")
            bars.add_task(part, total=steps)

        def advance() -> None:
            bars.advance(bars.task_ids[-1])

        yield Progress(begin, advance)


if __name__ == "__main__":
    main()
