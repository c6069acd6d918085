"""What waits for a person: one open row per payment and reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.tables import attention


@dataclass(frozen=True)
class AttentionRecord:
    payment_id: str
    reason: str
    detail: str
    raised_at: datetime


class Attention:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def raise_(self, payment_id: str, reason: str, detail: str, now: datetime) -> bool:
        """Call for a person; False if somebody was called for the same already."""
        inserted = await self._connection.execute(
            insert(attention)
            .values(payment_id=payment_id, reason=reason, detail=detail, raised_at=now)
            .on_conflict_do_nothing(
                index_elements=["payment_id", "reason"],
                index_where=text("resolved_at IS NULL"),
            )
            .returning(attention.c.id)
        )
        return inserted.first() is not None

    async def resolve(self, payment_id: str, now: datetime, reason: str | None = None) -> None:
        """Strike a payment from the list, for one reason or for all."""
        query = update(attention).where(
            attention.c.payment_id == payment_id, attention.c.resolved_at.is_(None)
        )
        if reason is not None:
            query = query.where(attention.c.reason == reason)
        await self._connection.execute(query.values(resolved_at=now))

    async def open(self, payment_id: str | None = None) -> Sequence[AttentionRecord]:
        """What waits, oldest first, for one payment or for all."""
        query = select(attention).where(attention.c.resolved_at.is_(None)).order_by(attention.c.id)
        if payment_id is not None:
            query = query.where(attention.c.payment_id == payment_id)
        rows = await self._connection.execute(query)
        return [
            AttentionRecord(row["payment_id"], row["reason"], row["detail"], row["raised_at"])
            for row in rows.mappings()
        ]
