"""The set-up behind every make target, with locks that need nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedded import virtualenv
from embedded.options import PROJECT
from embedded.virtualenv import DEVELOPMENT_LOCK, RUNTIME_LOCK


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project") / "of a name with spaces"
    for folder in ("embedded", "cli"):
        (copy / folder).mkdir(parents=True)
    shutil.copy(PROJECT / "embedded" / "virtualenv.py", copy / "embedded")
    (copy / "cli" / "__main__.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])")
    for lock in (RUNTIME_LOCK, DEVELOPMENT_LOCK):
        (copy / lock).write_text("# nothing\n")
    return copy


def _set_up(project: Path, lock: str = RUNTIME_LOCK) -> str:
    script = str(project / "embedded" / "virtualenv.py")
    done = subprocess.run(
        [sys.executable, script, lock], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_set_up_begins_an_interrupted_one_afresh_and_is_then_done(project: Path) -> None:
    # As a kill in the middle of an installation leaves it.
    broken = project / ".venv" / "lib" / "half_a_package"
    broken.mkdir(parents=True)
    (project / ".venv" / "unfinished").touch()

    assert "making the virtual environment" in _set_up(project, DEVELOPMENT_LOCK)
    assert not broken.exists()
    assert _set_up(project, DEVELOPMENT_LOCK) == ""
    assert _set_up(project, RUNTIME_LOCK) == ""

    (project / RUNTIME_LOCK).write_text("# another lock\n")
    renewed = _set_up(project, RUNTIME_LOCK)
    assert f"installing {RUNTIME_LOCK}" in renewed
    assert "making the virtual environment" not in renewed

    command = [str(project / ".venv" / "bin" / "everbill"), "keys", "two words"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert ran.stdout.strip() == f"{project} ['keys', 'two words']"


def test_an_old_python_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtualenv, "OLDEST_PYTHON", (99, 0))
    for lock in (RUNTIME_LOCK, DEVELOPMENT_LOCK):
        (tmp_path / lock).touch()
    with pytest.raises(virtualenv.CannotSetUp, match=r"needs Python 3\.11 or newer, and .* is 3"):
        virtualenv.set_up(tmp_path, RUNTIME_LOCK)
