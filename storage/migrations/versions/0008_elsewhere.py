"""Refunds made elsewhere, webhooks that speak of them, and points that disputes take.

Revision ID: 0008
Revises: 0007
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0008"
down_revision: Final = "0007"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0008_elsewhere.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    for table, suffix in (
        ("points_takings", "fkey"),
        ("points_takings", "not_null"),
        ("points_clawbacks", "not_null"),
    ):
        op.execute(
            f"ALTER TABLE {table}"
            f" RENAME CONSTRAINT {table}_cause_id_{suffix} TO {table}_refund_id_{suffix}"
        )
    op.alter_column("points_takings", "cause_id", new_column_name="refund_id")
    op.alter_column("points_clawbacks", "cause_id", new_column_name="refund_id")
    op.drop_column("webhook_inbox", "refunded_reference")
    op.drop_column("webhook_inbox", "foreign_refund")
    op.execute(
        "ALTER TABLE refunds DROP CONSTRAINT refunds_cause_check,"
        " ADD CONSTRAINT refunds_cause_check CHECK (cause IN ('requested', 'returned'))"
    )
