"""What the workflow and the activities of a subscription say to each other."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from billing.dunning import Debt, DunningSchedule
from billing.messages import Message, RefundRequest
from billing.payment import Failure, GatewayName, Payer, PaymentMethod, PaymentStatus
from billing.plans import Plan
from billing.rails import WechatNotice
from billing.subscription import (
    Decision,
    StepKind,
    Subscription,
    SubscriptionOrder,
    SubscriptionStatus,
    When,
)

SUBSCRIPTION_WORKFLOW: Final = "Subscription"
PAYMENT_ENDED: Final = "payment_ended"
METHOD_SIGNED: Final = "method_signed"


class PaymentWay(Message):
    """How the customer pays where nothing is charged by itself."""

    gateway: GatewayName
    method: PaymentMethod
    return_url: str | None = None
    payer: Payer | None = None


class SubscriptionTerms(Message):
    """What a subscription is kept by, whatever the deployment says later. `way` is how the customer
    pays by hand, `minimum` (minor units) the least amount that is charged at its gateway."""

    way: PaymentWay
    schedule: DunningSchedule = Field(default_factory=DunningSchedule)
    minimum: int = 1


class SubscriptionStart(Message):
    """Who signs up for what; the input of `Subscription`. `resumed` marks a run that goes on from
    the record."""

    order: SubscriptionOrder
    application: str
    terms: SubscriptionTerms
    created_at: datetime
    resumed: bool = False


class ChargeStatus(StrEnum):
    OPEN = "open"
    PAID = "paid"
    FAILED = "failed"


class Charge(Message):
    """One payment of a subscription: `decision` is what it pays for, and takes effect once it is
    paid. `number` counts the subscription's charges; `method_id` is the saved method that it is
    charged to, None where the customer pays by hand. `is_due` tells a period's own charge, without
    which the period begins unpaid, from one that somebody commanded. `clock_ahead` (seconds) is how
    far a test clock is ahead of wall time, `until` when the window of its mandate closes."""

    number: int
    payment_id: str
    kind: StepKind
    way: PaymentWay
    method_id: str | None = None
    is_due: bool = False
    clock_ahead: int = 0
    until: datetime | None = None
    decision: Decision
    opened_at: datetime
    expires_at: datetime

    @property
    def period_number(self) -> int:
        return self.decision.after.period.number


class ChargeEnd(Message):
    """What became of a payment."""

    payment_id: str
    status: PaymentStatus
    failure: Failure | None = None


class GivingBack(Message):
    """What is still to be given back: `amount` (minor units) of what was paid for the subscription,
    the newest payments first, or else the whole of one payment. The amount is the rest that was
    unused at `used_until`, without regard to what has gone back of it already."""

    amount: int | None = None
    used_until: datetime | None = None
    payment_id: str | None = None
    reason: str


class Announced(WechatNotice):
    """What was last announced of a charge to come, to WeChat Pay or to the customer; `number` is
    that of the period which it pays for, `method_id` the contract that it was announced of."""

    number: int
    method_id: str | None = None


class SubscriptionStanding(Message):
    """Where a subscription stands in the record. `version` counts its writes, `charges` its
    charges; `charge` is the one under way, and `charge_end` how its payment has ended. Only a read
    tells `signed`, the saved method that was signed for what the plan costs where another stands,
    and `refunded` (minor units), what has gone back of what was paid for the current period, which
    last changed at `refunded_at`."""

    subscription: Subscription
    version: int
    charges: int = 0
    debt: Debt | None = None
    charge: Charge | None = None
    charge_end: ChargeEnd | None = None
    announced: Announced | None = None
    giving_back: GivingBack | None = None
    signed: str | None = None
    refunded: int = 0
    refunded_at: datetime | None = None

    @property
    def plan_to_come(self) -> Plan:
        """What it will be renewed on, once the change under way is paid."""
        found, charge = self.subscription, self.charge
        if charge is not None and charge.kind is StepKind.CHANGE:
            found = charge.decision.after
        return found.pending.plan if found.pending else found.plan

    @property
    def is_paid_ahead(self) -> bool:
        """Whether the payment under way is made already, and takes effect with its period."""
        end = self.charge_end
        return self.charge is not None and end is not None and end.status is PaymentStatus.SUCCEEDED

    @property
    def taken_at(self) -> datetime | None:
        """When what is paid ahead takes effect; None where nothing is."""
        is_coming = self.is_paid_ahead and not self.subscription.status.is_terminal
        return self.charge.decision.effective_at if self.charge and is_coming else None

    @property
    def is_forgone(self) -> bool:
        """Whether the payment under way is to be closed: one by hand that is not known to be made,
        for a period that its customer wants no more. What is charged to a saved method may be taken
        already, and a change may still be paid for what is left."""
        charge = self.charge
        return (
            self.subscription.cancel_at_period_end
            and charge is not None
            and charge.method_id is None
            and charge.kind is not StepKind.CHANGE
            and self.charge_end is None
        )

    @property
    def ends_at(self) -> datetime | None:
        """When it ends, nobody taking that back; None where it goes on, has ended, or a payment
        under way decides."""
        found, charge = self.subscription, self.charge
        if not found.cancel_at_period_end:
            return None
        if charge is None:
            return found.period.end
        return charge.decision.after.period.end if self.is_paid_ahead else None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done for it."""
        is_under_way = self.charge is not None or self.giving_back is not None
        return self.subscription.status.is_terminal and not is_under_way


