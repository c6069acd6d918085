"""A gateway on paper: what it does with an order is written in the order's description."""

import asyncio
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime

from billing.errors import AnswerUntrusted
from billing.payment import ClientSecret, Failure, GatewayName, NextAction, PaymentMethod, QrCode
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
    Refused,
    ToldRefunds,
)
from gateways.mandates import Mandates

REFUSED = "refuse to open"
SILENT = "do not answer"
UNTRUSTED = "answer for another order"

_METHODS = {
    GatewayName.STRIPE: {PaymentMethod.CARD},
    GatewayName.ALIPAY: {
        PaymentMethod.QR,
        PaymentMethod.PAGE,
        PaymentMethod.WAP,
        PaymentMethod.APP,
    },
    GatewayName.WECHATPAY: {
        PaymentMethod.NATIVE,
        PaymentMethod.JSAPI,
        PaymentMethod.H5,
        PaymentMethod.APP,
    },
}


class PaperGateway:
    """`pay` is the payer's hand; `opened` counts the orders placed, by number."""

    mandates: Mandates | None = None

    def __init__(self, name: GatewayName) -> None:
        self.name = name
        self.capabilities = Capabilities(
            methods=frozenset(_METHODS[name]),
            currencies=None if name is GatewayName.STRIPE else frozenset({"CNY"}),
        )
        self.opened: Counter[str] = Counter()
        self.speaks = asyncio.Event()
        self._paid: set[str] = set()
        self._closed: set[str] = set()
        self._refunded: set[str] = set()

    def pay(self, number: str) -> None:
        self._paid.add(number)

    async def open(self, order: Order) -> OpenOutcome:
        self.opened[order.number] += 1
        if order.description == REFUSED:
            return Refused(Failure(code="order_refused", message="it will not have it"))
        if order.description == SILENT:
            await self.speaks.wait()
        action: NextAction = QrCode(code_url=f"paper://{order.number}")
        if order.method is PaymentMethod.CARD:
            action = ClientSecret(client_secret="paper_secret", publishable_key="paper_key")
        return Opened(action, f"paper_{order.number}")

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        if order.description == UNTRUSTED and gateway_number is None:
            raise AnswerUntrusted("amount_mismatch", "it speaks of another amount")
        reference = f"paper_{order.number}"
        if order.number in self._paid or gateway_number is not None:
            receipt = Receipt(reference, order.amount_minor, order.currency, datetime.now(UTC))
            return Observation(ObservedState.PAID, "paid", reference, receipt)
        if order.number in self._closed:
            return Observation(ObservedState.DEAD, "closed", reference)
        if order.number not in self.opened:
            return Observation(ObservedState.ABSENT, "unheard of")
        return Observation(ObservedState.PENDING, "waiting", reference)

    async def close(self, order: Order) -> None:
        if order.number not in self._paid:
            self._closed.add(order.number)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        self._refunded.add(order.number)
        return await self.query_refund(order)

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        if order.number not in self._refunded:
            return RefundObservation(RefundState.ABSENT, "unheard of")
        return RefundObservation(RefundState.SUCCEEDED, "refunded", f"paper_{order.number}")

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        return ToldRefunds()

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        return []

    async def aclose(self) -> None:
        """It holds no connection."""
