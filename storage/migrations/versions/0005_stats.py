"""Daily totals that follow the record, and indexes for every kind of list.

Revision ID: 0005
Revises: 0004
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0005_stats.sql")


def downgrade() -> None:
    _run("0005_stats_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql(
        (_SQL / name).read_text(), execution_options={"no_parameters": True}
    )
