"""A worker's activities upon a saved method, and a payment that is charged to it."""

import itertools
from datetime import timedelta

from activities.method import MethodActivities
from activities.payment import PaymentActivities
from billing.messages import OpenPayment, SettlePayment, Standing
from billing.method import MethodStatus
from billing.method_messages import OpenMethod, RevokeMethod, SettleMethod
from billing.payment import GatewayName, PaymentMethod
from gateways.clock import Clock, utc_now
from gateways.gateway import OpenOutcome, Order
from storage.database import Database
from tests.activities.scripted import NOW, ScriptedGateway, order
from tests.activities.scripted_mandates import ACTIVE, ScriptedMandates, method_order

_numbers = itertools.count(100)


class Desk:
    """One worker's activities, and a payment by the active method of a user of its own."""

    def __init__(
        self,
        database: Database,
        *,
        gateway: GatewayName = GatewayName.ALIPAY,
        clock: Clock = utc_now,
    ) -> None:
        self.database = database
        number = next(_numbers)
        user_id = f"user_{number}"
        self.method = method_order(number, user_id=user_id, gateway=gateway)
        self.order = order(number).model_copy(
            update={
                "method": PaymentMethod.SAVED,
                "payment_method_id": self.method.method_id,
                "user_id": user_id,
                "gateway": gateway,
            }
        )
        self.gateway = ScriptedGateway()
        self.gateway.mandates = self.mandates = ScriptedMandates()
        gateways = {gateway: self.gateway}
        self.payments = PaymentActivities(database, gateways, clock=clock)
        self.methods = MethodActivities(database, gateways)
        self.orders: list[Order] = []

    async def save(self) -> None:
        await self.methods.open(OpenMethod(order=self.method, now=NOW))
        self.mandates.seen = ACTIVE
        await self.methods.settle(
            SettleMethod(method_id=self.method.method_id, gateway=self.method.gateway, now=NOW)
        )

    async def delete(self) -> None:
        await self.methods.revoke(
            RevokeMethod(
                method_id=self.method.method_id,
                gateway=self.method.gateway,
                status=MethodStatus.ENDED,
                now=NOW,
            )
        )

    def answers(self, answer: OpenOutcome | Exception) -> None:
        async def on_open(placed: Order) -> OpenOutcome:
            self.orders.append(placed)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.gateway.on_open = on_open

    async def charge(self) -> Standing:
        return await self.payments.open(OpenPayment(order=self.order, now=NOW))

    async def settle(self, *, late: int = 0) -> Standing:
        return await self.payments.settle(
            SettlePayment(
                payment_id=self.order.payment_id,
                gateway=self.order.gateway,
                now=NOW + timedelta(seconds=late),
            )
        )
