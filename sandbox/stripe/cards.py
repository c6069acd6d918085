"""Stripe's test cards: what each does, by its number or its `pm_card_…` token.

From docs.stripe.com/testing; a number that is not listed is treated as test mode treats a real
card.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sandbox.stripe.errors import StripeError
from sandbox.stripe.forms import Form

_MESSAGES: Final = {
    "card_declined": "Your card was declined.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": (
        "An error occurred while processing your card. Try again in a little bit."
    ),
}
_ADVICE: Final = {
    "insufficient_funds": "try_again_later",
    "processing_error": "try_again_later",
    "card_velocity_exceeded": "try_again_later",
    "generic_decline": "try_again_later",
    "expired_card": "confirm_card_data",
    "incorrect_cvc": "confirm_card_data",
    "lost_card": "do_not_try_again",
    "stolen_card": "do_not_try_again",
}
_OWN_CODES: Final = {"expired_card", "incorrect_cvc", "processing_error"}
"""Declines whose error code is not `card_declined`."""

_DECLINE_WORD: Final = re.compile(r"[a-z][a-z_]{2,60}")


@dataclass(frozen=True)
class Card:
    """A test card. `decline` is the decline code it ends in, None when it pays. `refund` is the
    course of a refund to it: `pending` before it succeeds, or one that `fails` after it had
    succeeded; None for one that succeeds at once. `dispute` is the reason for which a charge of it
    is disputed right after.

    `can_be_saved` is one that is saved although it declines when charged; `is_exempt_once_saved`
    one that needs no 3DS any more for charges without the payer.
    """

    number: str
    brand: str = "visa"
    decline: str | None = None
    needs_3ds: bool = False
    can_be_saved: bool = False
    is_exempt_once_saved: bool = False
    declines_only_with_cvc: bool = False
    refund: str | None = None
    dispute: str | None = None
    exp_month: int = 12
    exp_year: int = 2034

    @property
    def last4(self) -> str:
        return self.number[-4:]


GOOD: Final = Card("4242424242424242")
_DECLINED: Final = Card("4000000000000002", decline="generic_decline")
_CARDS: Final = {
    card.number: card
    for card in (
        GOOD,
        Card("5555555555554444", "mastercard"),
        Card("378282246310005", "amex"),
        Card("4000000000007726", refund="pending"),
        Card("4000000000005126", refund="fails"),
        Card("4000000000000259", dispute="fraudulent"),
        Card("4000000000002685", dispute="product_not_received"),
        _DECLINED,
        Card("4000000000009995", decline="insufficient_funds"),
        Card("4000000000009987", decline="lost_card"),
        Card("4000000000009979", decline="stolen_card"),
        Card("4000000000000069", decline="expired_card"),
        Card("4000000000000127", decline="incorrect_cvc", declines_only_with_cvc=True),
        Card("4000000000000119", decline="processing_error"),
        Card("4000000000006975", decline="card_velocity_exceeded"),
        Card("4000000000000341", decline="generic_decline", can_be_saved=True),
        Card("4000002500003155", needs_3ds=True, is_exempt_once_saved=True),
        Card("4000002760003184", needs_3ds=True),
        Card("4000000000003220", needs_3ds=True),
        Card(
            "4000008260003178",
            decline="insufficient_funds",
            needs_3ds=True,
            can_be_saved=True,
            is_exempt_once_saved=True,
        ),
    )
}
_TOKENS: Final = {
    "pm_card_visa": "4242424242424242",
    "pm_card_mastercard": "5555555555554444",
    "pm_card_amex": "378282246310005",
    "pm_card_pendingRefund": "4000000000007726",
    "pm_card_refundFail": "4000000000005126",
    "pm_card_createDispute": "4000000000000259",
    "pm_card_createDisputeProductNotReceived": "4000000000002685",
    "pm_card_chargeDeclined": "4000000000000002",
    "pm_card_visa_chargeDeclined": "4000000000000002",
    "pm_card_chargeDeclinedInsufficientFunds": "4000000000009995",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "4000000000009995",
    "pm_card_visa_chargeDeclinedLostCard": "4000000000009987",
    "pm_card_visa_chargeDeclinedStolenCard": "4000000000009979",
    "pm_card_chargeDeclinedExpiredCard": "4000000000000069",
    "pm_card_chargeDeclinedIncorrectCvc": "4000000000000127",
    "pm_card_chargeDeclinedProcessingError": "4000000000000119",
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": "4000000000006975",
    "pm_card_chargeCustomerFail": "4000000000000341",
    "pm_card_authenticationRequiredOnSetup": "4000002500003155",
    "pm_card_authenticationRequired": "4000002760003184",
    "pm_card_threeDSecure2Required": "4000000000003220",
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": "4000008260003178",
}


@dataclass(frozen=True)
class Problem:
    """Why a charge did not go through, in Stripe's words."""

    code: str
    decline_code: str | None
    message: str
    advice_code: str | None = None


