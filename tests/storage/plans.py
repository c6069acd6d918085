"""What is sent to PostgreSQL, and how it goes about it."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql
from sqlalchemy import Engine, event

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What this task sends to PostgreSQL meanwhile; others, such as a house's loops, may too."""
    sent: list[tuple[str, Any]] = []
    task = asyncio.current_task()

    def note(*args: Any) -> None:
        if asyncio.current_task() is task:
            sent.append((args[2], args[3]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@dataclass(frozen=True)
class Plan:
    """A plan that was carried out, and all its nodes, the topmost first."""

    nodes: list[dict[str, Any]]

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [node for node in self.nodes if node["Node Type"] in types]

    def scans(self, table: str) -> list[dict[str, Any]]:
        return [node for node in self.nodes if node.get("Relation Name") == table]


async def plan_of(
    connection: AsyncConnection[Any], statement: str, parameters: Any, mode: str
) -> Plan:
    """`mode` is `force_custom_plan` or `force_generic_plan`.

    It is prepared in SQL: what EXPLAIN itself is given as parameters, it plans for.
    """
    await connection.execute(f"SET plan_cache_mode = {mode}".encode())
    names = list(dict.fromkeys(_PARAMETER.findall(statement)))
    numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
    await connection.execute(f"PREPARE explained AS {numbered.replace('%%', '%')}".encode())
    values = sql.SQL(", ").join(sql.Literal(parameters[name]) for name in names)
    given = sql.SQL("({})").format(values) if names else sql.SQL("")
    rows = await connection.execute(
        sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained") + given
    )
    row = await rows.fetchone()
    assert row is not None
    await connection.execute("DEALLOCATE explained")
    return Plan(list(_nodes(row[0][0]["Plan"])))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def rows_of(node: dict[str, Any]) -> float:
    """How many rows it gave, in all its loops."""
    given: float = node["Actual Rows"] * node["Actual Loops"]
    return given
