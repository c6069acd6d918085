"""Points: balances, lots, transactions, and what refunds have taken back.

Revision ID: 0003
Revises: 0002
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0003_points.sql"
_TABLES: Final = (
    "points_takings",
    "points_clawbacks",
    "points_transactions",
    "points_lots",
    "points_balances",
)


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION points_check_chain(), points_check_balance()")
