"""Stripe's objects as far as we read them, checked before anything rests on them.

Field meanings: Stripe API 2026-10-28.endive, PaymentIntent, Charge, Refund, Dispute,
Customer, SetupIntent, PaymentMethod and the error object.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import stripe
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from billing.errors import OutcomeUnknown

REFUND_NUMBER: Final = "refund_id"
REFUND_PAYMENT: Final = "payment_number"
"""The names in a refund's metadata of its own number and of the order's."""


MANDATE_METHOD: Final = "method_id"
MANDATE_NUMBER: Final = "number"
"""The names in a SetupIntent's metadata of the saved method's id and of our number of it."""

INTENT_PATTERN: Final = r"^pi_[A-Za-z0-9_]{1,250}$"
_INTENT_ID: Final = re.compile(INTENT_PATTERN)


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


def _intent_id(value: object) -> str | None:
    """The id of a PaymentIntent, from the object or from itself; None where it cannot be read."""
    named = value.get("id") if isinstance(value, Mapping) else value
    return named if isinstance(named, str) and _INTENT_ID.fullmatch(named) else None


class ErrorView(_View):
    """The error object of an answer, the `last_payment_error` of a PaymentIntent or the
    `last_setup_error` of a SetupIntent."""

    type: str | None = None
    code: str | None = None
    decline_code: str | None = None
    advice_code: str | None = None
    param: str | None = None
    payment_intent: Annotated[str | None, BeforeValidator(_intent_id)] = None
    message: str | None = None


class ChargeView(_View):
    id: str = Field(min_length=1, max_length=255)
    created: int
    """Unix seconds."""
    payment_intent: str | None = None


class IntentView(_View):
    """A PaymentIntent; amounts are in Stripe's own units, the currency is lower case."""

    id: str = Field(pattern=INTENT_PATTERN)
    status: str = Field(min_length=1, max_length=100)
    amount: int
    amount_received: int = 0
    currency: str = Field(pattern=r"^[a-z]{3}$")
    client_secret: str | None = Field(default=None, repr=False)
    livemode: bool
    metadata: dict[str, str]
    latest_charge: ChargeView | str | None = None
    last_payment_error: ErrorView | None = None


class IntentPage(_View):
    """One page of a list, newest first; its members may belong to other systems."""

    data: list[dict[str, Any]]
    has_more: bool


class RefundView(_View):
    """A Refund; the amount is in Stripe's own units, the currency is lower case."""

    id: str = Field(pattern=r"^[a-z]+_[A-Za-z0-9_]{1,250}$")
    status: str | None = Field(max_length=100)
    amount: int
    currency: str = Field(pattern=r"^[a-z]{3}$")
    charge: str | None = None
    payment_intent: str | None = None
    metadata: dict[str, str]
    failure_reason: str | None = Field(default=None, max_length=100)


class RefundPage(_View):
    """One page of a list of refunds; its members may belong to other systems."""

    data: list[dict[str, Any]]
    has_more: bool


class DisputeMoneyView(_View):
    """A balance transaction of a dispute, in Stripe's own units: `amount` is below zero where
    money was withdrawn."""

    amount: int
    fee: int
    currency: str = Field(pattern=r"^[a-z]{3}$")


class EvidenceView(_View):
    due_by: int | None = None
    """Unix seconds."""


class DisputeView(_View):
    """A Dispute; the amount is in Stripe's own units, the currency is lower case."""

    id: str = Field(pattern=r"^[a-z]+_[A-Za-z0-9_]{1,250}$")
    status: str = Field(min_length=1, max_length=100)
    amount: int = Field(ge=0)
    currency: str = Field(pattern=r"^[a-z]{3}$")
    reason: str = Field(max_length=100)
    payment_intent: str | None = None
    created: int
    """Unix seconds."""
    livemode: bool
    balance_transactions: list[DisputeMoneyView]
    evidence_details: EvidenceView | None = None


class DisputePage(_View):
    """One page of a list of disputes, newest first."""

    data: list[dict[str, Any]]
    has_more: bool


class CustomerView(_View):
    id: str = Field(pattern=r"^cus_[A-Za-z0-9_]{1,250}$")
    livemode: bool


def _id_of(value: object) -> object:
    """The id of what may be given whole."""
    return value.get("id") if isinstance(value, Mapping) else value


class SetupView(_View):
    """A SetupIntent."""

    id: str = Field(pattern=r"^seti_[A-Za-z0-9_]{1,250}$")
    status: str = Field(min_length=1, max_length=100)
    client_secret: str | None = Field(default=None, repr=False)
    customer: Annotated[str | None, BeforeValidator(_id_of)] = None
    payment_method: Annotated[str | None, BeforeValidator(_id_of)] = None
    livemode: bool
    metadata: dict[str, str]
    last_setup_error: ErrorView | None = None


class SetupPage(_View):
    """One page of a list of SetupIntents, newest first; some may belong to other systems."""

    data: list[dict[str, Any]]
    has_more: bool


class CardView(_View):
    brand: str = Field(min_length=1, max_length=100)
    last4: str = Field(pattern=r"^[0-9]{4}$")
    exp_month: int = Field(ge=1, le=12)
    exp_year: int


class SavedCardView(_View):
    """A PaymentMethod; without a customer it can never be charged (again)."""

    id: str = Field(min_length=1, max_length=255)
    customer: Annotated[str | None, BeforeValidator(_id_of)] = None
    card: CardView | None = None


View = TypeVar("View", bound=_View)


def read(view: type[View], answer: object) -> View:
    """The part of an answer we know how to read. Raises OutcomeUnknown, never showing values."""
    if isinstance(answer, stripe.StripeObject):
        answer = answer.to_dict()
    try:
        return view.model_validate(answer)
    except ValidationError as problem:
        places = {".".join(map(str, error["loc"])) or "the whole" for error in problem.errors()}
        raise OutcomeUnknown(
            f"Stripe answered with something that is no {view.__name__.removesuffix('View')}:"
            f" {', '.join(sorted(places))}"
        ) from None


def belongs_to(metadata: object, payment_id: str, attempt: int) -> bool:
    """Whether an object's metadata says that it was made for this attempt."""
    return isinstance(metadata, Mapping) and (
        metadata.get("payment_id") == payment_id and metadata.get("attempt") == str(attempt)
    )
