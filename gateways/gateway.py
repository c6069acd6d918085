"""The port every payment gateway stands behind.

A gateway answers an order with a value (opened, refused, observed) or raises one of
`billing.errors.GatewayError`. A payer's decline is a value, never an exception.

Adapters know one provider's protocol and nothing of the record: what they are told comes in an
`Order`, what they learn goes out in an `Observation`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from billing.dispute import DisputeStatus
from billing.errors import AnswerUntrusted
from billing.payment import Failure, GatewayName, NextAction, Payer, PaymentMethod
from gateways.mandates import Mandate, Mandates


@dataclass(frozen=True)
class Order:
    """One attempt at a payment, as a gateway is to know it.

    `number` is our own order number (`billing.identifiers.attempt_number`), `expires_at` the
    absolute instant after which the gateway takes no money for it, and `reference` the gateway's
    own number where an earlier answer told it. `mandate` is there exactly when the method is
    `saved`.
    """

    payment_id: str
    attempt: int
    number: str
    amount_minor: int
    currency: str
    method: PaymentMethod
    description: str
    user_id: str
    created_at: datetime
    expires_at: datetime
    return_url: str | None = None
    payer: Payer | None = None
    reference: str | None = None
    mandate: Mandate | None = None


@dataclass(frozen=True)
class Opened:
    """The gateway waits for the payer, who needs `next_action`.

    `reference` is the gateway's own number, where it has one this early.
    """

    next_action: NextAction
    reference: str | None


@dataclass(frozen=True)
class Refused:
    """The gateway will not take this order, and has taken nothing for it."""

    failure: Failure


@dataclass(frozen=True)
class AlreadyOrdered:
    """The number is in use at the gateway (paid, closed or being paid): query it.

    `reference` is as of `Opened`, where the answer told it; `seen` spares the query where the
    answer itself has told, by all checks of one, that it is paid.
    """

    reference: str | None = None
    seen: "Observation | None" = None


OpenOutcome = Opened | Refused | AlreadyOrdered


class ObservedState(StrEnum):
    """What a gateway says of an order, in our words.

    ABSENT: it knows no such order (yet). PENDING: it waits for the payer. PROCESSING: the payer
    is done, the money is on its way. PAID and DEAD are final. UNRECOGNISED: a status that no
    table of ours names.
    """

    ABSENT = "absent"
    PENDING = "pending"
    PROCESSING = "processing"
    PAID = "paid"
    DEAD = "dead"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True)
class Receipt:
    """Money a gateway says it has taken for an order."""

    gateway_reference: str
    amount_minor: int
    currency: str
    paid_at: datetime


@dataclass(frozen=True)
class Observation:
    """The gateway's truth about one order at one moment.

    `receipt` is there exactly when the state is PAID; `failure` tells of the payer's last failed
    try; `status` is the gateway's own word.
    """

    state: ObservedState
    status: str
    reference: str | None = None
    receipt: Receipt | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class RefundOrder:
    """One refund of one paid order, as a gateway is to know it.

    `number` is the refund's own id, under which any repeat is recognised; `payment_number` and
    `payment_reference` are our and the gateway's number of the order that was paid
    (`Receipt.gateway_reference`), `paid_minor` all that was paid for it.
    """

    number: str
    payment_number: str
    payment_reference: str
    paid_minor: int
    amount_minor: int
    currency: str
    reason: str
    created_at: datetime
    reference: str | None = None
    """The gateway's own number of the refund, where an earlier answer told it."""


class RefundState(StrEnum):
    """What a gateway says of a refund, in our words.

    ABSENT: it knows no such refund (yet); asking again under the same number is safe. PROCESSING:
    accepted, the money is on its way. SUCCEEDED and FAILED are the gateway's last word, though a
    bank may make SUCCEEDED FAILED days later. STUCK: the gateway wants a person to act there.
    UNRECOGNISED: a status that no table of ours names.
    """

    ABSENT = "absent"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STUCK = "stuck"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True)
class RefundObservation:
    """The gateway's truth about one refund at one moment; `status` is its own word.

    `failure` is there when the state is FAILED or STUCK, `refunded_at` when it is SUCCEEDED and
    the gateway says when.
    """

    state: RefundState
    status: str
    reference: str | None = None
    failure: Failure | None = None
    refunded_at: datetime | None = None


@dataclass(frozen=True)
class ForeignRefund:
    """A refund that a gateway tells of, whoever made it; `number` is what the gateway tells it
    apart by, among the refunds of that order at least. `amount_minor` is in minor units.

    `our_number` is the number of ours that it carries beside: only the record knows whether we made
    it.
    """

    number: str
    amount_minor: int
    observation: RefundObservation
    our_number: str | None = None


@dataclass(frozen=True)
class ToldRefunds:
    """What a gateway tells of refunds made elsewhere, as far as it tells of them.

    `returned_minor` is all that the order has given back, whoever asked for it, and None where the
    gateway does not say. `is_any` says that some refund of the order exists, whose ever it is.
    """

    refunds: tuple[ForeignRefund, ...] = ()
    returned_minor: int | None = None
    is_any: bool = False


@dataclass(frozen=True)
class DisputeObservation:
    """The gateway's truth about one dispute of one order at one moment.

    `reference` is the gateway's own number of it, `gateway_status` and `reason` its own words.
    `withdrawn_minor` is all that was ever taken for it and `reinstated_minor` all that was ever
    given back: neither shrinks, so that of two answers the later can be told. `fee_minor` is what
    the gateway charges for it, None where it does not tell in this currency.
    """

    reference: str
    status: DisputeStatus
    gateway_status: str
    amount_minor: int
    currency: str
    reason: str
    withdrawn_minor: int
    reinstated_minor: int
    fee_minor: int | None
    due_by: datetime | None
    opened_at: datetime


