"""The data folder of one stack: its lock, its secrets, its logs and its address file."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from embedded.errors import StackRefused

_LOG_LIMIT_BYTES: Final = 10_000_000
_ENCRYPTION_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class Secrets:
    """What is made once per data folder and must stay with it."""

    postgres_password: str
    owner_password: str
    application_password: str
    encryption_keys: str
    """In the form of EVERBILL_ENCRYPTION_KEYS."""
    codec_path: str
    """The path on the API under which the Temporal UI has payloads decoded."""

    @classmethod
    def make(cls) -> Self:
        key = base64.b64encode(secrets.token_bytes(_ENCRYPTION_KEY_BYTES)).decode()
        return cls(
            postgres_password=secrets.token_hex(16),
            owner_password=secrets.token_hex(16),
            application_password=secrets.token_hex(16),
            encryption_keys=f"embedded-1:{key}",
            codec_path=f"/codec/{secrets.token_hex(16)}",
        )


class DataFolder:
    """A folder for one stack at a time, held from `hold` to `release`.

    The lock is the operating system's, so it ends with the process that holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.postgres = self.path / "postgres"
        self.temporal = self.path / "temporal"
        self.sandbox = self.path / "sandbox"
        self.run = self.path / "run"
        self.logs = self.path / "logs"
        self.address_file = self.path / "dev.env"
        self.settings_file = self.run / "settings.json"
        self._lock: int | None = None

    def hold(self) -> None:
        """Make the folder if need be and take it. Raises StackRefused if that cannot be."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise self._unwritable(problem) from None
        self._refuse_another_owner(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 32).decode().strip() or "unknown"
            os.close(lock)
            raise StackRefused(
                f"the data folder {self.path} is in use by another everbill (process {holder}):"
                " stop that one, or set EVERBILL_DATA_DIR to another folder"
            ) from None
        self._lock = lock
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            for folder in (self.temporal, self.sandbox, self.run, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
            self.forget_addresses()
        except OSError as problem:
            self.release()
            raise self._unwritable(problem) from None

    def _refuse_another_owner(self, lock: int) -> None:
        owner = os.fstat(lock).st_uid
        if owner != os.geteuid():
            os.close(lock)
            raise StackRefused(
                f"the data folder {self.path} belongs to the user {owner}, and this is the user"
                f" {os.geteuid()}: start Everbill as that user, or set EVERBILL_DATA_DIR to"
                " another folder"
            )

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secrets(self) -> Secrets:
        """This folder's secrets, made on first use. Raises StackRefused if the file is broken."""
        path = self.path / "secrets.json"
        if not path.exists():
            write_private(path, json.dumps(asdict(Secrets.make()), indent=1) + "\n")
        try:
            return Secrets(**json.loads(path.read_text()))
        except OSError as problem:
            raise self._unwritable(problem) from None
        except (ValueError, TypeError):
            raise StackRefused(
                f"{path} is not readable as the secrets of this data folder: restore it from a"
                " backup; without it the data it encrypts is lost"
            ) from None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def rotate_log(self, name: str) -> None:
        """Put a long log aside, keeping one older one."""
        log = self.log(name)
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))

    def write_addresses(self, addresses: Mapping[str, str], settings: Mapping[str, str]) -> None:
        """Tell people (`dev.env`) and Everbill's own commands where the running stack is."""
        lines = [f"{name}={value}\n" for name, value in addresses.items()]
        write_private(self.settings_file, json.dumps(dict(settings), indent=1) + "\n")
        write_private(self.address_file, "".join(lines))

    def forget_addresses(self) -> None:
        self.address_file.unlink(missing_ok=True)
        self.settings_file.unlink(missing_ok=True)

    def _unwritable(self, problem: OSError) -> StackRefused:
        return StackRefused(
            f"the data folder {self.path} cannot be used: {problem.strerror}"
            f" ({problem.filename or self.path}). Make it writable for the user"
            f" {os.geteuid()}, or set EVERBILL_DATA_DIR to a folder that is"
        )


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, readable for its owner only."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_settings(path: Path) -> dict[str, str]:
    """The settings of a file of `NAME="value"` lines, escaped as for a shell, with `\\n`."""
    settings = {}
    for line in path.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            settings[name] = _unquoted(value)
    return settings


def _unquoted(value: str) -> str:
    if not (len(value) >= 2 and value[0] == value[-1] == '"'):
        return value
    characters, plain = iter(value[1:-1]), []
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            character = "\n" if escaped == "n" else escaped
        plain.append(character)
    return "".join(plain)
