"""The record of refunds, and webhooks that speak of them.

Revision ID: 0002
Revises: 0001
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0002_refunds.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.drop_column("webhook_inbox", "refund_id")
    op.drop_table("refunds")
