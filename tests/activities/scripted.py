"""A gateway that answers what the test says, and an order to ask it about."""

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta

from billing.identifiers import make_id
from billing.messages import PaymentOrder
from billing.payment import GatewayName, PaymentMethod, QrCode
from gateways.gateway import (
    Capabilities,
    DisputeObservation,
    Observation,
    ObservedState,
    Opened,
    OpenOutcome,
    Order,
    Receipt,
    RefundObservation,
    RefundOrder,
    RefundState,
    ToldRefunds,
    check_receipt,
)
from gateways.mandates import Mandates

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AMOUNT = 2900


def order(number: int = 1, *, expires_in_seconds: int = 1800) -> PaymentOrder:
    return PaymentOrder(
        payment_id=make_id("pay", number, b"\x02" * 10),
        application="shop",
        user_id="user_1",
        amount_minor=AMOUNT,
        currency="CNY",
        gateway=GatewayName.ALIPAY,
        method=PaymentMethod.QR,
        description="A month of BASIC",
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=expires_in_seconds),
    )


class ScriptedGateway:
    """`states` says what each attempt is in by now; `on_open` replaces the answer to an
    order; `refunds` what it says, or raises, of each refund, `disputes` and
    `told_refunds` of each order."""

    name = GatewayName.ALIPAY
    capabilities = Capabilities(frozenset({PaymentMethod.QR}), None, orders_expire=True)
    mandates: Mandates | None = None

    def __init__(self) -> None:
        self.states: dict[int, ObservedState] = {}
        self.amounts: dict[int, int] = {}
        self.paid_at = NOW
        self.opened: list[str] = []
        self.queried: list[Order] = []
        self.closed: list[str] = []
        self.refunds: dict[str, RefundObservation | Exception] = {}
        self.refunds_asked: list[str] = []
        self.disputes: dict[str, list[DisputeObservation] | Exception] = {}
        self.asked_of_disputes: list[str] = []
        self.told_refunds: dict[str, ToldRefunds | Exception] = {}
        self.hints: list[list[str]] = []
        self.dies_when_closed = True
        self.on_open: Callable[[Order], Awaitable[OpenOutcome]] | None = None

    async def open(self, order: Order) -> OpenOutcome:
        self.opened.append(order.number)
        if self.on_open is not None:
            return await self.on_open(order)
        self.states.setdefault(order.attempt, ObservedState.PENDING)
        return Opened(QrCode(code_url=f"https://qr.example/{order.number}"), None)

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        self.queried.append(order)
        state = self.states.get(order.attempt, ObservedState.ABSENT)
        receipt = None
        if state is ObservedState.PAID:
            receipt = check_receipt(
                order,
                Receipt(
                    f"trade_{order.number}",
                    self.amounts.get(order.attempt, AMOUNT),
                    "CNY",
                    self.paid_at,
                ),
            )
        return Observation(state, state.value.upper(), receipt=receipt)

    async def close(self, order: Order) -> None:
        self.closed.append(order.number)
        if self.dies_when_closed and self.states.get(order.attempt) is ObservedState.PENDING:
            self.states[order.attempt] = ObservedState.DEAD

    async def refund(self, order: RefundOrder) -> RefundObservation:
        self.refunds_asked.append(order.number)
        self.refunds.setdefault(
            order.number, RefundObservation(RefundState.PROCESSING, "ACCEPTED", "r_1")
        )
        return await self.query_refund(order)

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        answer = self.refunds.get(order.number, RefundObservation(RefundState.ABSENT, "UNKNOWN"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        self.hints.append(sorted(hints))
        answer = self.told_refunds.get(order.number, ToldRefunds())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        self.asked_of_disputes.append(order.number)
        answer = self.disputes.get(order.number, [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        """Nothing to release."""
