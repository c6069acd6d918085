import random
import uuid
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.cards import contains_card_number, passes_luhn

ISSUED = ["4", "51", "2221", "2720", "34", "37", "36", "6011", "62", "3528", "5018", "81", "2200"]


def card_number(prefix: str, length: int, digits: random.Random) -> str:
    body = prefix + "".join(str(digits.randrange(10)) for _ in range(length - len(prefix) - 1))
    return next(body + str(check) for check in range(10) if passes_luhn(body + str(check)))


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242.4242.4242.4242",
        "4242 - 4242 - 4242 - 4242",
        "4242\u00a04242\u20134242\u20104242",
        "4242\u200b4242\u200b4242\u200b4242",
        "card4242424242424242end",
        "order 17 4242424242424242",
        "4242 4242 4242 4242 5555 5555 5555 4444",
        "４２４２４２４２４２４２４２４２",
        "３７８２ ８２２４６ ３１０００５",
        "378282246310005",
        "3056 930902 5904",
        "4222222222222",
        "6205500000000000004",
        '{"pan":"5555555555554444"}',
    ],
)
def test_a_card_number_is_found_however_it_is_written(text: str) -> None:
    assert contains_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4242424242424241",
        "42424242424242424242424242424242",
        "4242,4242,4242,4242",
        "1234567812345670",
        "+86 138 1234 5678",
        "1767225600000",
        "2026-11-23T10:30:55.123456Z",
        "4242 4242 4242 x 4242",
        "550e8400-4242-4242-4242-424242424242",
        "a4242424242424242deadbeefdeadbeef",
    ],
)
def test_other_numbers_pass(text: str) -> None:
    assert not contains_card_number(text)


@given(
    prefix=st.sampled_from(ISSUED),
    length=st.integers(13, 19),
    seed=st.integers(0, 2**32),
    separator=st.sampled_from(["", " ", "-"]),
    before=st.text(
        st.characters(categories=["L", "P", "Zs"], exclude_characters="-. "), max_size=9
    ),
)
def test_planted_numbers_are_found(
    prefix: str, length: int, seed: int, separator: str, before: str
) -> None:
    number = card_number(prefix, length, random.Random(seed))
    written = separator.join(number[at : at + 4] for at in range(0, length, 4))
    assert contains_card_number(f"{before}{written}{before}")


def test_identifiers_that_keys_are_made_of_are_never_taken_for_cards() -> None:
    source = random.Random(7)
    for _ in range(20_000):
        identifier = uuid.UUID(int=source.getrandbits(128), version=4)
        assert not contains_card_number(str(identifier))
        assert not contains_card_number(identifier.hex) or identifier.hex.isdecimal()


@pytest.mark.parametrize("form", ["%d-%m-%Y", "%m/%d/%Y", "%Y-%m-%d", "%d.%m.%Y"])
def test_periods_that_descriptions_speak_of_are_never_taken_for_cards(form: str) -> None:
    first = date(2026, 1, 1)
    for days in range(365):
        start = first + timedelta(days=days)
        period = f"{start.strftime(form)} - {(start + timedelta(days=30)).strftime(form)}"
        assert not contains_card_number(f"Membership {period}")
