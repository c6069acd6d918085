"""JSON whose meaning two parsers cannot disagree on, for what carries a signature.

A repeated key, NaN or Infinity, and nesting beyond the parser's depth are refused, and nothing
else than `MalformedJson` is raised whatever the text.
"""

import json
import re
from typing import Final, NoReturn

_WHITESPACE: Final = re.compile(r"[ \t\r\n]*")


class MalformedJson(ValueError):
    """Not one JSON object that can be read in one way only."""


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("a key is repeated")
    return members


def _no_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_no_constant)


def read_object(text: str) -> dict[str, object]:
    """The members of the one object that `text` is."""
    value, end = _value_at(text, _skip(text, 0))
    if not isinstance(value, dict):
        raise MalformedJson("it is not an object")
    if _skip(text, end) != len(text):
        raise MalformedJson("something follows the object")
    return value


def read_raw_members(text: str) -> dict[str, str]:
    """The members of the object, each value as the exact text it was received as.

    The parser itself finds where a value ends, so a brace or a quote inside a string is no end.
    """
    read_object(text)
    members: dict[str, str] = {}
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = _value_at(text, at)
        start = _skip(text, text.index(":", at) + 1)
        _, end = _value_at(text, start)
        members[str(key)] = text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    return match.end() if match else at


def _value_at(text: str, at: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise MalformedJson("it is nested too deeply") from None
    except MalformedJson:
        raise
    except ValueError as problem:
        raise MalformedJson(str(problem)) from None
