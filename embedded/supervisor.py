"""Keeps a set of processes running: started in order, restarted when they die, stopped together."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from embedded.errors import StackRefused
from embedded.folder import DataFolder
from embedded.launch import tethered
from embedded.leftovers import ChildRecord

_POLL_SECONDS: Final = 0.05
_PROGRESS_SECONDS: Final = 2.0
_FIRST_BACK_OFF_SECONDS: Final = 0.1
_LONGEST_BACK_OFF_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 30.0
"""Whoever ran this long before it died is restarted without much delay again."""

Announce = Callable[[str], None]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Component:
    """One process of the stack, and how to tell that it works."""

    name: str
    command: Sequence[str]
    is_ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str]
    working_folder: Path
    before_start: Callable[[], None] = _nothing
    """Called before each start, restarts included."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel if the supervisor dies."""
    identity: str = "self"
    start_timeout_seconds: float = 60.0
    stop_timeout_seconds: float = 10.0
    start_tries: int = 1
    """How often the first start is tried before it is given up."""


@dataclass
class _Running:
    component: Component
    process: asyncio.subprocess.Process
    started_at: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None
    restarts: int = 0


class Supervisor:
    """Runs components as children of the calling thread, which must outlive them.

    The kernel ends a child with the thread that started it: use it from the main thread's loop.
    """

    def __init__(self, folder: DataFolder, announce: Announce) -> None:
        self._folder = folder
        self._announce = announce
        self._record = ChildRecord(folder.run / "children.json")
        self._running: dict[str, _Running] = {}
        self._hurry = asyncio.Event()

    def end_leftovers(self) -> None:
        """End what an earlier supervisor of this folder left behind; call it before any start."""
        for name in self._record.end_leftovers():
            self._announce(f"ended {name}, left over from an earlier run")

    async def start(self, component: Component) -> None:
        """Start it and return once it is ready; from then on it is restarted when it dies.

        Raises StackRefused, with the end of its log, where it does not become ready.
        """
        for tries_left in reversed(range(component.start_tries)):
            running = await self._spawn(component)
            try:
                await self._until_ready(running)
                break
            except StackRefused:
                await self.stop(component.name)
                if not tries_left:
                    raise
                await asyncio.sleep(_FIRST_BACK_OFF_SECONDS)
        running.keeper = asyncio.create_task(self._keep(running))

    async def stop(self, name: str) -> None:
        """Stop it for good: by its stop signal, after its time-out by SIGKILL."""
        running = self._running.get(name)
        if running is None:
            return
        if running.keeper is not None:
            running.keeper.cancel()
            await asyncio.wait([running.keeper])
        await self._end(running)
        del self._running[name]

    async def stop_all(self) -> None:
        """Stop everything, the last started first."""
        for name in reversed(list(self._running)):
            await self.stop(name)

    def hurry(self) -> None:
        """Have every stop, also one under way, kill at once instead of waiting."""
        self._hurry.set()

    def pid(self, name: str) -> int:
        return self._running[name].process.pid

    def restarts(self, name: str) -> int:
        return self._running[name].restarts

    async def kill(self, name: str) -> None:
        """SIGKILL, as an accident would; the component is then restarted."""
        running = self._running[name]
        process = running.process
        running.ready.clear()
        process.kill()
        await process.wait()

    async def until_ready(self, name: str) -> None:
        """Wait until it is ready, again if need be."""
        await self._running[name].ready.wait()

    async def _spawn(self, component: Component) -> _Running:
        name = component.name
        self._folder.rotate_log(name)
        component.before_start()
        command = tethered(
            component.command,
            parent=os.getpid(),
            death_signal=component.death_signal,
            identity=component.identity,
        )
        log = os.open(self._folder.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=component.working_folder,
                env=dict(component.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        now = asyncio.get_running_loop().time()
        running = self._running.setdefault(name, _Running(component, process, now))
        running.process, running.started_at = process, now
        self._record.add(name, process.pid, component.death_signal)
        return running

    async def _until_ready(self, running: _Running) -> None:
        component = running.component
        try:
            async with asyncio.timeout(component.start_timeout_seconds):
                await self._with_progress(self._poll(running), f"{component.name} is starting")
        except TimeoutError:
            raise self._failed(
                component.name,
                f"{component.name} was not ready within {component.start_timeout_seconds:g} s",
            ) from None
        running.ready.set()

    async def _poll(self, running: _Running) -> None:
        process = running.process
        while process.returncode is None:
            if await running.component.is_ready() and process.returncode is None:
                return
            await asyncio.sleep(_POLL_SECONDS)
        name = running.component.name
        raise self._failed(name, f"{name} {_manner(process.returncode)} while starting")

    async def _keep(self, running: _Running) -> None:
        component = running.component
        loop = asyncio.get_running_loop()
        back_off = _FIRST_BACK_OFF_SECONDS
        while True:
            status = await running.process.wait()
            running.ready.clear()
            self._record.remove(component.name)
            if loop.time() - running.started_at >= _STEADY_SECONDS:
                back_off = _FIRST_BACK_OFF_SECONDS
            self._announce(
                f"{component.name} {_manner(status)}; starting it again"
                f" (its log: {self._folder.log(component.name)})"
            )
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, _LONGEST_BACK_OFF_SECONDS)
            running.restarts += 1
            try:
                await self._spawn(component)
                await self._until_ready(running)
                self._announce(f"{component.name} is ready again")
            except (StackRefused, OSError) as problem:
                self._announce(str(problem).partition("\n")[0])
                await self._end(running)

    async def _end(self, running: _Running) -> None:
        component, process = running.component, running.process
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(component.stop_signal)
            if not await self._ends_in_time(running):
                self._announce(f"{component.name} does not stop; killing it")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        self._record.remove(component.name)

    async def _ends_in_time(self, running: _Running) -> bool:
        async def ended_or_hurried() -> None:
            ended = asyncio.create_task(running.process.wait())
            hurried = asyncio.create_task(self._hurry.wait())
            try:
                await asyncio.wait((ended, hurried), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                hurried.cancel()

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(running.component.stop_timeout_seconds):
                await self._with_progress(
                    ended_or_hurried(), f"{running.component.name} is finishing its work"
                )
        return running.process.returncode is not None

    async def _with_progress(self, work: Coroutine[Any, Any, object], what: str) -> None:
        task = asyncio.create_task(work)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not (await asyncio.wait((task,), timeout=_PROGRESS_SECONDS))[0]:
                self._announce(f"{what} ({loop.time() - began:.0f} s)")
            await task
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def _failed(self, name: str, what: str) -> StackRefused:
        path = self._folder.log(name)
        return StackRefused(f"{what}; its log, {path}, ends:\n{_tail(path)}")


_TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 16_000
_LINE_LIMIT: Final = 600


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {_shortened(line)}" for line in lines[-_TAIL_LINES:])


def _shortened(line: str) -> str:
    half = _LINE_LIMIT // 2
    return line if len(line) <= _LINE_LIMIT else f"{line[:half]} … {line[-half:]}"


def _manner(status: int | None) -> str:
    if status is None:
        return "runs on"
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"
