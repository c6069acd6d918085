"""Restarts, orderly stops, and nothing left behind, whoever is killed."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedded.errors import StackRefused
from embedded.folder import DataFolder
from embedded.leftovers import ChildRecord, birth_of
from embedded.options import PROJECT
from embedded.supervisor import Supervisor
from tests.embedded.supervised import NAMES, pid_file_of, stand_in

_SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    held = DataFolder(tmp_path / "data")
    held.hold()
    yield held
    held.release()


async def test_what_dies_is_restarted_with_a_message(folder: DataFolder) -> None:
    told: list[str] = []
    supervisor = Supervisor(folder, told.append)
    await supervisor.start(stand_in(folder, "first"))
    killed = supervisor.pid("first")
    await supervisor.kill("first")
    await supervisor.until_ready("first")
    assert supervisor.pid("first") != killed
    assert supervisor.restarts("first") == 1
    await supervisor.stop_all()
    assert "first was ended by SIGKILL; starting it again" in told[0]
    assert told[-1] == "first is ready again"


async def test_who_does_not_stop_in_time_is_killed(folder: DataFolder) -> None:
    told: list[str] = []
    supervisor = Supervisor(folder, told.append)
    await supervisor.start(stand_in(folder, "first", slow_seconds=600))
    pid = supervisor.pid("first")
    await supervisor.stop_all()
    assert birth_of(pid) is None
    assert told == ["first does not stop; killing it"]


async def test_a_hurried_stop_waits_for_nobody(folder: DataFolder) -> None:
    supervisor = Supervisor(folder, lambda _: None)
    endless = replace(stand_in(folder, "first", slow_seconds=600), stop_timeout_seconds=600.0)
    await supervisor.start(endless)
    pid = supervisor.pid("first")
    stopping = asyncio.create_task(supervisor.stop_all())
    supervisor.hurry()
    await stopping
    assert birth_of(pid) is None


async def test_all_stop_in_reverse_order(folder: DataFolder) -> None:
    supervisor = Supervisor(folder, lambda _: None)
    log = folder.path / "order"
    for name in NAMES:
        script = (
            "import signal, sys\n"
            f"signal.signal(signal.SIGTERM, lambda *_: (open({str(log)!r}, 'a').write('{name} '),"
            f" sys.exit(0)))\nopen({str(pid_file_of(folder.path, name))!r}, 'w').write('up')\n"
            "signal.pause()"
        )
        component = stand_in(folder, name)
        await supervisor.start(replace(component, command=[sys.executable, "-c", script]))
    await supervisor.stop_all()
    assert log.read_text().split() == ["second", "first"]


async def test_a_failing_start_tells_the_end_of_its_log(folder: DataFolder) -> None:
    supervisor = Supervisor(folder, lambda _: None)
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.exit('no such gateway')"]
    with pytest.raises(StackRefused, match="ended with status 1 while starting") as refusal:
        await supervisor.start(replace(stand_in(folder, "first"), command=command))
    assert "no such gateway" in str(refusal.value)
    assert str(folder.log("first")) in str(refusal.value)


def test_sigterm_stops_the_children(tmp_path: Path) -> None:
    with _supervisor_process(tmp_path) as supervisor:
        pids = _children(tmp_path)
        supervisor.terminate()
        assert supervisor.wait() == 0
    assert [pid for pid in pids if birth_of(pid)] == []


def test_kill_9_of_the_supervisor_leaves_no_child_and_it_starts_again(tmp_path: Path) -> None:
    with _supervisor_process(tmp_path) as supervisor:
        pids = _children(tmp_path)
        supervisor.kill()
        supervisor.wait()
        _wait_for_end(pids)
    with _supervisor_process(tmp_path):
        assert set(_children(tmp_path)).isdisjoint(pids)


def test_a_child_left_over_is_ended_by_the_next_start(tmp_path: Path) -> None:
    orphan = subprocess.Popen(_SLEEPER)
    noted = ChildRecord(tmp_path / "children.json")
    noted.add("worker", orphan.pid, signal.SIGKILL)
    assert ChildRecord(tmp_path / "children.json").end_leftovers() == ["worker"]
    assert orphan.wait() == -signal.SIGKILL
    assert ChildRecord(tmp_path / "children.json").end_leftovers() == []


def test_a_stranger_with_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "children.json"
    with subprocess.Popen(_SLEEPER) as stranger:
        ChildRecord(path).add("worker", stranger.pid, signal.SIGKILL)
        born = birth_of(stranger.pid)
        assert born is not None
        path.write_text(path.read_text().replace(born, "another boot/1"))
        assert ChildRecord(path).end_leftovers() == []
        assert birth_of(stranger.pid) == born
        stranger.kill()


def test_two_cannot_hold_one_folder(folder: DataFolder) -> None:
    with pytest.raises(StackRefused, match=r"in use by another everbill .*EVERBILL_DATA_DIR"):
        DataFolder(folder.path).hold()
    folder.release()
    again = DataFolder(folder.path)
    again.hold()
    again.release()


@contextlib.contextmanager
def _supervisor_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.embedded.supervised", str(folder)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _children(folder: Path) -> list[int]:
    pids = [int(pid_file_of(folder, name).read_text()) for name in NAMES]
    assert all(birth_of(pid) for pid in pids)
    return pids


def _wait_for_end(pids: list[int]) -> None:
    for _ in range(200):
        if not any(birth_of(pid) for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail(f"still running: {[pid for pid in pids if birth_of(pid)]}")
