"""The whole stack on free ports, and what stops it from starting."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from embedded import access
from embedded.errors import StackRefused
from embedded.folder import DataFolder
from embedded.launch import free_port, port_is_free
from embedded.leftovers import birth_of
from embedded.options import COMPONENTS, Ports, StackOptions
from embedded.running import adopt_running_stack
from embedded.stack import Stack


async def test_it_starts_publishes_restarts_and_leaves_nothing(tmp_path: Path) -> None:
    options = StackOptions.isolated(tmp_path / "data")
    stack = Stack(options)
    async with stack:
        published = stack.folder.address_file
        assert stat.S_IMODE(_mode(published)) == 0o600
        assert stat.S_IMODE(_mode(stack.folder.path)) == 0o700
        assert f"EVERBILL_API_KEY={stack.api_key}\n" in _text(published)

        async with httpx.AsyncClient(trust_env=False) as client:
            for address in (stack.addresses.openapi, stack.addresses.temporal_ui):
                assert address is not None
                answer = await client.get(address, follow_redirects=True)
                assert answer.status_code == 200
            history = f"{stack.addresses.api}/api/v1/payment/history"
            old = {"Authorization": f"Bearer {stack.api_key}"}
            assert (await client.get(history, headers=old)).status_code == 200
            renewed = await access.renew_key(
                stack.environment["DATABASE_URL"], stack.environment["EVERBILL_ENCRYPTION_KEYS"]
            )
            assert (await client.get(history, headers=old)).status_code == 401
            new = {"Authorization": f"Bearer {renewed}"}
            assert (await client.get(history, headers=new)).status_code == 200

        found = {"EVERBILL_DATA_DIR": str(options.data_dir)}
        assert adopt_running_stack(found)
        assert found["DATABASE_URL"] == stack.environment["DATABASE_URL"]

        killed = stack.pid("worker")
        await stack.kill("worker")
        await stack.until_ready("worker")
        pids = {name: stack.pid(name) for name in COMPONENTS}
        assert pids["worker"] != killed

    assert [name for name, pid in pids.items() if birth_of(pid)] == []
    assert not published.exists()
    assert not adopt_running_stack({"EVERBILL_DATA_DIR": str(options.data_dir)})
    assert all(port_is_free(getattr(options.ports, name)) for name in options.port_names())


async def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    options = StackOptions.isolated(tmp_path)
    with _listener() as (sandbox, api):
        options = replace(options, ports=replace(options.ports, sandbox=sandbox, api=api))
        with pytest.raises(StackRefused) as refusal:
            await Stack(options).__aenter__()
    assert str(refusal.value).splitlines() == [
        f"port {port} on 127.0.0.1 is in use by another program: stop that program, or set"
        f" {setting} to a free port"
        for port, setting in ((sandbox, "EVERBILL_SANDBOX_PORT"), (api, "EVERBILL_API_PORT"))
    ]


async def test_a_second_stack_on_one_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    first = DataFolder(tmp_path)
    first.hold()
    first.write_addresses({"EVERBILL_URL": "http://127.0.0.1:8000"}, {})
    with pytest.raises(StackRefused, match=rf"in use by another everbill \(process {os.getpid()}"):
        await Stack(StackOptions.isolated(tmp_path)).__aenter__()
    assert first.address_file.exists()
    first.release()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = StackOptions.isolated(tmp_path / "file" / "data")
    with pytest.raises(StackRefused, match=r"file/data cannot be used: .*EVERBILL_DATA_DIR"):
        await Stack(options).__aenter__()


async def test_a_folder_of_another_major_version_is_refused_and_nothing_runs(
    tmp_path: Path,
) -> None:
    cluster = tmp_path / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("15\n")
    stack = Stack(StackOptions.isolated(tmp_path))
    with pytest.raises(StackRefused, match="made by PostgreSQL 15"):
        await stack.__aenter__()
    assert all(port_is_free(getattr(stack.options.ports, name)) for name in ("temporal", "sandbox"))
    again = DataFolder(tmp_path)
    again.hold()
    again.release()


def test_own_database_and_temporal_are_used_instead_of_embedded_ones(tmp_path: Path) -> None:
    options = StackOptions.isolated(
        tmp_path, DATABASE_URL="postgresql://db.internal/everbill", TEMPORAL_ADDRESS="t:7233"
    )
    assert [name for name in COMPONENTS if options.runs(name)] == ["sandbox", "worker", "api"]
    assert options.port_names() == ["sandbox", "api"]


def test_ports_come_from_settings_and_bad_ones_are_named() -> None:
    assert Ports.from_environment({"EVERBILL_TEMPORAL_UI_PORT": "9000"}).temporal_ui == 9000
    assert Ports.from_environment({"EVERBILL_API_PORT": ""}) == Ports()
    for text in ("80a", "0", "65536", "-1", "８０"):
        with pytest.raises(StackRefused, match=r"EVERBILL_API_PORT: .* is not a port"):
            Ports.from_environment({"EVERBILL_API_PORT": text})
    with pytest.raises(StackRefused, match="EVERBILL_API_PORT and EVERBILL_SANDBOX_PORT are both"):
        Ports.from_environment({"EVERBILL_API_PORT": "8001"})


def _mode(path: Path) -> int:
    return path.stat().st_mode


def _text(path: Path) -> str:
    return path.read_text()


@contextlib.contextmanager
def _listener() -> Iterator[tuple[int, int]]:
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", free_port()))
            listener.listen()
        yield one.getsockname()[1], other.getsockname()[1]
