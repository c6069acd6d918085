"""A payment: its words, its state machine and the form in which everybody sees it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from billing.dispute import Dispute


class PaymentType(StrEnum):
    ONE_TIME = "one_time"
    POINTS = "points"
    SUBSCRIPTION = "subscription"


class GatewayName(StrEnum):
    STRIPE = "stripe"
    ALIPAY = "alipay"
    WECHATPAY = "wechatpay"


class PaymentMethod(StrEnum):
    CARD = "card"
    PAGE = "page"
    WAP = "wap"
    QR = "qr"
    NATIVE = "native"
    JSAPI = "jsapi"
    H5 = "h5"
    APP = "app"
    SAVED = "saved"


class PaymentStatus(StrEnum):
    CREATED = "created"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    NEEDS_REVIEW = "needs_review"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_S = PaymentStatus
_ENDINGS: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELED, _S.EXPIRED})
TRANSITIONS: Final[dict[PaymentStatus, frozenset[PaymentStatus]]] = {
    _S.CREATED: _ENDINGS | {_S.REQUIRES_ACTION, _S.PROCESSING, _S.NEEDS_REVIEW},
    _S.REQUIRES_ACTION: _ENDINGS | {_S.PROCESSING, _S.NEEDS_REVIEW},
    _S.PROCESSING: _ENDINGS | {_S.REQUIRES_ACTION, _S.NEEDS_REVIEW},
    _S.NEEDS_REVIEW: _ENDINGS | {_S.REQUIRES_ACTION, _S.PROCESSING},
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELED: frozenset(),
    _S.EXPIRED: frozenset(),
}


def sources_of(target: PaymentStatus) -> frozenset[PaymentStatus]:
    """The states a write of `target` must name as those before it."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


class AttemptState(StrEnum):
    """What is known of one order at a gateway.

    OPEN may still take money; PAID has; DEAD never will again.
    """

    OPEN = "open"
    PAID = "paid"
    DEAD = "dead"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class NoAction(_Frozen):
    type: Literal["none"] = "none"


class Redirect(_Frozen):
    type: Literal["redirect"] = "redirect"
    url: str


class QrCode(_Frozen):
    type: Literal["qr_code"] = "qr_code"
    code_url: str


class ClientSecret(_Frozen):
    type: Literal["client_secret"] = "client_secret"
    client_secret: str = Field(repr=False)
    publishable_key: str


class AppParams(_Frozen):
    type: Literal["app_params"] = "app_params"
    params: dict[str, str]


class JsapiParams(_Frozen):
    type: Literal["jsapi_params"] = "jsapi_params"
    params: dict[str, str]


NextAction = Annotated[
    NoAction | Redirect | QrCode | ClientSecret | AppParams | JsapiParams,
    Field(discriminator="type"),
]


class DeclineClass(StrEnum):
    SOFT = "soft"
    HARD = "hard"
    NEEDS_CUSTOMER = "needs_customer"


class Failure(_Frozen):
    """Why the last try did not pay.

    `code` is ours, `decline_code` the gateway's own word, `advice` what to do about it.
    """

    code: str
    decline_code: str | None = None
    advice: DeclineClass | None = None
    message: str


class Review(_Frozen):
    """Why a payment waits for a person, and since when."""

    reason: str
    detail: str
    since: datetime


class Payer(_Frozen):
    openid: str | None = Field(default=None, min_length=1, max_length=128)
    client_ip: str | None = Field(default=None, min_length=2, max_length=45)


class Payment(_Frozen):
    """The payment as the API and the workflow's answers show it: every field always present."""

    id: str
    type: PaymentType
    status: PaymentStatus
    amount: int
    currency: str
    amount_refunded: int = 0
    gateway: GatewayName
    method: PaymentMethod
    user_id: str
    description: str
    metadata: dict[str, str]
    attempt: int
    gateway_reference: str | None
    next_action: NextAction
    failure: Failure | None
    review: Review | None
    dispute: Dispute | None = None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    paid_at: datetime | None
