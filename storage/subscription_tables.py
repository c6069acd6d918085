"""The tables of subscriptions. A subscription's row has all that its process needs to go on; its
version guards it, since only that process writes it."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.payment import GatewayName
from billing.subscription import Access, StepKind, SubscriptionStatus
from billing.subscription_messages import ChargeStatus
from storage.columns import instant, one_of
from storage.tables import metadata

_ENDED: Final = ", ".join(repr(status.value) for status in SubscriptionStatus if status.is_terminal)

# Literal, and one text for index and query: with parameters a cached plan passes the index by.
IS_SUBSCRIPTION_UNFINISHED: Final = text(
    f"(status NOT IN ({_ENDED}) OR has_open_charge OR giving_back IS NOT NULL)"
)
IS_CHARGE_OPEN: Final = text("status = 'open'")
PAYS_FOR_A_PERIOD: Final = text("status = 'paid' AND kind <> 'change'")

subscriptions: Final = Table(
    "subscriptions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("application", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("access", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("payment_method_id", Text),
    Column("tier", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("has_open_charge", Boolean, nullable=False, server_default=false()),
    Column("state", JSONB, nullable=False),
    Column("debt", JSONB(none_as_null=True)),
    Column("announced", JSONB(none_as_null=True)),
    Column("giving_back", JSONB(none_as_null=True)),
    Column("start_document", LargeBinary, nullable=False),
    instant("next_at", nullable=True),
    instant("created_at"),
    instant("updated_at"),
    instant("recorded_at", recorded=True),
    instant("ended_at", nullable=True),
    CheckConstraint(one_of("status", SubscriptionStatus), name="status"),
    CheckConstraint(one_of("access", Access), name="access"),
    CheckConstraint(one_of("gateway", GatewayName), name="gateway"),
    CheckConstraint("version >= 1", name="version"),
    Index("subscriptions_user_idx", "application", "user_id", "id"),
    Index("subscriptions_unfinished_idx", "id", postgresql_where=IS_SUBSCRIPTION_UNFINISHED),
    Index(
        "subscriptions_method_idx",
        "payment_method_id",
        postgresql_where=text(f"payment_method_id IS NOT NULL AND status NOT IN ({_ENDED})"),
    ),
)

subscription_charges: Final = Table(
    "subscription_charges",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("subscription_id", Text, ForeignKey("subscriptions.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("period_number", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("charge", JSONB, nullable=False),
    instant("created_at"),
    instant("recorded_at", recorded=True),
    instant("ended_at", nullable=True),
    CheckConstraint(one_of("kind", StepKind), name="kind"),
    CheckConstraint(one_of("status", ChargeStatus), name="status"),
    CheckConstraint("amount_minor >= 1", name="amount_minor"),
    Index("subscription_charges_number_idx", "subscription_id", "number", unique=True),
    Index(
        "subscription_charges_open_idx",
        "subscription_id",
        unique=True,
        postgresql_where=IS_CHARGE_OPEN,
    ),
    Index(
        "subscription_charges_period_idx",
        "subscription_id",
        "period_number",
        unique=True,
        postgresql_where=PAYS_FOR_A_PERIOD,
    ),
)
