"""The version of Everbill, as `pyproject.toml` declares it."""

from typing import Final

VERSION: Final = "0.1.0"
