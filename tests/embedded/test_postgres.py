"""Whom PostgreSQL runs as, and the data folders it refuses."""

import contextlib
import os
import pwd
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from embedded import postgres
from embedded.errors import StackRefused
from embedded.launch import free_port, tethered
from embedded.leftovers import birth_of
from embedded.postgres import STOP_SIGNAL, PostgresServer, major_version
from tests.fixtures.servers import running_server, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL runs as it is for normal users")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Pytest's own folders are private, which is the point of one test only."""
    with tempfile.TemporaryDirectory(prefix="everbill-tests-") as path:
        yield Path(path)


def _server(folder: Path) -> PostgresServer:
    return PostgresServer(
        folder / "data" / "postgres", free_port(), secrets.token_hex(8), durable=False
    )


async def _run_and_stop(server: PostgresServer, log: Path) -> tuple[int, int]:
    """Start it, add a row, stop it; the rows it then held and the user it ran as."""
    prepared = server.prepare()
    with running_server(prepared.command(), log, STOP_SIGNAL, prepared.identity) as process:
        await wait_until(server.is_ready, process, log)
        async with await psycopg.AsyncConnection.connect(server.url()) as connection:
            await connection.execute("create table if not exists kept (run int)")
            await connection.execute("insert into kept values (1)")
            cursor = await connection.execute("select count(*) from kept")
            row = await cursor.fetchone()
        user = _user_of(process.pid)
    assert process.returncode == 0
    assert row is not None
    return row[0], user


def _user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@as_root
async def test_root_without_namespaces_runs_it_as_nobody_and_can_go_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, log = _server(folder), folder / "log"
    os.chmod(folder, 0o701)
    monkeypatch.setattr(postgres, "_works", lambda _: False)
    assert await _run_and_stop(server, log) == (1, pwd.getpwnam("nobody").pw_uid)
    monkeypatch.undo()
    assert await _run_and_stop(server, log) == (2, 0)


@as_root
def test_roots_postgres_sees_itself_as_a_user_with_a_name(folder: Path) -> None:
    prepared = _server(folder).prepare()
    command = tethered(["id", "-un"], parent=os.getpid(), identity=prepared.identity)
    seen = subprocess.run(command, capture_output=True, text=True, check=True)
    assert pwd.getpwnam(seen.stdout.strip()).pw_uid != 0


@as_root
def test_a_folder_that_nobody_may_not_enter_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_works", lambda _: False)
    with pytest.raises(
        StackRefused, match=rf"may not enter {re.escape(str(folder))}: set EVERBILL"
    ):
        _server(folder).prepare()


@as_root
def test_as_root_a_folder_of_another_user_is_named_when_it_is_closed(folder: Path) -> None:
    closed = folder / "home"
    closed.mkdir(mode=0o700)
    os.chown(closed, 1234, 1234)
    with pytest.raises(StackRefused, match=rf"may not enter {re.escape(str(closed))}"):
        _server(closed).prepare()


def test_another_major_version_is_refused_with_the_commands_to_carry_it_over(folder: Path) -> None:
    server = _server(folder)
    server.cluster.mkdir(parents=True)
    (server.cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(StackRefused) as refusal:
        server.prepare()
    message = str(refusal.value)
    assert f"made by PostgreSQL 16, and this is PostgreSQL {major_version()}" in message
    assert f"pg_dumpall -h 127.0.0.1 -p {server.port}" in message
    assert f"psql -h 127.0.0.1 -p {server.port}" in message
    assert str(server.cluster) in message


async def test_it_recovers_after_kill_9_although_its_pid_was_taken_by_another(folder: Path) -> None:
    server, log = _server(folder), folder / "log"
    prepared = server.prepare()
    with running_server(prepared.command(), log, signal.SIGKILL, prepared.identity) as process:
        await wait_until(server.is_ready, process, log)
    assert birth_of(process.pid) is None
    with _stranger() as pid:
        pid_file = server.cluster / "postmaster.pid"
        lines = pid_file.read_text().split("\n")
        pid_file.write_text("\n".join([str(pid), *lines[1:]]))
        assert await _run_and_stop(server, log) == (1, os.geteuid())


@contextlib.contextmanager
def _stranger() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
