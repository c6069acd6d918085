"""What workflows, activities, signals and updates say to each other: one model in, one out.

Adding a field with a default keeps old histories readable; nothing is ever renamed or removed.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from billing.payment import (
    AttemptState,
    Failure,
    GatewayName,
    Payer,
    Payment,
    PaymentMethod,
    PaymentStatus,
    PaymentType,
)
from billing.points import PointsPurchase, PointsTransaction
from billing.refund import Refund, RefundCause, RefundStatus

PAYMENT_WORKFLOW: Final = "Payment"
REFUND_WORKFLOW: Final = "Refund"
REFUND_AFTER_WORKFLOW: Final = "RefundAfter"
AFTER_WORKFLOW: Final = "PaymentAfter"
SPEND_WORKFLOW: Final = "PointsSpend"
GATEWAY_REPORTED: Final = "gateway_reported"


class Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class PaymentOrder(Message):
    """What the application ordered; the input of `Payment`.

    `resumed` marks a run started from the row rather than by the application: it asks the gateway
    before it does anything else. `polls` are those of the runs before this one, `disputed` that
    one of them heard of a dispute, `refunded` of a refund made elsewhere. `points` are what a
    payment of that type buys, `subscription_id` is whose period one of that type pays for;
    `clock_ahead` (seconds) is how far its times are ahead of those that gateways go by, where a
    test clock was moved. `charge_until` is when the window closes for which a saved method was made
    ready.
    """

    payment_id: str
    type: PaymentType = PaymentType.ONE_TIME
    application: str
    user_id: str
    amount_minor: int
    currency: str
    gateway: GatewayName
    method: PaymentMethod
    description: str
    payment_method_id: str | None = None
    return_url: str | None = None
    payer: Payer | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    created_at: datetime
    expires_at: datetime
    resumed: bool = False
    polls: int = 0
    disputed: bool = False
    refunded: bool = False
    points: PointsPurchase | None = None
    subscription_id: str | None = None
    clock_ahead: int = 0
    charge_until: datetime | None = None


class ReviewAction(StrEnum):
    RETRY = "retry"
    RETURN = "return"
    CLOSE = "close"


class ReviewDecision(Message):
    """An operator's decision on a parked payment.

    `gateway_number` is the gateway's own number, given as evidence; `reviewed_by` is the id of
    the key, or the login, that decided.
    """

    action: ReviewAction
    reason: str
    reviewed_by: str
    gateway_number: str | None = None


class RefundRequest(Message):
    """What is to be given back; the input of `Refund`.

    `attempt` is the receipt's, None for the one that paid for the payment; `amount_minor` None is
    all that is left of it. `user_id` is the payment's own, `gateway` and `currency` the receipt's.
    `review` is the operator's decision, where it was one.
    """

    refund_id: str
    payment_id: str
    application: str
    user_id: str
    gateway: GatewayName
    currency: str
    amount_minor: int | None = None
    attempt: int | None = None
    cause: RefundCause = RefundCause.REQUESTED
    reason: str
    created_at: datetime
    review: ReviewDecision | None = None


class Standing(Message):
    """Where a payment stands after an activity: the record, and the attempts still alive.

    `open_attempts` are those that may yet take money, at `open_gateways`; the workflow ends when
    none is left. `gateways` are those of all attempts. `refusal` is why the gateway would not open
    the attempt that was to take the place of the payment's own. `disputes_at` is where its money
    may be disputed, `refunds_at` where it may be refunded without us.
    `needs_attention` says that something about the payment waits for a person. `returns` are the
    refunds of money it did not wait for, as long as they have not ended.
    """

    payment: Payment
    open_attempts: tuple[int, ...] = ()
    open_gateways: tuple[GatewayName, ...] = ()
    gateways: tuple[GatewayName, ...] = ()
    disputes_at: tuple[GatewayName, ...] = ()
    refunds_at: tuple[GatewayName, ...] = ()
    refusal: Failure | None = None
    needs_attention: bool = False
    returns: tuple[RefundRequest, ...] = ()


class OpenPayment(Message):
    order: PaymentOrder
    now: datetime


class SwitchOrder(Message):
    """The application's command to have a payment paid in another way. `return_url` and `payer`
    are the new way's own."""

    application: str
    gateway: GatewayName
    method: PaymentMethod
    return_url: str | None = None
    payer: Payer | None = None


class SwitchPayment(Message):
    """Place an attempt that takes the place of the payment's own, `replaces`, once it is open."""

    payment_id: str
    order: SwitchOrder
    replaces: int
    now: datetime


