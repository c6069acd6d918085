"""The tables of points. A balance's row guards all that its user has: whoever writes lots,
transactions or clawbacks has locked it.

No foreign key leads to payments. To check one, PostgreSQL locks the payment, also as a row is
changed for the second time in a transaction: with the balance held that is against the order of
locks, and two who pay debts of each other's payments would deadlock.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from billing.points import LotKind, PointsMovement
from storage.columns import instant, one_of
from storage.tables import metadata

_CREDITS: Final = ", ".join(repr(kind.value) for kind in PointsMovement if kind.is_credit)

# Literal, and one text for index and query: with parameters a cached plan passes the index by.
HAS_REMAINING: Final = text("remaining > 0")
CAN_FALL_DUE: Final = text("remaining > 0 AND expires_at IS NOT NULL")
IS_OWED: Final = text("owed > 0")


def _of_user() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["application", "user_id"], ["points_balances.application", "points_balances.user_id"]
    )


points_balances: Final = Table(
    "points_balances",
    metadata,
    Column("application", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("balance", BigInteger, nullable=False),
    Column("debt", BigInteger, nullable=False),
    Column("movements", BigInteger, nullable=False),
    instant("updated_at"),
    instant("recorded_at", recorded=True),
    CheckConstraint("debt >= 0", name="debt"),
    CheckConstraint("balance >= -debt", name="balance"),
    CheckConstraint("movements >= 0", name="movements"),
)

points_lots: Final = Table(
    "points_lots",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("application", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("payment_id", Text, nullable=False),
    Column("package_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False, server_default="0"),
    Column("taken", BigInteger, nullable=False, server_default="0"),
    Column("expired", BigInteger, nullable=False, server_default="0"),
    instant("expires_at", nullable=True),
    instant("effective_at"),
    instant("recorded_at", recorded=True),
    _of_user(),
    CheckConstraint(one_of("kind", LotKind), name="kind"),
    CheckConstraint("granted >= 1", name="granted"),
    CheckConstraint("remaining BETWEEN 0 AND granted", name="remaining"),
    CheckConstraint("spent >= 0 AND taken >= 0 AND expired >= 0", name="used"),
    CheckConstraint("remaining + spent + taken + expired = granted", name="whole"),
    UniqueConstraint("payment_id", "kind"),
    Index("points_lots_remaining_idx", "application", "user_id", postgresql_where=HAS_REMAINING),
    Index("points_lots_due_idx", "expires_at", postgresql_where=CAN_FALL_DUE),
)

points_transactions: Final = Table(
    "points_transactions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("application", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("balance_after", BigInteger, nullable=False),
    Column("payment_id", Text),
    Column("refund_id", Text),
    Column("description", Text),
    instant("effective_at"),
    instant("recorded_at", recorded=True),
    _of_user(),
    CheckConstraint(one_of("kind", PointsMovement), name="kind"),
    CheckConstraint("amount <> 0", name="amount"),
    CheckConstraint(f"(kind IN ({_CREDITS})) = (amount > 0)", name="sign"),
    CheckConstraint("sequence >= 1", name="sequence"),
    UniqueConstraint("application", "user_id", "sequence"),
)

points_clawbacks: Final = Table(
    "points_clawbacks",
    metadata,
    Column("cause_id", Text, primary_key=True),
    Column("application", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("payment_id", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("owed", BigInteger, nullable=False),
    instant("restored_at", nullable=True),
    instant("effective_at"),
    instant("recorded_at", recorded=True),
    _of_user(),
    CheckConstraint("amount_minor >= 1", name="amount"),
    CheckConstraint("owed BETWEEN 0 AND points", name="owed"),
    CheckConstraint("restored_at IS NULL OR owed = 0", name="restored"),
    Index(None, "payment_id"),
    Index("points_clawbacks_owed_idx", "application", "user_id", postgresql_where=IS_OWED),
)

points_takings: Final = Table(
    "points_takings",
    metadata,
    Column("cause_id", Text, ForeignKey("points_clawbacks.cause_id"), primary_key=True),
    Column("lot_id", BigInteger, ForeignKey("points_lots.id"), primary_key=True),
    Column("points", BigInteger, nullable=False),
    Column("lapsed", BigInteger, nullable=False),
    CheckConstraint("points >= 0 AND lapsed >= 0 AND points + lapsed > 0", name="taken"),
)
