"""`python -m benchmarks [refunds|record|points|renewals] [--quick]`: measure, print, keep results.

`refunds` measures these alone, and only the whole course keeps them; `record` measures lists and
totals over a large record alone, `points` spends of points, `renewals` those due in one minute;
each of the three keeps only its results.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from benchmarks import machine, points, record, renewals, report
from benchmarks.contenders import RunFailed
from benchmarks.course import FULL, QUICK, Measured, Plan, measure, measure_refunds_alone
from benchmarks.house import House
from benchmarks.progress import Progress
from embedded.errors import StackRefused
from embedded.options import StackOptions
from embedded.stack import Stack, interruptible
from runtime.ending import run_and_leave

RESULTS: Final = Path(__file__).with_name("results.json")

Announce = Callable[[str], None]
_T = TypeVar("_T")
Course = Callable[[House, Plan, Progress], Awaitable[Measured]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes, for trying; keeps no results"
    )
    parser.add_argument(
        "part",
        nargs="?",
        choices=["refunds", *_PARTS],
        help="measure this part alone; refunds are a part of payments, and kept with them only",
    )
    given = parser.parse_args()
    quick: bool = given.quick
    console = Console(soft_wrap=True)
    try:
        if given.part == "refunds":
            report.show_refunds(_found(console, measure_refunds_alone, quick=quick), console)
        elif given.part is not None:
            _PARTS[given.part](console, quick)
        else:
            _everything(console, quick=quick)
    except (StackRefused, RunFailed) as problem:
        sys.exit(f"everbill bench: {problem}")


def _everything(console: Console, *, quick: bool) -> None:
    """Each part is kept as soon as it is there: one that fails takes nothing from the others."""
    for part in _PARTS.values():
        part(console, quick)


def _payments(console: Console, quick: bool) -> None:
    here = machine.describe()
    found = _found(console, measure, quick=quick)
    report.show(found, _plan(quick=quick), console)
    _keep(report.document(found, _plan(quick=quick), here), console, quick)


def _points(console: Console, quick: bool) -> None:
    spent = _alone(console, partial(points.measured, quick=quick))
    points.show(spent, console)
    _keep({"points": points.document(spent)}, console, quick)


def _renewals(console: Console, quick: bool) -> None:
    renewed = _alone(console, partial(renewals.measured, quick=quick))
    renewals.show(renewed, console)
    _keep({"renewals": renewals.document(renewed)}, console, quick)


def _record(console: Console, quick: bool) -> None:
    large = record.LARGE // 10 if quick else record.LARGE
    grown = _alone(console, partial(record.measured, large=large))
    record.show(grown, console, large=large)
    _keep({"record": record.document(grown)}, console, quick)


_PARTS: Final[Mapping[str, Callable[[Console, bool], None]]] = {
    "payments": _payments,
    "points": _points,
    "renewals": _renewals,
    "record": _record,
}


def _plan(*, quick: bool) -> Plan:
    return QUICK if quick else FULL


def _found(console: Console, course: Course, *, quick: bool) -> Measured:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="everbill-bench-") as folder:
        found = asyncio.run(_measured(Path(folder), _plan(quick=quick), console, course))
    if found is None:
        sys.exit("everbill bench: interrupted; nothing was kept")
    console.print(
        f"\n{found.ledger_entries} payments and refunds, each in the ledger once;"
        f" {found.orders_repeated} orders had to be sent again;"
        f" {time.monotonic() - began:.0f} s in all"
    )
    return found


def _alone(
    console: Console, measuring: Callable[[Path, Announce], Coroutine[Any, Any, _T | None]]
) -> _T:
    """What a part finds out in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="everbill-bench-") as folder:
        try:
            found = asyncio.run(measuring(Path(folder), _announcing(console)))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
    if found is None:
        sys.exit("everbill bench: interrupted; nothing was kept")
    return found


def _announcing(console: Console) -> Announce:
    def announce(text: str) -> None:
        console.print(text, markup=False, style="dim")

    return announce


def _keep(results: dict[str, object], console: Console, quick: bool) -> None:
    """Put them in the place of what was found of the same before."""
    if not quick:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**kept, **results}, indent=2) + "\n")
        console.print("kept in benchmarks/results.json")


async def _measured(
    folder: Path, plan: Plan, console: Console, measuring: Course
) -> Measured | None:
    stack = Stack(StackOptions.isolated(folder), _announcing(console))

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
    run_and_leave(main)
