"""When a saved method expires, and whether that was told ahead.

Revision ID: 0011
Revises: 0010
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0011"
down_revision: Final = "0010"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0011_expiring_methods.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.drop_index("payment_methods_expiring_idx")
    op.drop_column("payment_methods", "expires_at")
    op.drop_column("payment_methods", "expiry_told")
