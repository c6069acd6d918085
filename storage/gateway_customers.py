"""What each gateway that keeps customers calls one of ours: made there once, and the same after."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.payment import GatewayName
from storage.method_tables import gateway_customers


class GatewayCustomers:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep(
        self,
        application: str,
        user_id: str,
        gateway: GatewayName,
        reference: str,
        now: datetime,
    ) -> str:
        """What stands: the first that was written."""
        await self._connection.execute(
            insert(gateway_customers)
            .values(
                application=application,
                user_id=user_id,
                gateway=gateway.value,
                reference=reference,
                created_at=now,
            )
            .on_conflict_do_nothing()
        )
        return (await self.of(application, user_id))[gateway]

    async def of(self, application: str, user_id: str) -> dict[GatewayName, str]:
        """The customer's reference at each gateway that has one."""
        rows = await self._connection.execute(
            select(gateway_customers.c.gateway, gateway_customers.c.reference)
            .where(
                gateway_customers.c.application == application,
                gateway_customers.c.user_id == user_id,
            )
            .order_by(gateway_customers.c.gateway)
        )
        return {GatewayName(gateway): reference for gateway, reference in rows}
