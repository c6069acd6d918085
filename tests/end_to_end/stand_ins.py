"""What stands between the worker and a gateway while a test wants it to go wrong there."""

import contextlib
from collections.abc import Collection, Iterator

from billing.errors import OutcomeUnknown
from billing.payment import Failure, GatewayName
from gateways.gateway import (
    DisputeObservation,
    Gateway,
    Observation,
    ObservedState,
    OpenOutcome,
    Order,
    RefundObservation,
    RefundOrder,
    RefundState,
    Refused,
    ToldRefunds,
)
from tests.fixtures.house import House


class StandIn(Gateway):
    """Passes everything on. The worker asks it about all payments of its gateway."""

    def __init__(self, inner: Gateway) -> None:
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.mandates = inner.mandates
        self.inner = inner

    async def open(self, order: Order) -> OpenOutcome:
        return await self.inner.open(order)

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        return await self.inner.query(order, gateway_number=gateway_number)

    async def close(self, order: Order) -> None:
        await self.inner.close(order)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        return await self.inner.refund(order)

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        return await self.inner.query_refund(order)

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        return await self.inner.list_refunds(order, hints)

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        return await self.inner.list_disputes(order)

    async def aclose(self) -> None:
        await self.inner.aclose()


class AtTheBank(StandIn):
    """The payer is done and the money on its way: it can be neither seen nor stopped."""

    def __init__(self, inner: Gateway, word: str, state: ObservedState) -> None:
        super().__init__(inner)
        self._observation = Observation(state=state, status=word)

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        return self._observation

    async def close(self, order: Order) -> None:
        return


class RefusesOneRefund(StandIn):
    """The gateway refuses the first refund it is asked for, for good."""

    refused: str | None = None

    async def refund(self, order: RefundOrder) -> RefundObservation:
        if self.refused in (None, order.number):
            self.refused = order.number
            return self._refusal
        return await super().refund(order)

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        return self._refusal if order.number == self.refused else await super().query_refund(order)

    @property
    def _refusal(self) -> RefundObservation:
        failure = Failure(code="refund_refused", message="this account gives nothing back")
        return RefundObservation(RefundState.FAILED, "refused", failure=failure)


class RefusesOrders(StandIn):
    """The gateway will not have any order."""

    async def open(self, order: Order) -> OpenOutcome:
        return Refused(Failure(code="order_refused", message="this merchant may not sell"))


class SilentToOpen(StandIn):
    """The gateway takes no order: nobody knows what came of any."""

    async def open(self, order: Order) -> OpenOutcome:
        raise OutcomeUnknown("no answer")


class DiesOnce(StandIn):
    """The activity dies right after the gateway has done one kind of call, once a payment."""

    def __init__(self, inner: Gateway, call: str) -> None:
        super().__init__(inner)
        self._call = call
        self.died: set[str] = set()

    async def open(self, order: Order) -> OpenOutcome:
        outcome = await super().open(order)
        self._die("open", order)
        return outcome

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        observation = await super().query(order, gateway_number=gateway_number)
        self._die("query", order)
        return observation

    async def close(self, order: Order) -> None:
        await super().close(order)
        self._die("close", order)

    def _die(self, call: str, order: Order) -> None:
        if call == self._call and order.payment_id not in self.died:
            self.died.add(order.payment_id)
            raise RuntimeError(f"died after {call}")


@contextlib.contextmanager
def standing_in(house: House, stand_in: StandIn) -> Iterator[None]:
    """The worker meets the stand-in in place of the gateway."""
    name = GatewayName(stand_in.name)
    house.gateways[name] = stand_in
    try:
        yield
    finally:
        house.gateways[name] = stand_in.inner