class SubscriptionAnswer(Message):
    """What a command came to; `payment_id` is the payment that it waits for."""

    subscription: Subscription
    payment_id: str | None = None


class OpenSubscription(Message):
    start: SubscriptionStart
    subscription: Subscription
    now: datetime


class ReadSubscription(Message):
    subscription_id: str


class WriteSubscription(Message):
    """One step: the subscription as it is from now on, `version` being that before. `opened` is a
    charge that begins with it, `closed` how the one under way has ended. `next_at` is when
    something happens by itself. What is None is forgotten."""

    version: int
    subscription: Subscription
    debt: Debt | None = None
    announced: Announced | None = None
    giving_back: GivingBack | None = None
    event: str
    data: dict[str, Any] = Field(default_factory=dict)
    opened: Charge | None = None
    closed: ChargeStatus | None = None
    next_at: datetime | None = None
    now: datetime


class PrepareCharge(Message):
    """Have a mandate ready for a charge of this amount (minor units) that is due at `due_at`, for
    the period of that number; unless it `may_wait`, at once or not at all."""

    subscription_id: str
    gateway: GatewayName
    method_id: str
    kind: StepKind
    amount: int
    currency: str
    due_at: datetime
    number: int
    announced: Announced | None = None
    may_wait: bool = True
    now: datetime


class PreparedCharge(Message):
    """When the mandate may be charged, or is to be prepared again where `is_ready` is False; None
    where it cannot carry the charge at all. `until` is when a window closes that is open."""

    is_ready: bool
    at: datetime | None = None
    until: datetime | None = None
    announced: Announced | None = None


class FindReturns(Message):
    """Find the payments from which that is given back."""

    subscription_id: str
    giving_back: GivingBack
    now: datetime


class FoundReturns(Message):
    """The refunds to be started; `covered` (minor units) is what they come to, `gone` what of the
    amount is not given back any more, as its payments were refunded or disputed before."""

    refunds: tuple[RefundRequest, ...] = ()
    covered: int = 0
    gone: int = 0


class SubscriptionOver(Message):
    subscription_id: str
    status: SubscriptionStatus


class CancelSubscription(Message):
    at_period_end: bool = True
    refund: bool = False


class PauseSubscription(Message):
    at_period_end: bool = False
    until: datetime | None = None


class ResumeSubscription(Message):
    pass


class ChangeSubscription(Message):
    """To another plan; `when` None is when such a change usually takes effect. `quoted_at` is the
    instant of a preview that is to be charged as it was."""

    plan: Plan
    when: When | None = None
    way: PaymentWay | None = None
    quoted_at: datetime | None = None


class ChangeMethod(Message):
    """Without `payment_method_id` the customer is asked each time."""

    gateway: GatewayName
    payment_method_id: str | None = None
    backup_payment_method_id: str | None = None


class PaySubscription(Message):
    """The customer pays what is owed by hand, in this way."""

    way: PaymentWay


class OperatorAction(StrEnum):
    """RETRY charges what is owed now; WAIVE forgives it; MOVE lets the period end later; END ends
    the subscription now."""

    RETRY = "retry"
    WAIVE = "waive"
    MOVE = "move"
    END = "end"


class OperateSubscription(Message):
    """`until` is the period's new end, where it is moved."""

    action: OperatorAction
    reason: str
    operated_by: str
    until: datetime | None = None


SubscriptionCommand = (
    CancelSubscription
    | PauseSubscription
    | ResumeSubscription
    | ChangeSubscription
    | ChangeMethod
    | PaySubscription
    | OperateSubscription
)