@dataclass(frozen=True)
class Capabilities:
    methods: frozenset[PaymentMethod]
    currencies: frozenset[str] | None
    """The currencies taken, or None for whatever ISO 4217 knows."""
    orders_expire: bool = False
    """Whether an order dies by itself at its `expires_at`, without being closed."""
    disputes: bool = False
    """Whether payers' banks may take the money back, so that it is worth asking."""


class Gateway(Protocol):
    """One provider, on one merchant account."""

    name: GatewayName
    capabilities: Capabilities
    mandates: Mandates | None
    """What it can do without the payer; None where nothing is set up for that."""

    async def open(self, order: Order) -> OpenOutcome:
        """Place the order, or repeat it under its own number with identical parameters.

        Raises OutcomeUnknown (repeat it), GatewayThrottled, InstructionsLost (open the next
        attempt), GatewayMisconfigured.
        """

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        """Ask what became of the order, by our number or by the gateway's own as evidence.

        Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured, and AnswerUntrusted where a
        verified answer names another amount, currency, merchant or order.
        """

    async def close(self, order: Order) -> None:
        """Ask that the order take no money any more. Returns also when the gateway declines to
        (already paid, already closed, unknown to it, too early): only a query tells what stands.

        Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured.
        """

    async def refund(self, order: RefundOrder) -> RefundObservation:
        """Ask for the refund, or repeat it under its own number with identical parameters.

        A gateway that refuses for good (too much, too late, not refundable) answers FAILED.
        Raises OutcomeUnknown (repeat it), GatewayThrottled, BalanceInsufficient (repeat it once
        the merchant's account there is topped up), GatewayMisconfigured, and AnswerUntrusted
        where a verified answer names another amount, currency, merchant, order or refund.
        """

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        """Ask what became of the refund, by its number.

        Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured, AnswerUntrusted.
        """

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        """The refunds of a paid order, so that those made without us are found among them.

        `hints` are numbers of such refunds that webhooks named: a gateway that lists no refunds is
        asked about each of them, and knows of the others at most that they are there.
        Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured, and AnswerUntrusted where a
        verified answer names another merchant, order, refund or currency.
        """

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        """Every dispute there ever was of a paid order, oldest first; none, without a call, where
        the gateway has no disputes.

        Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured, AnswerUntrusted.
        """

    async def aclose(self) -> None:
        """Release connections."""


class WebhookRefused(Exception):
    """The request is not a fresh, genuine message of this gateway; nothing may change."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Notification:
    """A verified webhook. `number` is our order number, None where it speaks of no order;
    `refund_number` is our refund's, where it speaks of one of those, and `foreign_refund` that of
    a refund that was not made by us. `disputed_reference` and `refunded_reference` are the
    gateway's own number of the order, where it speaks of a dispute or of a foreign refund, or of
    one of ours without our number of the order.
    `mandate_number` and `mandate_reference` are our and the gateway's own number of a mandate,
    where it speaks of one and names them. `reply` is the answer to it once it is stored, where
    that is not the verifier's `accepted`."""

    event_id: str
    event_type: str
    number: str | None
    refund_number: str | None = None
    disputed_reference: str | None = None
    foreign_refund: str | None = None
    refunded_reference: str | None = None
    mandate_number: str | None = None
    mandate_reference: str | None = None
    reply: "Reply | None" = None


PAID_EVENTS: Final[Mapping[GatewayName, frozenset[str]]] = {
    GatewayName.STRIPE: frozenset({"payment_intent.succeeded"}),
    GatewayName.ALIPAY: frozenset({"TRADE_SUCCESS"}),
    GatewayName.WECHATPAY: frozenset({"TRANSACTION.SUCCESS", "DEDUCT.SUCCESS"}),
}
"""The `event_type` by which each gateway tells that an order is paid, and nothing else."""

MAX_REFUND_NUMBER: Final = 64
"""Characters, at Alipay and WeChat Pay; Stripe's are shorter."""


@dataclass(frozen=True)
class Reply:
    """What a gateway wants to read, to the byte."""

    status_code: int
    body: bytes
    media_type: str


class WebhookVerifier(Protocol):
    """The receiving end of one gateway's webhooks."""

    name: GatewayName
    accepted: Reply

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Notification:
        """Check the signature over the raw body and read what it is about.

        `headers` has lower-case names. Raises WebhookRefused.
        """

    def refused(self, status_code: int, reason: str) -> Reply:
        """The answer to a message we did not take, in the gateway's own form."""


class ReceiptMismatch(AnswerUntrusted):
    """Our order was paid with other money than it asked for; a person may have it returned."""

    def __init__(self, reason: str, detail: str, receipt: Receipt) -> None:
        super().__init__(reason, detail)
        self.receipt = receipt


def check_receipt(order: Order, receipt: Receipt) -> Receipt:
    """The receipt itself, if it is the money the order asked for; ReceiptMismatch if not."""
    if receipt.currency != order.currency:
        raise ReceiptMismatch(
            "currency_mismatch",
            f"{order.number} asks for {order.currency}, the gateway reports {receipt.currency}",
            receipt,
        )
    if receipt.amount_minor != order.amount_minor:
        raise ReceiptMismatch(
            "amount_mismatch",
            f"{order.number} asks for {order.amount_minor} {order.currency} in minor units, "
            f"the gateway reports {receipt.amount_minor}",
            receipt,
        )
    return receipt
