"""The table of disputes, as SQLAlchemy sees it; migration 0006 makes it."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    cast,
    func,
    select,
)
from sqlalchemy.sql.selectable import LateralFromClause

from billing.dispute import DisputeStatus
from billing.payment import GatewayName
from storage.tables import metadata

_STATUSES: Final = ", ".join(repr(status.value) for status in DisputeStatus)
_ENDED: Final = ", ".join(repr(status.value) for status in DisputeStatus if status.has_ended)
_GATEWAYS: Final = ", ".join(repr(name.value) for name in GatewayName)

disputes: Final = Table(
    "disputes",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("payment_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("application", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("gateway_status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("withdrawn_minor", BigInteger, nullable=False),
    Column("reinstated_minor", BigInteger, nullable=False),
    Column("written_off_minor", BigInteger, nullable=False),
    Column("fee_minor", BigInteger, nullable=False),
    Column("due_by", DateTime(timezone=True)),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("effective_at", DateTime(timezone=True), nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    ForeignKeyConstraint(["payment_id", "attempt"], ["receipts.payment_id", "receipts.attempt"]),
    CheckConstraint(f"status IN ({_STATUSES})", name="status"),
    CheckConstraint(f"gateway IN ({_GATEWAYS})", name="gateway"),
    CheckConstraint("amount_minor >= 0", name="amount"),
    CheckConstraint(
        "withdrawn_minor >= 0 AND reinstated_minor >= 0 AND written_off_minor >= 0", name="moved"
    ),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint(f"(status IN ({_ENDED})) = (closed_at IS NOT NULL)", name="closed_at"),
    Index(None, "payment_id"),
)


def held_of(receipts: Table) -> LateralFromClause:
    """What disputes have of each receipt, `disputed_minor`: withdrawn and not reinstated; and when
    anything of them was last written."""
    held = func.sum(disputes.c.withdrawn_minor - disputes.c.reinstated_minor)
    return (
        select(
            cast(func.coalesce(held, 0), BigInteger).label("disputed_minor"),
            func.max(disputes.c.updated_at).label("changed_at"),
        )
        .where(
            disputes.c.payment_id == receipts.c.payment_id,
            disputes.c.attempt == receipts.c.attempt,
        )
        .lateral("disputed")
    )
