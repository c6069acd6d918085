"""What a stack is told: where its data lives, which ports it takes, what its processes inherit."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Self

from embedded.errors import StackRefused
from embedded.launch import LOOPBACK, free_port, port_is_free

PROJECT: Final = Path(__file__).resolve().parent.parent
COMPONENTS: Final = ("postgresql", "temporal", "sandbox", "worker", "api")

_DATA_DIR_SETTING: Final = "EVERBILL_DATA_DIR"
_DEFAULT_DATA_DIR: Final = ".everbill"
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True)
class Ports:
    """The loopback ports people meet; each is a setting, `EVERBILL_<NAME>_PORT`."""

    api: int = 8000
    sandbox: int = 8001
    temporal: int = 7233
    temporal_ui: int = 8233
    postgres: int = 5433

    @classmethod
    def free(cls) -> Self:
        """Ports that nothing listens on now."""
        return cls(**{each.name: free_port() for each in fields(cls)})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises StackRefused naming a setting that is no port, or two that are the same one."""
        ports = cls(
            **{
                each.name: _port(_setting(each.name), text)
                for each in fields(cls)
                if (text := environment.get(_setting(each.name), "").strip())
            }
        )
        owners: dict[int, str] = {}
        for each in fields(cls):
            port, setting = getattr(ports, each.name), _setting(each.name)
            if port in owners:
                raise StackRefused(f"{owners[port]} and {setting} are both {port}; change one")
            owners[port] = setting
        return ports

    def refuse_taken(self, *names: str) -> None:
        """Raises StackRefused naming each of these ports that another program holds."""
        taken = [
            f"port {port} on {LOOPBACK} is in use by another program: stop that program, or set"
            f" {_setting(name)} to a free port"
            for name in names
            if not port_is_free(port := getattr(self, name))
        ]
        if taken:
            raise StackRefused("\n".join(taken))


def _setting(name: str) -> str:
    return f"EVERBILL_{name.upper()}_PORT"


def _port(setting: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _HIGHEST_PORT:
        return int(text)
    raise StackRefused(f"{setting}: {text!r} is not a port; give a number from 1 to 65535")


@dataclass(frozen=True)
class StackOptions:
    """`environment` is what the stack's processes inherit, and holds the settings that win.

    With DATABASE_URL in it no PostgreSQL is started, with TEMPORAL_ADDRESS no Temporal, and a
    gateway whose settings it holds is not the sandbox's.
    """

    data_dir: Path
    ports: Ports
    environment: Mapping[str, str] = field(default_factory=dict)
    components: frozenset[str] = frozenset(COMPONENTS)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        components: frozenset[str] = frozenset(COMPONENTS),
    ) -> Self:
        """As the settings say, or by their defaults. Raises StackRefused naming a bad one."""
        return cls(
            data_dir_of(environment),
            Ports.from_environment(environment),
            dict(environment),
            components,
        )

    @classmethod
    def isolated(cls, data_dir: Path, **settings: str) -> Self:
        """Free ports, and none of this process's settings: beside whatever else runs."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EVERBILL_", "TEMPORAL_", "PG")) and name != "DATABASE_URL"
        }
        return cls(data_dir, Ports.free(), {**inherited, **settings})

    @property
    def has_own_database(self) -> bool:
        return bool(self.environment.get("DATABASE_URL"))

    @property
    def has_own_temporal(self) -> bool:
        return bool(self.environment.get("TEMPORAL_ADDRESS"))

    def runs(self, component: str) -> bool:
        """Whether the stack itself runs this component."""
        elsewhere = {"postgresql": self.has_own_database, "temporal": self.has_own_temporal}
        return component in self.components and not elsewhere.get(component, False)

    def port_names(self) -> list[str]:
        """The ports that this stack is going to listen on."""
        listeners = {
            "postgresql": ["postgres"],
            "temporal": ["temporal", "temporal_ui"],
            "sandbox": ["sandbox"],
            "api": ["api"],
        }
        return [
            name for component, names in listeners.items() if self.runs(component) for name in names
        ]


def data_dir_of(environment: Mapping[str, str]) -> Path:
    """Where a stack with these settings keeps its data; relative to the project's root."""
    return PROJECT / (environment.get(_DATA_DIR_SETTING) or _DEFAULT_DATA_DIR)
