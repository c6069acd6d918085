"""Columns and conditions that many tables have."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import BindParameter, Column, DateTime, Table, bindparam, func


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


def named(table: Table, column: str) -> BindParameter[Any]:
    """A value of that column, as `named_values` names it."""
    return bindparam(f"{table.name}_{column}", type_=table.c[column].type)


def named_values(values: Mapping[Table, Mapping[str, Any]]) -> dict[str, Any]:
    """What a statement about several tables is given, each value named by table and column."""
    return {
        f"{table.name}_{column}": value
        for table, of_table in values.items()
        for column, value in of_table.items()
    }
