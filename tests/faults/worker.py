"""Workers with crash points: `python -m tests.faults.worker FOLDER PLACE...`

They are wired as `python -m worker` wires them, and have crash points. What is started is a keeper
that loads everything once and forks a worker for each place; only these connect and work. When
SIGKILL ends one, or it could not reach Temporal, the keeper forks the next into its place, as a
supervisor would: a fork takes a twentieth of a second, a start two. A place is `core`, or the name
of the one gateway whose queue is worked on there; the same place may be given more than once.

In FOLDER, for the n-th place: `n-PLACE.pid` names the worker that is there, and `n-PLACE.ready`
exists once one has begun to poll. `deaths` has the pid of each worker that SIGKILL ended.
"""

import argparse
import asyncio
import gc
import importlib
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

from temporalio.worker._worker import load_default_build_id

from billing.payment import GatewayName
from embedded.tether import die_with
from gateways.registry import build_gateways
from runtime.ending import run_and_leave
from runtime.logs import configure_logs
from runtime.settings import load_settings
from tests.faults.crash_points import (
    CrashingGateway,
    CrashInterceptor,
    CrashPoints,
    crash_points_written,
)
from worker import run

CORE = "core"
# Of a worker that found no Temporal: a failure that passes (EX_TEMPFAIL of sysexits.h).
OUT_OF_REACH = 75

# What the first calls of a worker would load.
_LOADED_LATE = (
    "psycopg",
    "anyio._backends._asyncio",
    "stripe._object_classes",
    "stripe._charge",
    "stripe._payment_intent",
    "_strptime",
)


class Keeper:
    """Keeps a worker in each place until SIGTERM, which it passes on."""

    def __init__(self, folder: Path, places: list[str]) -> None:
        self._folder = folder
        self._places = places
        self._points = CrashPoints(folder)
        self._workers: dict[int, int] = {}
        self._is_ending = False
        self._settings = load_settings()
        self._gateways = {
            name: CrashingGateway(gateway, self._points)
            for name, gateway in build_gateways(self._settings).items()
        }
        crash_points_written(self._points)
        configure_logs("worker", self._settings.log_level)
        for module in _LOADED_LATE:
            importlib.import_module(module)
        # A hash over all loaded code, which is kept once made.
        load_default_build_id()

    def keep(self) -> int:
        """Until each worker has ended by itself; the worst of their exit codes."""
        signal.signal(signal.SIGTERM, self._pass_on)
        gc.freeze()
        codes = [0]
        for place in range(len(self._places)):
            self._fill(place)
        while self._workers:
            pid, status = os.waitpid(-1, 0)
            place = self._workers.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL:
                with (self._folder / "deaths").open("a") as deaths:
                    deaths.write(f"{pid}\n")
            if code in (-signal.SIGKILL, OUT_OF_REACH) and not self._is_ending:
                self._fill(place)
            elif code != -signal.SIGKILL:
                codes.append(abs(code))
        return max(codes)

    def _fill(self, place: int) -> None:
        keeper = os.getpid()
        # No signal may come while it is not known yet whom to pass it on to.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            die_with(keeper, signal.SIGKILL)
            run_and_leave(partial(self._work, place))
        self._workers[pid] = place
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def _work(self, place: int) -> None:
        kind = self._places[place]
        name = f"{place}-{kind}"
        (self._folder / f"{name}.pid").write_text(str(os.getpid()))
        os.environ["EVERBILL_READY_FILE"] = str(self._folder / f"{name}.ready")
        gateways = {name: each for name, each in self._gateways.items() if name == kind}
        try:
            asyncio.run(
                run(
                    self._settings,
                    "core" if kind == CORE else "gateways",
                    gateways=gateways,
                    interceptors=[CrashInterceptor(self._points)],
                )
            )
        except RuntimeError:
            traceback.print_exc()
            sys.exit(OUT_OF_REACH)

    def _pass_on(self, number: int, _frame: object) -> None:
        self._is_ending = True
        for pid in self._workers:
            os.kill(pid, number)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("places", nargs="+", choices=[CORE, *GatewayName], metavar="PLACE")
    given = parser.parse_args()
    sys.exit(Keeper(given.folder, given.places).keep())


if __name__ == "__main__":
    main()
