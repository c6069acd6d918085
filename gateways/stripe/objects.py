"""Stripe's objects as far as we read them, checked before anything rests on them.

Field meanings: Stripe API 2026-10-28.endive, PaymentIntent, Charge, Refund, Dispute and the
error object.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import stripe
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing.errors import OutcomeUnknown

REFUND_NUMBER: Final = "refund_id"
REFUND_PAYMENT: Final = "payment_number"
"""The names in a refund's metadata of its own number and of the order's."""


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


class ErrorView(_View):
    """The error object of an answer, or the `last_payment_error` of a PaymentIntent."""

    type: str | None = None
    code: str | None = None
    decline_code: str | None = None
    advice_code: str | None = None
    message: str | None = None


class ChargeView(_View):
    id: str = Field(min_length=1, max_length=255)
    created: int
    """Unix seconds."""
    payment_intent: str | None = None


class IntentView(_View):
    """A PaymentIntent; amounts are in Stripe's own units, the currency is lower case."""

    id: str = Field(pattern=r"^pi_[A-Za-z0-9_]{1,250}$")
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
