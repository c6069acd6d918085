"""The tables of daily totals: in the same metadata as those of the record."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Identity,
    Integer,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from storage.tables import metadata

stats_changes: Final = Table(
    "stats_changes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("application", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("currency", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("code", Text),
    Column("decline_code", Text),
    Column("took", Integer),
    Column("count", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    CheckConstraint("kind IN ('taken', 'unapplied', 'refunded', 'ended')", name="kind"),
)

stats_money: Final = Table(
    "stats_money",
    metadata,
    Column("application", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("gateway", Text, primary_key=True),
    Column("taken_count", BigInteger, nullable=False),
    Column("taken_minor", BigInteger, nullable=False),
    Column("refunded_count", BigInteger, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False),
    Column("unapplied_count", BigInteger, nullable=False),
    Column("unapplied_minor", BigInteger, nullable=False),
)

stats_payments: Final = Table(
    "stats_payments",
    metadata,
    Column("application", Text, primary_key=True),
    Column("days", Integer, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("gateway", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("ended", BigInteger, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("took", ARRAY(Integer), nullable=False),
)

stats_declines: Final = Table(
    "stats_declines",
    metadata,
    Column("application", Text, primary_key=True),
    Column("days", Integer, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("gateway", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("decline_code", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)
