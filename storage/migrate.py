"""Bring a database's schema to a revision, forward or back."""

import os
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool, text

from billing.errors import SettingError
from storage.database import sync_url

_FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('everbill.migrate', 0))")
# A table that somebody holds must not make everybody else queue behind us.
_LOCK_TIMEOUT: Final = text("SET LOCAL lock_timeout = '10s'")
_HAS_PAYMENTS: Final = text("SELECT EXISTS (SELECT 1 FROM payments)")


class RecordWouldBeLost(Exception):
    """Going back would drop tables that hold payments."""


def migrate(url: str, revision: str = "head", *, discard: bool = False) -> None:
    """Move to `revision` (`head`, `base` or an id) in one transaction; one mover at a time.

    The login of `url` owns the schema. Raises RecordWouldBeLost where `base` would drop payments,
    unless `discard`; SettingError where `url` is not PostgreSQL's; alembic's CommandError where
    there is no such revision.
    """
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    engine = create_engine(
        sync_url(url), poolclass=pool.NullPool, connect_args={"options": "-c timezone=UTC"}
    )
    with engine.begin() as connection:
        connection.execute(_LOCK)
        connection.execute(_LOCK_TIMEOUT)
        config.attributes["connection"] = connection
        standing = MigrationContext.configure(connection).get_current_revision()
        if not _is_back(ScriptDirectory.from_config(config), revision, standing):
            command.upgrade(config, revision)
            return
        if revision == "base" and not discard:
            _refuse_loss(connection, standing)
        command.downgrade(config, revision)


def _is_back(scripts: ScriptDirectory, revision: str, standing: str | None) -> bool:
    if revision == "base":
        return True
    if standing is None or revision == "head":
        return False
    return revision != standing and revision in {
        script.revision for script in scripts.iterate_revisions(standing, "base")
    }


def _refuse_loss(connection: Connection, standing: str | None) -> None:
    if standing is not None and connection.scalar(_HAS_PAYMENTS):
        raise RecordWouldBeLost(
            "this database holds payments, and going back to base drops them with their ledger:"
            " back it up, and say --discard if you mean it"
        )


def migration_url() -> str:
    """The owner's login from the settings. Raises SettingError if there is none."""
    url = os.environ.get("EVERBILL_MIGRATION_DATABASE_URL") or os.environ.get("DATABASE_URL")
    if not url:
        raise SettingError(
            "EVERBILL_MIGRATION_DATABASE_URL is not set: give the login that owns the schema,"
            " postgresql://owner:password@host/database"
        )
    return url
