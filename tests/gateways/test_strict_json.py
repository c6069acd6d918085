"""JSON that carries a signature is read in one way only, and its parts are found exactly."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways.strict_json import MalformedJson, read_object, read_raw_members

_TRICKY = st.text(st.sampled_from('{}[]",:\\/ \n\t&=+汉😀\u2028ab1')) | st.text()
_SCALARS = st.none() | st.booleans() | st.integers() | _TRICKY
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_TRICKY, inner), max_leaves=8
)


@settings(deadline=None)
@given(
    members=st.dictionaries(_TRICKY, _VALUES),
    is_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    around=st.sampled_from(["", " ", "\r\n\t"]),
)
def test_each_member_is_found_as_the_very_text_it_came_as(
    members: dict[str, Any], is_ascii: bool, indent: int | None, around: str
) -> None:
    texts = {
        key: json.dumps(value, ensure_ascii=is_ascii, indent=indent)
        for key, value in members.items()
    }
    inner = ",".join(
        f"{around}{json.dumps(key)}{around}:{around}{text}{around}" for key, text in texts.items()
    )
    document = f"{around}{{{inner}{around}}}{around}"
    assert read_raw_members(document) == texts
    assert read_object(document) == members


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        '"text"',
        "{",
        '{"a":1',
        '{"a":1,}',
        '{"a":1} {}',
        '{"a":1}x',
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"a":{"b":1,"b":2}}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":"\n"}',
        "\ufeff{}",
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"a":' + "9" * 5_000 + "}",
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused(text: str) -> None:
    with pytest.raises(MalformedJson):
        read_object(text)
    with pytest.raises(MalformedJson):
        read_raw_members(text)


@settings(deadline=None)
@given(st.text() | _TRICKY)
def test_nothing_else_is_raised_whatever_the_text(text: str) -> None:
    try:
        assert isinstance(read_raw_members(text), dict)
    except MalformedJson:
        return
