"""Customers: those anything was ever ordered for; their first payment (`Payments`) or saved method
(`Methods`) makes the record."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.tables import customers


class Customers:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def since(self, application: str, user_id: str) -> datetime | None:
        """When the application's user became a customer; None for one who never did."""
        created_at: datetime | None = await self._connection.scalar(
            select(customers.c.created_at).where(
                customers.c.application == application, customers.c.user_id == user_id
            )
        )
        return created_at
