"""Card numbers where none belong: found, so that they can be refused and never stored.

A card number is a run of 13 to 19 digits that passes the Luhn check (ISO/IEC 7812-1, annex B) and
begins with a range issued to a card scheme. People write them in groups, so one to three spaces,
dashes or dots may stand between digits; digits of any script count, since full-width ones are
everyday writing in Chinese.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_SHORTEST: Final = 13
_LONGEST: Final = 19

# Prefix ranges of ISO/IEC 7812 issued to card schemes: from, to, of equally many digits.
_ISSUED: Final = (
    ("2200", "2205"),  # Mir, Borica
    ("2221", "2720"),  # Mastercard
    ("300", "305"),  # Diners Club
    ("3095", "3095"),  # Diners Club
    ("34", "34"),  # American Express
    ("3528", "3589"),  # JCB
    ("36", "39"),  # American Express, Diners Club
    ("4", "4"),  # Visa
    ("50", "59"),  # Mastercard, Maestro, Verve, Elo
    ("60", "69"),  # Discover, UnionPay, Maestro, RuPay
    ("81", "82"),  # UnionPay, RuPay
    ("8600", "8600"),  # Uzcard
    ("9704", "9704"),  # Napas
    ("9792", "9792"),  # Troy
    ("9860", "9860"),  # Humo
)

_GROUPED: Final = re.compile(r"\d+(?:[ .-]{1,3}\d+)*")

# UUIDs and digests are hexadecimal, and the two dates of a period have as many digits as a card:
# by chance either would pass for one now and then.
_UUID: Final = re.compile(
    r"(?<![0-9A-Za-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9A-Za-z])", re.IGNORECASE
)
_DIGEST: Final = re.compile(
    r"(?<![0-9A-Za-z])(?=[0-9]*[a-f])[0-9a-f]{24,128}(?![0-9A-Za-z])", re.IGNORECASE
)
_DATE: Final = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d([-./])\d{1,2}\1\d{1,2}|\d{1,2}([-./])\d{1,2}\2(?:19|20)\d\d)(?!\d)"
)


def contains_card_number(text: str) -> bool:
    """Whether a run of 13 to 19 digits in the text is, by its form, a payment card's number."""
    plain = _plain(text)
    for lookalike in (_UUID, _DIGEST, _DATE):
        plain = lookalike.sub("x", plain)
    return any(
        _is_issued(run) and passes_luhn(run)
        for written in _GROUPED.findall(plain)
        for run in _runs(re.findall(r"\d+", written))
    )


def passes_luhn(digits: str) -> bool:
    """The mod-10 check over ASCII digits, the last of which is the check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_issued(digits: str) -> bool:
    return any(low <= digits[: len(low)] <= high for low, high in _ISSUED)


def _runs(groups: list[str]) -> Iterator[str]:
    """Every sequence of whole neighbouring groups that has as many digits as a card number."""
    for first in range(len(groups)):
        run = ""
        for group in groups[first:]:
            run += group
            if len(run) > _LONGEST:
                break
            if len(run) >= _SHORTEST:
                yield run


def _plain(text: str) -> str:
    """Digits of every script as ASCII, every kind of space as a space, of dash as a dash."""
    return "".join(_plain_character(character) for character in text)


def _plain_character(character: str) -> str:
    if character.isascii():
        return " " if character.isspace() else character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    category = unicodedata.category(character)
    if category in ("Zs", "Zl", "Zp", "Cf"):
        return " "
    return "-" if category == "Pd" else character
