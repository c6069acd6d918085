"""The record of disputes, what a payment shows of them, and webhooks that speak of them.

Revision ID: 0006
Revises: 0005
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0006_disputes.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.drop_index("payment_attempts_gateway_reference_idx", "payment_attempts")
    op.drop_column("webhook_inbox", "disputed_reference")
    op.drop_column("payments", "dispute")
    op.drop_table("disputes")
