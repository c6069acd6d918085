"""Refunds made elsewhere, webhooks that speak of them, and points that disputes take.

Revision ID: 0008
Revises: 0006
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0008"
down_revision: Final = "0006"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0008_elsewhere.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.execute(
        "ALTER TABLE points_takings"
        " RENAME CONSTRAINT points_takings_cause_id_fkey TO points_takings_refund_id_fkey"
    )
    op.alter_column("points_takings", "cause_id", new_column_name="refund_id")
    op.alter_column("points_clawbacks", "cause_id", new_column_name="refund_id")
    op.drop_column("webhook_inbox", "refunded_reference")
    op.drop_column("webhook_inbox", "foreign_refund")
    op.drop_constraint("refunds_cause_check", "refunds", type_="check")
    op.create_check_constraint(
        op.f("refunds_cause_check"), "refunds", "cause IN ('requested', 'returned')"
    )
