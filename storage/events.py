"""Events: every change of an object, in its own order and in one that readers can follow.

Writers never wait for each other over the order of all events: a row is inserted without a place,
and gets the next one of its application's feed when somebody reads. Only committed rows can get
one, and each gets a higher one than all before it, so that a transaction which commits late is
never skipped, and a cursor holds after a dump is restored elsewhere.
"""

import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, bindparam, exists, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import InvalidRequest
from billing.identifiers import EVENT, make_id
from storage.tables import events

_CURSOR: Final = re.compile(r"p(\d{1,19})", re.ASCII)
_MAX_BIGINT: Final = 2**63 - 1
PLACED_AT_ONCE: Final = 1000

_LOCK: Final = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('everbill.events/' || :feed, 0))"
)
_PLACE: Final = text(
    """
    WITH waiting AS MATERIALIZED (
        SELECT position, row_number() OVER (ORDER BY position) AS turn
        FROM (
            SELECT position FROM events
            WHERE application = :application AND place IS NULL
            ORDER BY position
            LIMIT :most
        ) AS oldest
    )
    UPDATE events
    SET place = waiting.turn + (
        SELECT coalesce(max(place), 0) FROM events WHERE application = :application
    )
    FROM waiting
    WHERE events.position = waiting.position
    """
)


# Statements of every payment's way are built once: to build one takes longer than to send it.
_APPEND: Final = insert(events).values(
    sequence=select(func.coalesce(func.max(events.c.sequence), 0) + 1)
    .where(events.c.object_id == bindparam("of_object"))
    .scalar_subquery()
)


@dataclass(frozen=True)
class EventRecord:
    """`sequence` counts the object's own events from 1; `cursor` is this event's place for a
    reader; `created_at` is when it took effect."""

    id: str
    object_id: str
    sequence: int
    type: str
    data: dict[str, Any]
    created_at: datetime
    cursor: str


@dataclass(frozen=True)
class EventPage:
    """`next_cursor` continues from here, also where the page is empty."""

    data: list[EventRecord]
    has_more: bool
    next_cursor: str | None


class Events:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def append(
        self, object_id: str, application: str, type: str, data: dict[str, Any], now: datetime
    ) -> None:
        """Append to the object's events; its row is locked by this transaction already.

        Without that lock two transactions may take the same number, and one fails at the unique
        key rather than put the object's events out of order.
        """
        values = event_values(object_id, type, data, now)
        named = {"of_object": object_id, "application": application, **values}
        await self._connection.execute(_APPEND, named)

    async def after(self, *, application: str, cursor: str | None, limit: int) -> EventPage:
        """Events oldest first, from just behind `cursor`; the last one's own is the next.

        Readers of one application wait for each other until this transaction ends: keep it short.
        Raises InvalidRequest on a cursor that is not ours.
        """
        place = 0 if cursor is None else _parse(cursor)
        all_placed = await self._place(application)
        rows = await self._connection.execute(
            select(events)
            .where(events.c.application == application, events.c.place > place)
            .order_by(events.c.place)
            .limit(limit + 1)
        )
        found = [_event(row) for row in rows.mappings()]
        page = found[:limit]
        return EventPage(
            data=page,
            has_more=len(found) > limit or not all_placed,
            next_cursor=page[-1].cursor if page else cursor,
        )

    async def _place(self, application: str) -> bool:
        """Give committed events their places; False where there were more than one go takes."""
        is_waiting = select(
            exists().where(events.c.application == application, events.c.place.is_(None))
        )
        if not await self._connection.scalar(is_waiting):
            return True
        await self._connection.execute(_LOCK, {"feed": application})
        # A statement of its own, so that it sees what committed while we waited for the lock.
        placed = await self._connection.execute(
            _PLACE, {"application": application, "most": PLACED_AT_ONCE}
        )
        return placed.rowcount < PLACED_AT_ONCE


def event_values(object_id: str, type: str, data: dict[str, Any], now: datetime) -> dict[str, Any]:
    """An event's columns, but for its application and its number among the object's own."""
    return {
        "id": make_id(EVENT, time.time_ns() // 1_000_000, secrets.token_bytes(10)),
        "object_id": object_id,
        "type": type,
        "data": data,
        "effective_at": now,
    }


def _event(row: RowMapping) -> EventRecord:
    return EventRecord(
        id=row["id"],
        object_id=row["object_id"],
        sequence=row["sequence"],
        type=row["type"],
        data=row["data"],
        created_at=row["effective_at"],
        cursor=f"p{row['place']}",
    )


def _parse(cursor: str) -> int:
    match = _CURSOR.fullmatch(cursor)
    if match is None or int(match[1]) > _MAX_BIGINT:
        raise InvalidRequest("after is not a cursor that a list of events gave", param="after")
    return int(match[1])
