"""Refunds that stand give back what they took too much.

Revision ID: 0012
Revises: 0011
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0012"
down_revision: Final = "0011"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0012_exact_clawbacks.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.execute("REVOKE DELETE ON points_takings FROM everbill_app")
