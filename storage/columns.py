"""Columns and conditions that many tables have."""

from enum import StrEnum

from sqlalchemy import Column, DateTime, func


def instant(name: str, *, nullable: bool = False, recorded: bool = False) -> Column[object]:
    """A moment; one that is `recorded` is PostgreSQL's own, when the row was written."""
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable,
        server_default=func.now() if recorded else None,
    )


def one_of(column: str, words: type[StrEnum]) -> str:
    """The condition that the column has one of the words."""
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"
