"""What was found, as a table for people and as `results.json`."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from benchmarks.course import Measured, Plan
from benchmarks.figures import (
    Pace,
    Ratio,
    as_document,
    instructions_ratio,
    pace,
    throughput_ratio,
)
from benchmarks.house import Size
from runtime.version import VERSION


def paces(found: Measured) -> list[Pace]:
    """By concurrency: ours, the same shape, the plain one."""
    return [
        pace([each for run in found.runs[concurrency] for each in run if each.contender == name])
        if name != "plain bare"
        else pace([each for each in found.plain if each.concurrency == concurrency])
        for concurrency in found.runs
        for name in ("everbill", "same shape", "plain bare")
    ]


def ratios(found: Measured) -> list[Ratio]:
    return [
        ratio(runs, "everbill", "same shape")
        for ratio in (throughput_ratio, instructions_ratio)
        for runs in found.runs.values()
    ]


def refund_paces(found: Measured) -> list[Pace]:
    """By concurrency: ours, the same shape."""
    return [
        pace([each for run in runs for each in run if each.contender == name])
        for runs in found.refunds.runs.values()
        for name in ("everbill", "same shape")
    ]


def refund_ratios(found: Measured) -> list[Ratio]:
    """Nothing is required of them."""
    return [
        replace(
            throughput_ratio(runs, "everbill", "same shape"),
            of="refunded per second",
            required=None,
            is_met=None,
        )
        for runs in found.refunds.runs.values()
    ]


def document(found: Measured, plan: Plan, machine: dict[str, object]) -> dict[str, Any]:
    """All of it; nothing in it names the machine."""
    assert found.memory_before is not None
    assert found.memory_after is not None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "versions": {
            "everbill": VERSION,
            "python": platform.python_version(),
            "temporalio": version("temporalio"),
            **found.versions,
        },
        "method": {
            "order": "bare, ours, ours, bare at each concurrency in each run",
            "runs": plan.runs,
            "window_seconds": {str(key): value for key, value in plan.windows.items()},
            "ramp_seconds": {str(key): value for key, value in plan.ramps.items()},
            "gateways": "stripe card, alipay qr, wechatpay native, in turn",
        },
        "ratios": as_document(ratios(found)),
        "paces": as_document(paces(found)),
        "histories": {
            name: {"events": size.events, "bytes": size.bytes}
            for name, size in found.histories.items()
        },
        "memory": {
            "payments_between": plan.memory_payments,
            "settled_per_second": found.sustained_per_second,
            "before_mb": found.memory_before.resident_mb,
            "after_mb": found.memory_after.resident_mb,
            "open_before": found.memory_before.open_payments,
            "open_after": found.memory_after.open_payments,
        },
        "refunds": {
            "runs": plan.refunds.runs,
            "refunds_in_a_slice": {str(key): value for key, value in plan.refunds.counts.items()},
            "ratios": as_document(refund_ratios(found)),
            "paces": as_document(refund_paces(found)),
            "histories": {name: asdict(size) for name, size in found.refunds.histories.items()},
        },
        "ledger_entries": found.ledger_entries,
        "orders_repeated": found.orders_repeated,
    }


def show(found: Measured, plan: Plan, console: Console) -> None:
    console.print(
        Group(
            _ratios(ratios(found)),
            _paces(paces(found)),
            _cpu(found),
            _histories("paid payment", found.histories),
            _memory(found, plan),
        )
    )
    show_refunds(found, console)


def show_refunds(found: Measured, console: Console) -> None:
    console.print(
        Group(
            _ratios(refund_ratios(found)),
            _refund_paces(found),
            _histories("refund", found.refunds.histories),
        )
    )


def _ratios(ratios: Sequence[Ratio]) -> Table:
    table = _table("Everbill against a bare workflow of the same shape")
    _columns(table, "what", "concurrency", "median", "runs", "required", "")
    for each in ratios:
        table.add_row(
            each.of,
            str(each.concurrency),
            f"{each.median:.2f}",
            " ".join(f"{run:.2f}" for run in each.runs),
            each.required or "",
            {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[each.is_met],
        )
    return table


def _refund_paces(found: Measured) -> Table:
    table = _table("Refunded per second; milliseconds to the answer, and to the end")
    _columns(
        table, "who", "concurrency", "refunded/s", "answer p50", "p99", "end p50", "p99", "measured"
    )
    return _filled(table, refund_paces(found))


def _paces(paces: Sequence[Pace]) -> Table:
    table = _table("Settled per second; milliseconds to the payer's instructions, and to the end")
    _columns(
        table, "who", "concurrency", "settled/s", "instr. p50", "p99", "end p50", "p99", "measured"
    )
    return _filled(table, paces)


def _filled(table: Table, paces: Sequence[Pace]) -> Table:
    for each in paces:
        table.add_row(
            each.contender,
            str(each.concurrency),
            f"{each.settled_per_second:.1f}",
            f"{each.instructions_ms_p50:.0f}",
            f"{each.instructions_ms_p99:.0f}",
            f"{each.settled_ms_p50:.0f}",
            f"{each.settled_ms_p99:.0f}",
            str(each.measured),
        )
    return table


def _cpu(found: Measured) -> Table:
    """The busiest concurrency alone: below it, idle polling is counted as well."""
    busiest = max(found.runs)
    shown = [each for each in paces(found) if each.concurrency == busiest]
    names = list(shown[0].cpu_ms_each)
    table = _table(f"Milliseconds of CPU for each, at concurrency {busiest}")
    _columns(table, "who", "all", *names)
    for each in shown:
        spent = each.cpu_ms_each
        table.add_row(
            each.contender,
            f"{sum(spent.values()):.0f}",
            *(f"{spent[name]:.1f}" for name in names),
        )
    return table


def _histories(of: str, histories: Mapping[str, Size]) -> Table:
    table = _table(f"History of one {of} in Temporal (the largest of a few)")
    _columns(table, "who", "events", "bytes")
    for name, size in histories.items():
        table.add_row(name, str(size.events), str(size.bytes))
    return table


def _memory(found: Measured, plan: Plan) -> Table:
    before, after = found.memory_before, found.memory_after
    assert before is not None
    assert after is not None
    table = _table(
        f"Memory over {plan.memory_payments} payments settled at {found.sustained_per_second}"
        f" a second, 50 at a time (MiB; open before {before.open_payments}, after"
        f" {after.open_payments})"
    )
    _columns(table, "process", "before", "after")
    for name, resident in before.resident_mb.items():
        table.add_row(name, f"{resident:.0f}", f"{after.resident_mb[name]:.0f}")
    return table


def _table(title: str) -> Table:
    return Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)


def _columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
