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
from collections.abc import Awaitable, Callable, Coroutine, Iterator
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
        choices=["refunds", "record", "points", "renewals"],
        help="measure this part alone",
    )
    given = parser.parse_args()
    quick: bool = given.quick
    console = Console(soft_wrap=True)
    try:
        match given.part:
            case "refunds":
                report.show_refunds(_found(console, measure_refunds_alone, quick=quick), console)
            case "record":
                _keep_part("record", record.document(_grown(console, quick=quick)), console, quick)
            case "points":
                _keep_part("points", points.document(_spent(console, quick=quick)), console, quick)
            case "renewals":
                document = renewals.document(_renewed(console, quick=quick))
                _keep_part("renewals", document, console, quick)
            case _:
                _everything(console, quick=quick)
    except (StackRefused, RunFailed) as problem:
        sys.exit(f"everbill bench: {problem}")


def _everything(console: Console, *, quick: bool) -> None:
    here = machine.describe()
    found = _found(console, measure, quick=quick)
    report.show(found, _plan(quick=quick), console)
    spent = _spent(console, quick=quick)
    renewed = _renewed(console, quick=quick)
    grown = _grown(console, quick=quick)
    if not quick:
        parts = {
            "points": points.document(spent),
            "renewals": renewals.document(renewed),
            "record": record.document(grown),
        }
        _keep({**report.document(found, _plan(quick=quick), here), **parts}, console)


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


def _keep_part(name: str, document: dict[str, object], console: Console, quick: bool) -> None:
    if not quick:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        _keep({**kept, name: document}, console)


def _spent(console: Console, *, quick: bool) -> list[points.SpendPace]:
    spent = _alone(console, partial(points.measured, quick=quick))
    points.show(spent, console)
    return spent


def _renewed(console: Console, *, quick: bool) -> renewals.Renewed:
    renewed = _alone(console, partial(renewals.measured, quick=quick))
    renewals.show(renewed, console)
    return renewed


def _grown(console: Console, *, quick: bool) -> list[record.Grown]:
    large = record.LARGE // 10 if quick else record.LARGE
    grown = _alone(console, partial(record.measured, large=large))
    record.show(grown, console, large=large)
    return grown


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


def _keep(results: dict[str, object], console: Console) -> None:
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
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
    main()
