"""What the processes of the stack use of this machine, as Linux tells it in /proc."""

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """CPU time so far of each named process, with the children that it has now."""
    children = _children()
    return {
        name: sum(_ticks(each) for each in _with_children(pid, children)) / _TICKS_PER_SECOND
        for name, pid in processes.items()
    }


def memory_mb(processes: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of each named process alone, in MiB."""
    return {
        name: int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
        for name, pid in processes.items()
    }


def describe() -> dict[str, object]:
    """Cores and memory, and how busy it is; nothing that names the machine."""
    pages = os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages * _PAGE_BYTES / 2**30, 1),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _with_children(pid: int, children: Mapping[int, list[int]]) -> Iterable[int]:
    yield pid
    for child in children.get(pid, []):
        yield from _with_children(child, children)


def _ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s `stat` from the third on; none where the process has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
