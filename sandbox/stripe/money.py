"""Stripe's own units and those of the sandbox's book, which are ISO 4217's minor units.

docs.stripe.com/currencies: ISK and UGX have no minor unit and are written with two decimals that
are always 00; MGA has one, and is written in whole ariary.
"""

from typing import Final

_TOO_LARGE: Final = {"ISK": 100, "UGX": 100}
_TOO_SMALL: Final = {"MGA": 100}


def minor_units(amount: int, currency: str) -> int:
    """Stripe's amount of that currency, in either case, as the book keeps it."""
    name = currency.upper()
    return amount * _TOO_SMALL.get(name, 1) // _TOO_LARGE.get(name, 1)
