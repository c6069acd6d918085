"""The tables of saved payment methods; whoever changes one holds its user (`Methods.hold`)."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.method import MethodStatus
from billing.payment import GatewayName
from storage.columns import instant, one_of
from storage.tables import metadata

_ENDED: Final = ", ".join(repr(status.value) for status in MethodStatus if status.is_terminal)

# Literal, and one text for index and query: with parameters a cached plan passes the index by.
IS_DEFAULT: Final = text("is_default")
IS_METHOD_UNFINISHED: Final = text("released_at IS NULL AND status <> 'active'")
IS_METHOD_EXPIRING: Final = text("status = 'active' AND expires_at IS DISTINCT FROM expiry_told")
IS_METHOD_ENDING: Final = text("status = 'active' AND ends_at IS NOT NULL")

# In PostgreSQL's own words, by which the two are compared.
_EXPIRES_AT: Final = (
    "COALESCE(ends_at, (make_timestamp((card ->> 'expires_year'::text)::integer,"
    " (card ->> 'expires_month'::text)::integer, 1, 0, 0, 0::double precision)"
    " + '1 mon'::interval) AT TIME ZONE 'UTC'::text)"
)
"""Its gateway's end of a mandate; a card may be charged until the end of its month."""

gateway_customers: Final = Table(
    "gateway_customers",
    metadata,
    Column("application", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("gateway", Text, primary_key=True),
    Column("reference", Text, nullable=False),
    instant("created_at"),
    instant("recorded_at", recorded=True),
    CheckConstraint(one_of("gateway", GatewayName), name="gateway"),
)

payment_methods: Final = Table(
    "payment_methods",
    metadata,
    Column("id", Text, primary_key=True),
    Column("application", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("setup_reference", Text),
    Column("reference", Text),
    Column("customer_reference", Text),
    Column("gateway_status", Text),
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    Column("card", JSONB(none_as_null=True)),
    Column("currency", Text, nullable=False),
    Column("most_minor", BigInteger),
    Column("rhythm_months", Integer),
    Column("next_action", LargeBinary),
    Column("order_document", LargeBinary, nullable=False),
    Column("failure", JSONB(none_as_null=True)),
    instant("created_at"),
    instant("updated_at"),
    instant("asked_at", nullable=True),
    instant("activated_at", nullable=True),
    instant("ends_at", nullable=True),
    instant("ended_at", nullable=True),
    instant("released_at", nullable=True),
    instant("recorded_at", recorded=True),
    Column("expires_at", DateTime(timezone=True), Computed(_EXPIRES_AT, persisted=True)),
    instant("expiry_told", nullable=True),
    UniqueConstraint("number"),
    CheckConstraint(one_of("status", MethodStatus), name="status"),
    CheckConstraint(one_of("gateway", GatewayName), name="gateway"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("most_minor >= 1", name="most"),
    CheckConstraint("rhythm_months >= 1", name="rhythm"),
    CheckConstraint("NOT is_default OR status = 'active'", name="default"),
    CheckConstraint("status = 'pending' OR next_action IS NULL", name="next_action"),
    CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failure"),
    CheckConstraint(f"(status IN ({_ENDED})) = (ended_at IS NOT NULL)", name="ended_at"),
    CheckConstraint("released_at IS NULL OR ended_at IS NOT NULL", name="released_at"),
    Index(
        "payment_methods_default_key",
        "application",
        "user_id",
        unique=True,
        postgresql_where=IS_DEFAULT,
    ),
    Index(None, "application", "user_id", "created_at", "id"),
    Index(None, "gateway", "reference"),
    Index(None, "gateway", "setup_reference"),
    Index("payment_methods_unfinished_idx", "id", postgresql_where=IS_METHOD_UNFINISHED),
    Index("payment_methods_ending_idx", "ends_at", postgresql_where=IS_METHOD_ENDING),
    Index("payment_methods_expiring_idx", "expires_at", postgresql_where=IS_METHOD_EXPIRING),
)
