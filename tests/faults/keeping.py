"""Workers with crash points, as a test starts and kills them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from embedded.launch import tethered

_ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 40


class KeptWorkers:
    """One worker for each of `places` (see `tests.faults.worker`), replaced whenever it dies.

    `environment` holds the settings of the house they work in, `folder` all they leave behind.
    """

    def __init__(self, folder: Path, places: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log = folder / "workers.log"
        self._folder = folder
        self._places = places
        self._environment = environment
        self._keeper: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns once every one of them polls."""
        keeper = self._keeper = self._launch()
        async with asyncio.timeout(_START_TIMEOUT_SECONDS):
            while len(list(self._folder.glob("*.ready"))) < len(self._places):
                if keeper.poll() is not None:
                    pytest.fail(f"the workers ended while starting:\n{self.log.read_text()}")
                await asyncio.sleep(0.05)

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.faults.worker", str(self._folder), *self._places]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EVERBILL_", "TEMPORAL_")) and name != "DATABASE_URL"
        }
        with self.log.open("wb") as output:
            return subprocess.Popen(
                tethered(command, parent=os.getpid()),
                cwd=_ROOT,
                env=inherited | dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, place: str) -> set[int]:
        """SIGKILL every worker in that place; their pids."""
        pids = {int(file.read_text()) for file in self._folder.glob(f"*-{place}.pid")}
        for pid in pids:
            # One that has just died by itself may not have been replaced yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    async def kill_all(self) -> set[int]:
        """SIGKILL all of them at once, none of which is replaced; their pids."""
        keeper, self._keeper = self._keeper, None
        assert keeper is not None, "they were not started"
        pids = {int(file.read_text()) for file in self._folder.glob("*.pid")}
        # Theirs comes from the kernel, as their keeper ends.
        keeper.kill()
        keeper.wait()
        async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
            while any(_is_running(pid) for pid in pids):
                await asyncio.sleep(0.01)
        return pids

    @property
    def dead(self) -> set[int]:
        """The pids of the workers that SIGKILL has ended."""
        record = self._folder / "deaths"
        return {int(pid) for pid in record.read_text().split()} if record.exists() else set()

    async def stop(self) -> None:
        """Fails the test if one of them had ended by itself, or does not end in order."""
        if self._keeper is None:
            return
        self._keeper.terminate()
        try:
            code = await asyncio.to_thread(self._keeper.wait, _STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            raise
        if code != 0:
            pytest.fail(f"a worker ended with {code}:\n{self.log.read_text()[-4000:]}")


def _is_running(pid: int) -> bool:
    """Whether it still does anything: a dead one may wait to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
