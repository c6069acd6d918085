"""Subscriptions, and the payments that are charged for them.

Revision ID: 0010
Revises: 0009
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0010"
down_revision: Final = "0009"
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql" / "0010_subscriptions.sql"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_SQL.read_text(), execution_options={"no_parameters": True})


def downgrade() -> None:
    op.drop_table("subscription_charges")
    op.drop_table("subscriptions")
