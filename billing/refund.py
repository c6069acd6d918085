"""A refund: its words, its state machine, what each gateway allows, and how everybody sees it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from billing.payment import Failure, GatewayName, Review


class RefundStatus(StrEnum):
    """PENDING: reserved, not yet asked for. PROCESSING: the gateway has accepted it. SUCCEEDED can
    still fail: a bank sends back what it cannot place."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NEEDS_REVIEW = "needs_review"

    @property
    def has_ended(self) -> bool:
        return self in (RefundStatus.SUCCEEDED, RefundStatus.FAILED)


_S = RefundStatus
TRANSITIONS: Final[dict[RefundStatus, frozenset[RefundStatus]]] = {
    _S.PENDING: frozenset({_S.PROCESSING, _S.SUCCEEDED, _S.FAILED, _S.NEEDS_REVIEW}),
    _S.PROCESSING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.NEEDS_REVIEW}),
    _S.NEEDS_REVIEW: frozenset({_S.PROCESSING, _S.SUCCEEDED, _S.FAILED}),
    _S.SUCCEEDED: frozenset({_S.FAILED}),
    _S.FAILED: frozenset(),
}


def sources_of(target: RefundStatus) -> frozenset[RefundStatus]:
    """The states a write of `target` must name as those before it."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


LONGEST_REASON: Final = 80
"""Characters: what WeChat Pay takes of a refund's reason."""


class RefundCause(StrEnum):
    """REQUESTED by the application; RETURNED by ourselves: no payment waited for the money.
    ELSEWHERE: made at the gateway without us, and only recorded here."""

    REQUESTED = "requested"
    RETURNED = "returned"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class RefundLimits:
    """What a gateway allows for one payment: the pause between two refunds of it, how many there
    may be, and how long after the payment the last one. None: as many, as long as one likes."""

    pause: timedelta = timedelta(0)
    count: int | None = None
    age: timedelta | None = None


REFUND_LIMITS: Final[dict[GatewayName, RefundLimits]] = {
    GatewayName.STRIPE: RefundLimits(),
    GatewayName.ALIPAY: RefundLimits(pause=timedelta(seconds=3), age=timedelta(days=365)),
    GatewayName.WECHATPAY: RefundLimits(
        pause=timedelta(minutes=1), count=50, age=timedelta(days=365)
    ),
}
"""Alipay: alipay.trade.refund, three seconds between refunds of a trade, about twelve months.
WeChat Pay: APIv3 refunds, one minute between refunds of an order, fifty of them, 365 days."""


class Refund(BaseModel):
    """The refund as the API and the workflow's answers show it: every field always present.

    `amount` is in minor units. `refunded_at` is when the gateway says that it was done.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    payment_id: str
    cause: RefundCause
    status: RefundStatus
    amount: int
    currency: str
    gateway: GatewayName
    reason: str
    gateway_reference: str | None
    failure: Failure | None
    review: Review | None
    created_at: datetime
    updated_at: datetime
    refunded_at: datetime | None
