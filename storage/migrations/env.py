"""Alembic's entry: one connection as the owner of the schema, one transaction a run."""

from alembic import context
from sqlalchemy import create_engine, pool

from storage.database import sync_url
from storage.tables import metadata

engine = create_engine(
    sync_url(context.config.attributes["url"]),
    poolclass=pool.NullPool,
    connect_args={"options": "-c lock_timeout=10s -c timezone=UTC"},
)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
