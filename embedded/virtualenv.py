"""Makes `.venv` from a lock file, once: `python3 embedded/virtualenv.py requirements.lock`.

Run as a script by the machine's own Python, with nothing installed; hence the standard library
alone, and no syntax that an older Python could not even read before it is told that it is too old.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

OLDEST_PYTHON = (3, 11)
RUNTIME_LOCK = "requirements.lock"
DEVELOPMENT_LOCK = "requirements-dev.lock"
"""Holds everything of the runtime lock, and what tests and checks need."""

_COMMAND = """#!/bin/sh
cd "$(dirname "$0")/../.." && exec .venv/bin/python -m cli "$@"
"""


class CannotSetUp(Exception):
    """The message says what is missing, and what to do."""


def set_up(project: Path, lock: str) -> None:
    """Bring `.venv` up to the lock; nothing happens where it already is.

    An installation that was interrupted is begun afresh. Two at a time wait for each other.
    """
    with _turn(project):
        if not _is_current(project, lock):
            _install(project, lock)
        _write_command(project)


def _is_current(project: Path, lock: str) -> bool:
    return _python_runs(project) and any(
        _stamp(project, installed).is_file()
        and _stamp(project, installed).read_text() == _fingerprint(project, installed)
        for installed in {lock, DEVELOPMENT_LOCK}
    )


def _install(project: Path, lock: str) -> None:
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        raise CannotSetUp(
            f"Everbill needs Python 3.11 or newer, and {sys.executable} is {found}:"
            " install one, and name it if it is not python3, as in `make PYTHON=python3.12 up`"
        )
    began = time.monotonic()
    unfinished = project / ".venv" / "unfinished"
    if unfinished.exists() or not _python_runs(project):
        _say("making the virtual environment .venv")
        _make_environment(project)
    unfinished.touch()
    _say(f"installing {lock} (once; a minute or two)")
    pip = [
        *(str(_python(project)), "-m", "pip", "install", "--require-hashes"),
        *("--disable-pip-version-check", "--no-input", "--requirement", lock),
    ]
    if subprocess.run(pip, cwd=project, check=False).returncode != 0:
        raise CannotSetUp(
            f"pip could not install {lock}; its message is above. Once that is mended, run the"
            " same command again"
        )
    _stamp(project, lock).write_text(_fingerprint(project, lock))
    unfinished.unlink()
    _say(f"ready after {time.monotonic() - began:.0f} s")


def _make_environment(project: Path) -> None:
    folder = project / ".venv"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "venv", str(folder)]
    if subprocess.run(command, check=False).returncode != 0:
        raise CannotSetUp(
            f"{sys.executable} could not make {folder}: the folder must be writable, and on Debian"
            " and Ubuntu the package python3-venv must be installed"
        )


def _write_command(project: Path) -> None:
    path = project / ".venv" / "bin" / "everbill"
    if path.is_file() and path.read_text() == _COMMAND:
        return
    fresh = path.with_suffix(".new")
    fresh.write_text(_COMMAND)
    fresh.chmod(0o755)
    fresh.replace(path)


def _python(project: Path) -> Path:
    return project / ".venv" / "bin" / "python"


def _python_runs(project: Path) -> bool:
    """False also where the Python that the environment was made with is gone or too old."""
    test = f"import pip, sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    try:
        done = subprocess.run([str(_python(project)), "-c", test], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _stamp(project: Path, lock: str) -> Path:
    return project / ".venv" / f"{lock}.installed"


def _fingerprint(project: Path, lock: str) -> str:
    locks = sorted({RUNTIME_LOCK, lock})
    return hashlib.sha256(b"".join((project / name).read_bytes() for name in locks)).hexdigest()


class _turn:  # noqa: N801 used as a statement, `with _turn(project):`
    """One set-up of a project at a time; the lock is on the folder itself and leaves no file."""

    def __init__(self, project: Path) -> None:
        self._folder = os.open(project, os.O_RDONLY)

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say("waiting for another set-up of this folder")
            fcntl.flock(self._folder, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)


def _say(text: str) -> None:
    sys.stdout.write(f"set-up: {text}\n")
    sys.stdout.flush()


def main() -> None:
    try:
        set_up(Path(__file__).resolve().parent.parent, sys.argv[1])
    except CannotSetUp as problem:
        sys.exit(f"set-up: {problem}")
    except OSError as problem:
        sys.exit(f"set-up: {problem}; make the folder .venv writable, or remove it")
    except KeyboardInterrupt:
        sys.exit("set-up: interrupted; run the same command again to finish it")


if __name__ == "__main__":
    main()
