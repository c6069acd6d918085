"""docker-compose.yml as Compose reads it: services, and their environments filled in."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_JOB_SECONDS = 60
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")


def services() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, dict[str, Any]] = document["services"]
    return found


def interpolated() -> frozenset[str]:
    """The names that Compose looks up in .env."""
    text = (ROOT / "docker-compose.yml").read_text()
    passed_on = {
        name
        for service in services().values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return frozenset({match[1] for match in _VARIABLE.finditer(text)} | passed_on)


def environment(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """What the container of a service gets when .env holds `given`."""
    filled = {}
    for name, value in services()[service].get("environment", {}).items():
        if value is not None:
            filled[name] = _fill(value, given)
        elif name in given:
            filled[name] = given[name]
    return filled


def _fill(value: str, given: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if given.get(name):
            return given[name]
        assert kind != "?", f"{name} is required and not given: {rest}"
        return rest or ""

    return _VARIABLE.sub(one, value)


def seconds(duration: str) -> int:
    """Compose's own way of writing a duration, of seconds alone."""
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


def make_namespace(address: str, name: str) -> None:
    """Do the namespace job's work on a server of ours."""
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        ["/bin/sh", ROOT / "deploy" / "temporal" / "namespace.sh"],
        env={
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "TEMPORAL_ADDRESS": address,
            "TEMPORAL_NAMESPACE": name,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_JOB_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
