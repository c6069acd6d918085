"""Children noted on disk, so that the next start ends what an earlier one left behind.

Tethered children end with the supervisor. This is for what that cannot reach: a platform without
parent-death signals, or a child too busy to have ended yet.
"""

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from embedded.folder import write_private

_END_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Child:
    pid: int
    birth: str
    """What tells this process from a later one with the same pid."""
    death_signal: int


class ChildRecord:
    """The running children of one supervisor, by name, in a file of the data folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._children: dict[str, Child] = {}

    def add(self, name: str, pid: int, death_signal: signal.Signals) -> None:
        birth = birth_of(pid)
        if birth is not None:
            self._children[name] = Child(pid, birth, int(death_signal))
            self._write()

    def remove(self, name: str) -> None:
        if self._children.pop(name, None) is not None:
            self._write()

    def end_leftovers(self) -> list[str]:
        """End every child an earlier supervisor noted that still runs; its names."""
        left = {name: child for name, child in self._read().items() if _runs(child)}
        for child in left.values():
            _send(child, child.death_signal)
        deadline = time.monotonic() + _END_TIMEOUT_SECONDS
        while any(map(_runs, left.values())) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for child in filter(_runs, left.values()):
            _send(child, signal.SIGKILL)
        self._path.unlink(missing_ok=True)
        return sorted(left)

    def _read(self) -> dict[str, Child]:
        try:
            noted = json.loads(self._path.read_text())
            return {name: Child(**child) for name, child in noted.items()}
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    def _write(self) -> None:
        noted = {name: asdict(child) for name, child in self._children.items()}
        write_private(self._path, json.dumps(noted))


def birth_of(pid: int) -> str | None:
    """Boot and start time of a running process; None where it has ended, or cannot be told."""
    try:
        # The name in parentheses may hold anything; what follows the last one is fixed.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}/{start_ticks}"


def _runs(child: Child) -> bool:
    return birth_of(child.pid) == child.birth


def _send(child: Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)
