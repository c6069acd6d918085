"""The record of payments, the ledger, and the application's rights.

Revision ID: 0001
Revises:
"""

from pathlib import Path
from typing import Final

from alembic import op

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

_SQL: Final = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    for part in ("0001_record.sql", "0001_ledger.sql", "0001_rights.sql"):
        op.get_bind().exec_driver_sql(
            (_SQL / part).read_text(), execution_options={"no_parameters": True}
        )


def downgrade() -> None:
    """Rights go with the tables; the role stays, since other databases may use it."""
    op.execute("DROP FUNCTION ledger_post(text, timestamptz, jsonb)")
    for table in (
        "reviews",
        "attention",
        "api_keys",
        "webhook_inbox",
        "idempotency_claims",
        "events",
        "ledger_postings",
        "ledger_transactions",
        "ledger_accounts",
        "receipts",
        "payment_attempts",
        "payments",
    ):
        op.drop_table(table)
    for function in (
        "ledger_posted(text)",
        "ledger_given_postings(jsonb)",
        "ledger_check_balance()",
        "ledger_refuse()",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("REVOKE USAGE ON SCHEMA public FROM everbill_app")
