"""Events: every change of an object, in its own order and in one that readers can follow.

A reader follows (transaction, position) and sees only what lies below every transaction still
open, so that one which commits late is never skipped.
"""

import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text, cast, func, insert, literal, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import InvalidRequest
from billing.identifiers import EVENT, make_id
from storage.tables import TransactionId, events

_CURSOR: Final = re.compile(r"^(\d{1,20})\.(\d{1,19})$")
_MAX_BIGINT: Final = 2**63 - 1


@dataclass(frozen=True)
class EventRecord:
    """`sequence` counts the object's own events from 1; `cursor` is this event's place for a
    reader."""

    id: str
    object_id: str
    sequence: int
    type: str
    data: dict[str, Any]
    created_at: datetime
    cursor: str


@dataclass(frozen=True)
class EventPage:
    data: list[EventRecord]
    has_more: bool
    next_cursor: str | None


class Events:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def append(
        self, object_id: str, application: str, type: str, data: dict[str, Any], now: datetime
    ) -> None:
        """Append to the object's events; its row is locked by this transaction already."""
        last = (
            select(func.coalesce(func.max(events.c.sequence), 0) + 1)
            .where(events.c.object_id == object_id)
            .scalar_subquery()
        )
        await self._connection.execute(
            insert(events).values(
                id=make_id(EVENT, time.time_ns() // 1_000_000, secrets.token_bytes(10)),
                object_id=object_id,
                sequence=last,
                application=application,
                type=type,
                data=data,
                effective_at=now,
            )
        )

    async def after(self, *, application: str, cursor: str | None, limit: int) -> EventPage:
        """Events oldest first, from just behind `cursor`; the last one's own is the next.

        Raises InvalidRequest on a cursor that is not ours.
        """
        transaction_text = cast(events.c.transaction_id, Text)
        query = select(events, transaction_text.label("transaction_text")).where(
            events.c.application == application,
            events.c.transaction_id < text("pg_snapshot_xmin(pg_current_snapshot())"),
        )
        if cursor is not None:
            transaction, position = _parse(cursor)
            query = query.where(
                tuple_(events.c.transaction_id, events.c.position)
                > tuple_(cast(literal(transaction), TransactionId), literal(position))
            )
        rows = await self._connection.execute(
            query.order_by(events.c.transaction_id, events.c.position).limit(limit + 1)
        )
        found = [
            EventRecord(
                id=row["id"],
                object_id=row["object_id"],
                sequence=row["sequence"],
                type=row["type"],
                data=row["data"],
                created_at=row["effective_at"],
                cursor=f"{row['transaction_text']}.{row['position']}",
            )
            for row in rows.mappings()
        ]
        page = found[:limit]
        return EventPage(
            data=page,
            has_more=len(found) > limit,
            next_cursor=page[-1].cursor if page else cursor,
        )


def _parse(cursor: str) -> tuple[str, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None or int(match[1]) >= 2**64 or int(match[2]) > _MAX_BIGINT:
        raise InvalidRequest("after is not a cursor that a list of events gave", param="after")
    return match[1], int(match[2])
