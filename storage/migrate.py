"""Bring a database's schema to a revision, forward or back."""

import os
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config

from billing.errors import SettingError

_FOLDER: Final = Path(__file__).parent / "migrations"


def migrate(url: str, revision: str = "head") -> None:
    """Move to `revision` (`head`, `base` or an id); the login of `url` owns the schema."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["url"] = url
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def migration_url() -> str:
    """The owner's login from the settings. Raises SettingError if there is none."""
    url = os.environ.get("EVERBILL_MIGRATION_DATABASE_URL") or os.environ.get("DATABASE_URL")
    if not url:
        raise SettingError(
            "EVERBILL_MIGRATION_DATABASE_URL is not set: give the login that owns the schema,"
            " postgresql://owner:password@host/database"
        )
    return url
