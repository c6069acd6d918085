"""`everbill up` as a process: signals, kill -9, and refusals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from embedded.launch import free_port, port_is_free
from embedded.leftovers import birth_of
from embedded.options import PROJECT

_UP = [sys.executable, "-m", "cli", "up", "--only", "postgresql"]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "EVERBILL_DATA_DIR": str(tmp_path / "data"),
        "EVERBILL_POSTGRES_PORT": str(free_port()),
    }


def test_kill_9_leaves_no_server_and_the_next_start_works_until_ctrl_c(
    settings: dict[str, str],
) -> None:
    with _up(settings) as up:
        postmaster = _postmaster(settings)
        assert birth_of(postmaster) is not None
        up.kill()
        up.wait()
        _wait_for_end(postmaster)
    with _up(settings) as up:
        assert _postmaster(settings) != postmaster
        up.send_signal(signal.SIGINT)
        output, _ = up.communicate()
    assert up.returncode == 0
    assert output.endswith("stopped; the data stays\n")
    assert birth_of(_noted(settings).get("postgresql", {}).get("pid", postmaster)) is None
    assert port_is_free(int(settings["EVERBILL_POSTGRES_PORT"]))


def test_what_it_refuses_is_said_in_words_and_fails(settings: dict[str, str]) -> None:
    settings["EVERBILL_POSTGRES_PORT"] = "5433x"
    done = subprocess.run(
        _UP, cwd=PROJECT, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "everbill up: EVERBILL_POSTGRES_PORT: '5433x' is not a port; give a number from 1 to"
        " 65535\n"
    )


@contextlib.contextmanager
def _up(settings: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        _UP, cwd=PROJECT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    told = []
    try:
        for line in process.stdout:
            told.append(line)
            if line.startswith("ready after"):
                break
        else:
            pytest.fail(f"it ended early:\n{''.join(told)}")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _noted(settings: Mapping[str, str]) -> dict[str, dict[str, int]]:
    record = Path(settings["EVERBILL_DATA_DIR"]) / "run" / "children.json"
    noted: dict[str, dict[str, int]] = json.loads(record.read_text())
    return noted


def _postmaster(settings: Mapping[str, str]) -> int:
    return _noted(settings)["postgresql"]["pid"]


def _wait_for_end(pid: int) -> None:
    for _ in range(400):
        if birth_of(pid) is None:
            return
        time.sleep(0.05)
    pytest.fail(f"the process {pid} still runs")
