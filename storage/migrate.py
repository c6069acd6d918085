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
# What the revision before each of these has no table for, and nobody could put together again.
_RECORDS: Final = {
    "0001": ("payments", text("SELECT EXISTS (SELECT 1 FROM payments)")),
    "0002": ("refunds", text("SELECT EXISTS (SELECT 1 FROM refunds)")),
    "0003": ("points", text("SELECT EXISTS (SELECT 1 FROM points_lots)")),
    "0006": ("disputes", text("SELECT EXISTS (SELECT 1 FROM disputes)")),
    "0009": ("saved methods", text("SELECT EXISTS (SELECT 1 FROM payment_methods)")),
}


class RecordWouldBeLost(Exception):
    """Going back would drop tables that hold payments or what goes with them."""


def migrate(url: str, revision: str = "head", *, discard: bool = False) -> None:
    """Move to `revision` (`head`, `base` or an id) in one transaction; one mover at a time.

    The login of `url` owns the schema. Raises RecordWouldBeLost where going back would drop
    any of these, unless `discard`; SettingError where `url` is not PostgreSQL's; alembic's
    CommandError where there is no such revision.
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
        scripts = ScriptDirectory.from_config(config)
        if not _is_back(scripts, revision, standing):
            command.upgrade(config, revision)
            return
        if standing is not None and not discard:
            _refuse_loss(connection, scripts, standing, revision)
        command.downgrade(config, revision)


def _is_back(scripts: ScriptDirectory, revision: str, standing: str | None) -> bool:
    if revision == "base":
        return True
    if standing is None or revision == "head":
        return False
    return revision != standing and revision in {
        script.revision for script in scripts.iterate_revisions(standing, "base")
    }


def _refuse_loss(
    connection: Connection, scripts: ScriptDirectory, standing: str, revision: str
) -> None:
    undone = {script.revision for script in scripts.iterate_revisions(standing, revision)}
    lost = [
        records
        for since, (records, has_any) in _RECORDS.items()
        if since in undone and connection.scalar(has_any)
    ]
    if lost:
        raise RecordWouldBeLost(
            f"this database holds {' and '.join(lost)}, and going back to {revision} drops them:"
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