def problem_of(decline: str) -> Problem:
    """The error that a decline code shows itself as."""
    code = decline if decline in _OWN_CODES else "card_declined"
    message = _MESSAGES[code]
    if decline == "insufficient_funds":
        message = "Your card has insufficient funds."
    return Problem(code, decline, message, _ADVICE.get(decline))


def card_by_number(number: str) -> Card:
    """Raises StripeError, as test mode does for numbers that are not a test card's."""
    card = _CARDS.get(number)
    if card:
        return card
    if not number.isdigit() or not _passes_luhn(number):
        raise _card_error("incorrect_number", "Your card number is incorrect.", "number")
    return Card(number, decline="test_mode_live_card")


def no_such_method(name: str) -> StripeError:
    """The refusal of a parameter that names a payment method which is not there."""
    return StripeError(
        400, f"No such PaymentMethod: '{name}'", code="resource_missing", param="payment_method"
    )


def is_token(name: str) -> bool:
    """Whether it is the name of a test payment method, not the id of one that somebody made."""
    return name.startswith("pm_card_")


def card_by_token(token: str) -> Card:
    """Raises StripeError (400) for what is not one of Stripe's test payment methods."""
    number = _TOKENS.get(token)
    if number is None:
        raise no_such_method(token)
    return _CARDS[number]


def card_that_declines(decline_code: str | None) -> Card:
    """A card that ends in this decline code, also in one that no test card stands for.

    Raises ValueError where it cannot be a decline code.
    """
    if decline_code is None:
        return _DECLINED
    if not _DECLINE_WORD.fullmatch(decline_code):
        raise ValueError(f"{decline_code!r} cannot be a decline code of Stripe")
    for card in _CARDS.values():
        if card.decline == decline_code and not card.needs_3ds:
            return replace(card, declines_only_with_cvc=False)
    return replace(_DECLINED, decline=decline_code)


def card_from_data(data: Form, now: datetime) -> Card:
    """The card typed into a form (`payment_method_data`). Raises StripeError."""
    if data.get("type") != "card" or not isinstance(data.get("card"), dict):
        raise StripeError(
            400,
            "This sandbox takes payment_method_data of type card with card[number].",
            param="payment_method_data[type]",
        )
    typed: Form = data["card"]
    if "number" not in typed:
        raise StripeError(
            400,
            "Missing required param: payment_method_data[card][number].",
            code="parameter_missing",
            param="payment_method_data[card][number]",
        )
    card = card_by_number(str(typed["number"]).replace(" ", ""))
    month, year = _read_expiry(typed, now)
    card = replace(card, exp_month=month, exp_year=year)
    if card.declines_only_with_cvc and not typed.get("cvc"):
        return replace(card, decline=None)
    return card


def _read_expiry(typed: Form, now: datetime) -> tuple[int, int]:
    month, year = str(typed.get("exp_month", "12")), str(typed.get("exp_year", now.year + 1))
    if not month.isdigit() or not 1 <= int(month) <= 12:
        raise _card_error(
            "invalid_expiry_month", "Your card's expiration month is invalid.", "exp_month"
        )
    full_year = int(year) + (2000 if len(year) == 2 else 0) if year.isdigit() else 0
    if (full_year, int(month)) < (now.year, now.month):
        raise _card_error(
            "invalid_expiry_year", "Your card's expiration year is invalid.", "exp_year"
        )
    return int(month), full_year


def _card_error(code: str, message: str, param: str) -> StripeError:
    return StripeError(402, message, type="card_error", code=code, param=param)


def _passes_luhn(number: str) -> bool:
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(doubled) + sum(int(digit) for digit in number[::-2])) % 10 == 0
