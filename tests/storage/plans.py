"""What is sent to PostgreSQL, and how it goes about it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from sqlalchemy import Engine, event


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
    """`mode` is `force_custom_plan` or `force_generic_plan`."""
    await connection.execute(f"SET plan_cache_mode = {mode}".encode())
    rows = await connection.execute(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), parameters, prepare=True
    )
    row = await rows.fetchone()
    assert row is not None
    return Plan(list(_nodes(row[0][0]["Plan"])))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def rows_of(node: dict[str, Any]) -> float:
    """How many rows it gave, in all its loops."""
    given: float = node["Actual Rows"] * node["Actual Loops"]
    return given
