"""Identifiers sort by time, fit every gateway, and are read back as they were made."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.identifiers import (
    MAX_ATTEMPT,
    attempt_number,
    gateway_key,
    is_payment_id,
    make_id,
    parse_attempt_number,
    update_id,
)

moments = st.integers(min_value=0, max_value=2**48 - 1)
entropies = st.binary(min_size=10, max_size=10)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@given(moment=moments, entropy=entropies)
def test_an_id_is_a_uuid7_in_crockford_base32(moment: int, entropy: bytes) -> None:
    made = make_id("pay", moment, entropy)
    assert is_payment_id(made)
    assert len(made) == 30
    value = 0
    for character in made.removeprefix("pay_"):
        value = value * 32 + _ALPHABET.index(character)
    parsed = uuid.UUID(int=value)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert value >> 80 == moment


@given(first=moments, second=moments, entropy=entropies, other=entropies)
def test_ids_sort_by_time(first: int, second: int, entropy: bytes, other: bytes) -> None:
    if first < second:
        assert make_id("pay", first, entropy) < make_id("pay", second, other)


@given(moment=moments, entropy=entropies, attempt=st.integers(1, MAX_ATTEMPT))
def test_an_attempts_number_is_read_back(moment: int, entropy: bytes, attempt: int) -> None:
    payment_id = make_id("pay", moment, entropy)
    number = attempt_number(payment_id, attempt)
    assert len(number) <= 32
    assert parse_attempt_number(number) == (payment_id, attempt)


@given(text=st.text(max_size=40))
def test_what_is_no_number_of_ours_is_none(text: str) -> None:
    parsed = parse_attempt_number(text)
    assert parsed is None or attempt_number(*parsed) == text


@pytest.mark.parametrize("attempt", [0, -1, 100])
def test_attempts_are_bounded(attempt: int) -> None:
    with pytest.raises(ValueError, match="attempt"):
        attempt_number("pay_01hf7yat00fzzvzzzzzzzzzzzz", attempt)


def test_no_second_spelling_of_the_first_attempt() -> None:
    assert parse_attempt_number("pay_01hf7yat00fzzvzzzzzzzzzzzz01") is None


def test_keys_tell_steps_attempts_and_applications_apart() -> None:
    keys = {gateway_key("p", 1, "open"), gateway_key("p", 2, "open"), gateway_key("p", 1, "x")}
    assert len(keys) == 3
    ids = {update_id("create", "a", "bc"), update_id("create", "ab", "c")}
    assert len(ids) == 2
    assert update_id("create", "a", "k") == update_id("create", "a", "k")
