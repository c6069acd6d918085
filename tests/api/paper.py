"""A gateway on paper: what it does with an order is written in the order's description."""

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime

from billing.errors import AnswerUntrusted
from billing.identifiers import mandate_number
from billing.method import CardFace
from billing.payment import (
    ClientSecret,
    Failure,
    GatewayName,
    NextAction,
    PaymentMethod,
    QrCode,
    Redirect,
)
from gateways.gateway import (
    AlreadyOrdered,
    Capabilities,
    DisputeObservation,
    Notification,
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
    Reply,
    ToldRefunds,
)
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateOrder,
    Mandates,
    MandateState,
)

REFUSED = "refuse to open"
SILENT = "do not answer"
UNTRUSTED = "answer for another order"
UNDER_WAY = "take your time"

_METHODS = {
    GatewayName.STRIPE: {PaymentMethod.CARD, PaymentMethod.SAVED},
    GatewayName.ALIPAY: {
        PaymentMethod.QR,
        PaymentMethod.PAGE,
        PaymentMethod.WAP,
        PaymentMethod.APP,
        PaymentMethod.SAVED,
    },
    GatewayName.WECHATPAY: {
        PaymentMethod.NATIVE,
        PaymentMethod.JSAPI,
        PaymentMethod.H5,
        PaymentMethod.APP,
        PaymentMethod.SAVED,
    },
}


CARD = CardFace(brand="visa", last4="4242", expires_month=4, expires_year=2028)
REFUSED_USER = "refuse_to_sign"
SILENT_USER = "do_not_answer"


class PaperMandates:
    """`consent` and `withdraw` are the payer's hand; what it does is written in the user's id.
    `asked` counts the set-ups, by number; `revoked` are those that we ended. `days` are those for
    which a charge is expected, by number."""

    def __init__(self, gateway: GatewayName) -> None:
        self._gateway = gateway
        self.asked: Counter[str] = Counter()
        self.speaks = asyncio.Event()
        self.consented: set[str] = set()
        self.revoked: set[str] = set()
        self.days: dict[str, date] = {}
        self._withdrawn: set[str] = set()

    def consent(self, method_id: str) -> None:
        self.consented.add(mandate_number(method_id))

    def withdraw(self, method_id: str) -> None:
        self._withdrawn.add(mandate_number(method_id))

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> str | None:
        is_keeping = self._gateway is GatewayName.STRIPE
        return f"cus_{application}_{user_id}" if is_keeping else None

    async def set_up(self, order: MandateOrder) -> Opened | Refused | AlreadyOrdered:
        self.asked[order.number] += 1
        if order.user_id == REFUSED_USER:
            return Refused(Failure(code="terms_refused", message="it will not have it"))
        if order.user_id == SILENT_USER:
            await self.speaks.wait()
        return Opened(Redirect(url=f"https://paper.example/{order.number}"), f"s_{order.number}")

    async def query(self, mandate: Mandate) -> MandateObservation:
        reference = f"m_{mandate.number}"
        if mandate.number in self.revoked | self._withdrawn:
            return MandateObservation(MandateState.ENDED, "ended", reference)
        if mandate.number in self.consented:
            day = self.days.get(mandate.number)
            return MandateObservation(
                MandateState.ACTIVE, "active", reference, card=CARD, charge_on=day
            )
        return MandateObservation(MandateState.PENDING, "waiting")

    async def revoke(self, mandate: Mandate) -> None:
        self.revoked.add(mandate.number)

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        """It gives no notice."""

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        """It keeps no day."""


class PaperGateway:
    """`pay` is the payer's hand; `opened` counts the orders placed, by number."""

    mandates: Mandates | None

    def __init__(self, name: GatewayName) -> None:
        self.name = name
        self.payers = PaperMandates(name)
        self.mandates = self.payers
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
        if order.method is PaymentMethod.SAVED:
            return self._charge(order)
        action: NextAction = QrCode(code_url=f"paper://{order.number}")
        if order.method is PaymentMethod.CARD:
            action = ClientSecret(client_secret="paper_secret", publishable_key="paper_key")
        return Opened(action, f"paper_{order.number}")

    def _charge(self, order: Order) -> OpenOutcome:
        mandate = order.mandate
        if mandate is None or mandate.number not in self.payers.consented:
            return Refused(Failure(code="declined", message="there is no such mandate"))
        if order.description != UNDER_WAY:
            self._paid.add(order.number)
        return AlreadyOrdered()

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        if order.description == UNTRUSTED and gateway_number is None:
            raise AnswerUntrusted("amount_mismatch", "it speaks of another amount")
        reference = f"paper_{order.number}"
        if order.number in self._paid or gateway_number is not None:
            receipt = Receipt(reference, order.amount_minor, order.currency, datetime.now(UTC))
            return Observation(ObservedState.PAID, "paid", reference, receipt)
        if order.number in self._closed:
            return Observation(ObservedState.DEAD, "closed", reference)
        if order.method is PaymentMethod.SAVED and order.number in self.opened:
            return Observation(ObservedState.PROCESSING, "under way", reference)
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


class PaperVerifier:
    """Takes a webhook at its word: the body names the mandate."""

    name = GatewayName.STRIPE
    accepted = Reply(200, b"{}", "application/json")

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Notification:
        return Notification(**json.loads(body))

    def refused(self, status_code: int, reason: str) -> Reply:
        return Reply(status_code, b"{}", "application/json")