class SettlePayment(Message):
    """Ask the gateway what became of the open attempts there, and record it.

    `thorough` asks about dead ones as well. A parked payment stays as it is, unless this is an
    operator's `review`.
    """

    payment_id: str
    gateway: GatewayName
    now: datetime
    thorough: bool = False
    review: ReviewDecision | None = None


class ClosePayment(Message):
    """Query, close, query each open attempt at the gateway, apart from the one to `spare`; then
    give the payment `status` if none has paid.

    With `status` None only the attempts are closed: the payment has ended already, or goes on by
    another one. `order` is given where the row may not have been written yet.
    """

    payment_id: str
    gateway: GatewayName
    status: PaymentStatus | None
    now: datetime
    review: ReviewDecision | None = None
    order: PaymentOrder | None = None
    spare: int | None = None


class SettleDisputes(Message):
    """Ask the gateway for the disputes of the money it took, and record them."""

    payment_id: str
    gateway: GatewayName
    now: datetime


class DiscoverRefunds(Message):
    """Ask the gateway for refunds of the money it took that were made without us, and record
    them."""

    payment_id: str
    gateway: GatewayName
    now: datetime


class EndPayment(Message):
    """Give the payment its final status in the record alone, the gateway being out of reach."""

    payment_id: str
    status: PaymentStatus
    now: datetime
    review: ReviewDecision | None = None
    order: PaymentOrder | None = None


class FlagPayment(Message):
    """Call for a person, leaving the payment as it is."""

    payment_id: str
    reason: str
    detail: str
    now: datetime


class GatewayReport(Message):
    """A fact from outside: a webhook's id and type, never its body.

    `is_dispute` tells that it speaks of a dispute, `is_refund` of a refund made elsewhere, after
    which a query alone does not ask. `review` is an operator's decision on a payment that has
    ended: whatever the gateway confirms, though it is not what was asked for, goes back.
    """

    event_id: str
    event_type: str
    is_dispute: bool = False
    is_refund: bool = False
    review: ReviewDecision | None = None


class Command(Message):
    """A command that says no more than its name and who gave it."""

    application: str


class AfterInput(Message):
    payment_id: str
    gateway: GatewayName


class RefundStanding(Message):
    """Where a refund stands after an activity; the gateway may be asked from `ask_at` on."""

    refund: Refund
    ask_at: datetime


class ReserveRefund(Message):
    request: RefundRequest
    now: datetime


class AskRefund(Message):
    """Ask the gateway for the refund, under the number it has whatever happens."""

    refund_id: str
    gateway: GatewayName
    now: datetime


class SettleRefund(Message):
    """Ask the gateway what became of the refund, and record it."""

    refund_id: str
    gateway: GatewayName
    now: datetime


class RefundAfterInput(Message):
    refund_id: str
    gateway: GatewayName


class RefundEnded(Message):
    """What the workflow leaves behind: the final status, or why nothing was reserved."""

    refund_id: str
    status: RefundStatus | None
    refusal_code: str | None = None
    refusal: str | None = None
    refusal_param: str | None = None


class SpendRequest(Message):
    """Points to be spent; the input of `PointsSpend`, and under its id a movement of its own."""

    transaction_id: str
    application: str
    user_id: str
    points: int
    reason: str
    created_at: datetime


class SpendPoints(Message):
    request: SpendRequest
    now: datetime


class SpendEnded(Message):
    """What the workflow leaves behind: the movement, or why there is none."""

    transaction_id: str
    transaction: PointsTransaction | None
    refusal_code: str | None = None
    refusal: str | None = None
    refusal_param: str | None = None


class PaymentEnded(Message):
    """What the workflow leaves behind in Temporal; the record knows the rest."""

    payment_id: str
    status: PaymentStatus


__all__ = [
    "AFTER_WORKFLOW",
    "GATEWAY_REPORTED",
    "PAYMENT_WORKFLOW",
    "REFUND_AFTER_WORKFLOW",
    "REFUND_WORKFLOW",
    "SPEND_WORKFLOW",
    "AfterInput",
    "AskRefund",
    "AttemptState",
    "ClosePayment",
    "Command",
    "DiscoverRefunds",
    "EndPayment",
    "FlagPayment",
    "GatewayReport",
    "Message",
    "OpenPayment",
    "PaymentEnded",
    "PaymentOrder",
    "RefundAfterInput",
    "RefundEnded",
    "RefundRequest",
    "RefundStanding",
    "ReserveRefund",
    "ReviewAction",
    "ReviewDecision",
    "SettleDisputes",
    "SettlePayment",
    "SettleRefund",
    "SpendEnded",
    "SpendPoints",
    "SpendRequest",
    "Standing",
    "SwitchOrder",
    "SwitchPayment",
]
