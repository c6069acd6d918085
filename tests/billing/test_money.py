"""Amounts are integers in minor units, whatever JSON calls a number."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from billing.money import CURRENCIES, AmountMinor, exponent, format_minor

ADAPTER: TypeAdapter[int] = TypeAdapter(AmountMinor)


@pytest.mark.parametrize("value", [1, 2900, 2900.0, 99_999_999])
def test_whole_numbers_are_amounts(value: float) -> None:
    taken = ADAPTER.validate_python(value)
    assert taken == value
    assert type(taken) is int


@pytest.mark.parametrize(
    "value", [0, -1, 100_000_000, 29.5, True, "29", None, float("nan"), float("inf"), [1]]
)
def test_nothing_else_is_an_amount(value: Any) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(value)


def test_the_schema_keeps_its_bounds() -> None:
    assert ADAPTER.json_schema() == {"type": "integer", "minimum": 1, "maximum": 99_999_999}


@given(amount=st.integers(-(10**12), 10**12), currency=st.sampled_from(sorted(CURRENCIES)))
def test_formatting_loses_nothing(amount: int, currency: str) -> None:
    text = format_minor(amount, currency)
    assert Decimal(text).scaleb(exponent(currency)) == amount


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(2900, "CNY", "29.00"), (5, "USD", "0.05"), (500, "JPY", "500"), (-1, "KWD", "-0.001")],
)
def test_decimals_are_the_currencys_own(amount: int, currency: str, text: str) -> None:
    assert format_minor(amount, currency) == text
