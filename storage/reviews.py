"""The audit row of each operator's decision."""

from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.messages import ReviewAction
from storage.tables import reviews


class Reviews:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def record(
        self,
        payment_id: str,
        *,
        action: ReviewAction,
        reason: str,
        actor: str,
        gateway_number: str | None,
        now: datetime,
    ) -> None:
        """Write who decided what, when and why; a repeat of the same writes nothing."""
        await self._connection.execute(
            insert(reviews)
            .values(
                payment_id=payment_id,
                action=action.value,
                reason=reason,
                actor=actor,
                gateway_number=gateway_number,
                effective_at=now,
            )
            .on_conflict_do_nothing()
        )
