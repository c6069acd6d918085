"""A supervisor of stand-in components in a process of its own, for tests that kill it.

`python -m tests.embedded.supervised FOLDER` prints `ready` and then runs until SIGTERM.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from embedded.folder import DataFolder
from embedded.supervisor import Component, Supervisor

NAMES = ("first", "second")

# Writes its pid once it runs, and takes a while to stop if it is told to be slow.
_STAND_IN = """
import os, signal, sys, time
ready, slow = sys.argv[1:]
def stop(*_):
    time.sleep(float(slow))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(ready, "w").write(str(os.getpid()))
while True:
    time.sleep(60)
"""


def stand_in(folder: DataFolder, name: str, *, slow_seconds: float = 0.0) -> Component:
    pid_file = pid_file_of(folder.path, name)

    async def is_ready() -> bool:
        return await asyncio.to_thread(lambda: pid_file.exists() and pid_file.read_text() != "")

    return Component(
        name=name,
        command=[sys.executable, "-I", "-S", "-c", _STAND_IN, str(pid_file), str(slow_seconds)],
        is_ready=is_ready,
        environment=dict(os.environ),
        working_folder=folder.path,
        before_start=lambda: pid_file.unlink(missing_ok=True),
        stop_timeout_seconds=1.0,
    )


def pid_file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.pid"


async def main(path: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    folder = DataFolder(path)
    folder.hold()
    supervisor = Supervisor(folder, lambda text: print(text, flush=True))  # noqa: T201
    supervisor.end_leftovers()
    for name in NAMES:
        await supervisor.start(stand_in(folder, name))
    print("ready", flush=True)  # noqa: T201
    await stop.wait()
    await supervisor.stop_all()
    folder.release()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
