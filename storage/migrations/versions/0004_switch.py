"""What an attempt differs in from its order.

Revision ID: 0004
Revises: 0003
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0004_switch.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.drop_column("payment_attempts", "details")
