"""The keys of both sides, made on first start, and the settings file that hands ours out."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from sandbox.core import Keys, Provider

KEYS_FILE = "keys.json"
SETTINGS_FILE = "gateways.env"


def load_keys(data_dir: Path, providers: Mapping[str, Provider]) -> dict[str, Keys]:
    """The keys of each gateway, kept in the data folder; those not there yet are made."""
    path = data_dir / KEYS_FILE
    kept: dict[str, Keys] = json.loads(path.read_text()) if path.exists() else {}
    missing = {name: provider for name, provider in providers.items() if name not in kept}
    if missing:
        kept |= {name: provider.make_keys() for name, provider in missing.items()}
        write_private(path, json.dumps(kept, indent=1))
    return kept


def write_settings(
    data_dir: Path, keys: Mapping[str, Keys], providers: Mapping[str, Provider], url: str
) -> Path:
    """Write gateways.env: one `NAME="value"` a line, for a shell, Compose or a dotenv reader.

    Backslash, double quote, dollar and backtick are escaped with a backslash, line ends are
    written `\\n`.
    """
    lines = [
        f'{name}="{_escaped(value)}"\n'
        for gateway, provider in providers.items()
        for name, value in provider.settings(keys[gateway], url).items()
    ]
    path = data_dir / SETTINGS_FILE
    write_private(path, "".join(lines))
    return path


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, readable for its owner only."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _escaped(value: str) -> str:
    for character in '\\"$`':
        value = value.replace(character, f"\\{character}")
    return value.strip("\n").replace("\n", "\\n")
