"""Saved payment methods, payments by them, and webhooks that speak of mandates.

Revision ID: 0009
Revises: 0008
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0009"
down_revision: Final = "0008"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0009_methods.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.drop_column("webhook_inbox", "mandate_reference")
    op.drop_column("webhook_inbox", "method_id")
    op.drop_column("payments", "payment_method_id")
    op.drop_table("payment_methods")
    op.drop_table("gateway_customers")
