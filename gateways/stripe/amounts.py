"""Amounts between ISO 4217 minor units, in which all of Everbill counts, and Stripe's own.

They differ for three currencies (docs.stripe.com/currencies, "Zero-decimal currencies" and
"Special cases"): ISK and UGX have no minor unit, but Stripe takes them with two decimals that are
always 00; MGA has one, but Stripe takes whole ariary.
"""

from typing import Final

from billing.money import exponent

_STRIPE_EXPONENTS: Final = {"ISK": 2, "UGX": 2, "MGA": 0}


def to_stripe(amount_minor: int, currency: str) -> int | None:
    """What Stripe calls this amount; None where it has no way to say it."""
    return _shift(amount_minor, _difference(currency))


def from_stripe(amount: int, currency: str) -> int | None:
    """Stripe's amount in minor units; None where it is a fraction of one."""
    return _shift(amount, -_difference(currency))


def _difference(currency: str) -> int:
    ours = exponent(currency)
    return _STRIPE_EXPONENTS.get(currency, ours) - ours


def _shift(amount: int, digits: int) -> int | None:
    if digits >= 0:
        return int(amount * 10**digits)
    whole, rest = divmod(amount, 10**-digits)
    return None if rest else int(whole)
