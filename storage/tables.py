"""The tables, as SQLAlchemy sees them; `migrations/` makes them, and a test keeps the two equal."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from billing.payment import AttemptState, GatewayName, PaymentStatus, PaymentType
from billing.refund import RefundCause, RefundStatus
from storage.columns import instant as _instant
from storage.columns import one_of as _one_of

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

_TERMINAL: Final = ", ".join(repr(status.value) for status in PaymentStatus if status.is_terminal)
_ENDED: Final = ", ".join(repr(status.value) for status in RefundStatus if status.has_ended)

# Literal, and one text for index and query: with parameters a cached plan passes the index by.
IS_UNFINISHED: Final = text(f"status NOT IN ({_TERMINAL})")
IS_OPEN: Final = text("state = 'open'")
IS_WAITING: Final = text("outcome IS NULL")
IS_CHARGE_UNFINISHED: Final = text(f"payment_method_id IS NOT NULL AND status NOT IN ({_TERMINAL})")
IS_REFUND_UNFINISHED: Final = text(f"status NOT IN ({_ENDED})")

_FILTERED: Final = ("application", "status", "gateway", "type", "created_at", "id")

customers: Final = Table(
    "customers",
    metadata,
    Column("application", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    _instant("created_at"),
    _instant("recorded_at", recorded=True),
)

payments: Final = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("application", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("amount_refunded_minor", BigInteger, nullable=False, server_default="0"),
    Column("currency", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("gateway_reference", Text),
    Column("next_action", LargeBinary),
    Column("order_document", LargeBinary, nullable=False),
    Column("failure", JSONB(none_as_null=True)),
    Column("review", JSONB(none_as_null=True)),
    Column("dispute", JSONB(none_as_null=True)),
    Column("payment_method_id", Text),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("expires_at"),
    _instant("paid_at", nullable=True),
    _instant("recorded_at", recorded=True),
    CheckConstraint(_one_of("status", PaymentStatus), name="status"),
    CheckConstraint(_one_of("type", PaymentType), name="type"),
    CheckConstraint(_one_of("gateway", GatewayName), name="gateway"),
    CheckConstraint("amount_minor >= 1", name="amount"),
    CheckConstraint("amount_refunded_minor BETWEEN 0 AND amount_minor", name="amount_refunded"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("attempt BETWEEN 1 AND 99", name="attempt"),
    CheckConstraint(
        f"status NOT IN ({_TERMINAL}) OR next_action IS NULL", name="ended_without_action"
    ),
    CheckConstraint("(status = 'succeeded') = (paid_at IS NOT NULL)", name="paid_at"),
    CheckConstraint("(status = 'needs_review') = (review IS NOT NULL)", name="review"),
    Index(None, "application", "created_at", "id"),
    Index(None, "application", "user_id", "created_at", "id"),
    Index("payments_filtered_idx", *_FILTERED),
    Index("payments_user_filtered_idx", "application", "user_id", *_FILTERED[1:]),
    Index("payments_unfinished_idx", "id", postgresql_where=IS_UNFINISHED),
    Index(
        "payments_method_unfinished_idx",
        "payment_method_id",
        postgresql_where=IS_CHARGE_UNFINISHED,
    ),
)

payment_attempts: Final = Table(
    "payment_attempts",
    metadata,
    Column("payment_id", Text, ForeignKey("payments.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("number", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reference", Text),
    Column("gateway_status", Text),
    Column("details", LargeBinary),
    _instant("expires_at"),
    _instant("opened_at", nullable=True),
    _instant("updated_at"),
    _instant("recorded_at", recorded=True),
    CheckConstraint(_one_of("state", AttemptState), name="state"),
    CheckConstraint(_one_of("gateway", GatewayName), name="gateway"),
    CheckConstraint("attempt BETWEEN 1 AND 99", name="attempt"),
    UniqueConstraint("number"),
    Index(None, "gateway", "reference"),
    Index("payment_attempts_open_idx", "payment_id", postgresql_where=IS_OPEN),
)

receipts: Final = Table(
    "receipts",
    metadata,
    Column("payment_id", Text, nullable=False, primary_key=True),
    Column("attempt", Integer, nullable=False, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("kept", Boolean, nullable=False),
    _instant("paid_at"),
    _instant("effective_at"),
    _instant("recorded_at", recorded=True),
    ForeignKeyConstraint(
        ["payment_id", "attempt"], ["payment_attempts.payment_id", "payment_attempts.attempt"]
    ),
    CheckConstraint("amount_minor >= 1", name="amount"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    UniqueConstraint("gateway", "gateway_reference"),
    Index("receipts_kept_key", "payment_id", unique=True, postgresql_where=text("kept")),
    Index(None, "recorded_at"),
)

refunds: Final = Table(
    "refunds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("payment_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("application", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("gateway_reference", Text),
    Column("gateway_status", Text),
    Column("failure", JSONB(none_as_null=True)),
    Column("review", JSONB(none_as_null=True)),
    _instant("ask_at"),
    _instant("asked_at", nullable=True),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("refunded_at", nullable=True),
    _instant("effective_at"),
    _instant("recorded_at", recorded=True),
    ForeignKeyConstraint(["payment_id", "attempt"], ["receipts.payment_id", "receipts.attempt"]),
    CheckConstraint(_one_of("cause", RefundCause), name="cause"),
    CheckConstraint(_one_of("status", RefundStatus), name="status"),
    CheckConstraint(_one_of("gateway", GatewayName), name="gateway"),
    CheckConstraint("amount_minor >= 1", name="amount"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("(status = 'succeeded') = (refunded_at IS NOT NULL)", name="refunded_at"),
    CheckConstraint("(status = 'needs_review') = (review IS NOT NULL)", name="review"),
    Index(None, "payment_id"),
    Index("refunds_unfinished_idx", "id", postgresql_where=IS_REFUND_UNFINISHED),
)

ledger_accounts: Final = Table(
    "ledger_accounts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("code", Text, nullable=False),
    _instant("recorded_at", recorded=True),
    CheckConstraint("code ~ '^[a-z][a-z_]*(:[A-Za-z0-9][A-Za-z0-9_.:-]*)?$'", name="code"),
    UniqueConstraint("code"),
)

ledger_transactions: Final = Table(
    "ledger_transactions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("cause", Text, nullable=False),
    _instant("effective_at"),
    _instant("recorded_at", recorded=True),
    UniqueConstraint("cause"),
)

ledger_postings: Final = Table(
    "ledger_postings",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("transaction_id", BigInteger, ForeignKey("ledger_transactions.id"), nullable=False),
    Column("account_id", BigInteger, ForeignKey("ledger_accounts.id"), nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    CheckConstraint("amount_minor <> 0", name="amount"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    Index(None, "transaction_id"),
    Index(None, "account_id"),
)

events: Final = Table(
    "events",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("place", BigInteger),
    Column("id", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("application", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    _instant("effective_at"),
    _instant("recorded_at", recorded=True),
    UniqueConstraint("id"),
    CheckConstraint("sequence >= 1", name="sequence"),
    UniqueConstraint("object_id", "sequence"),
    Index(
        "events_place_key",
        "application",
        "place",
        unique=True,
        postgresql_where=text("place IS NOT NULL"),
    ),
    Index("events_unplaced_idx", "application", "position", postgresql_where=text("place IS NULL")),
)

idempotency_claims: Final = Table(
    "idempotency_claims",
    metadata,
    Column("application", Text, primary_key=True),
    Column("key_digest", LargeBinary, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("answer_status", Integer),
    Column("answer_body", LargeBinary),
    _instant("created_at"),
    Index(None, "object_id"),
    Index(None, "created_at"),
)

webhook_inbox: Final = Table(
    "webhook_inbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("number", Text),
    Column("payment_id", Text),
    Column("refund_id", Text),
    Column("disputed_reference", Text),
    Column("foreign_refund", Text),
    Column("refunded_reference", Text),
    Column("method_id", Text),
    Column("mandate_reference", Text),
    Column("body", LargeBinary, nullable=False),
    Column("outcome", Text),
    Column("tries", Integer, nullable=False, server_default="0"),
    _instant("received_at"),
    _instant("next_try_at"),
    _instant("settled_at", nullable=True),
    CheckConstraint("outcome IN ('delivered', 'unmatched', 'ignored')", name="outcome"),
    CheckConstraint(_one_of("gateway", GatewayName), name="gateway"),
    UniqueConstraint("gateway", "event_id"),
    Index("webhook_inbox_due_idx", "next_try_at", postgresql_where=IS_WAITING),
    Index(None, "payment_id"),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("application", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("last_four", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _instant("created_at"),
    _instant("revoked_at", nullable=True),
    UniqueConstraint("digest"),
    Index(None, "application"),
)

attention: Final = Table(
    "attention",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("payment_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    _instant("raised_at"),
    _instant("resolved_at", nullable=True),
    Index(
        "attention_open_key",
        "payment_id",
        "reason",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
    ),
)

reviews: Final = Table(
    "reviews",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("gateway_number", Text),
    _instant("effective_at"),
    _instant("recorded_at", recorded=True),
    UniqueConstraint("payment_id", "actor", "action", "effective_at"),
)
