"""Stripe's form encoding: `a[b][0]=c` as nested dicts and lists."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

Form = dict[str, Any]
"""Values are strings, lists or further forms."""


def parse_form(text: str) -> Form:
    """The nested form of a query string or a form body. `a[]=x&a[]=y` is a list, too."""
    return nest(parse_qsl(text, keep_blank_values=True))


def nest(pairs: Iterable[tuple[str, str]]) -> Form:
    root: Form = {}
    for name, value in pairs:
        head, *rest = name.replace("]", "").split("[")
        place, last = root, head
        for part in rest:
            inner = place.setdefault(last, {})
            if not isinstance(inner, dict):
                break
            place, last = inner, part or str(len(inner))
        place[last] = value
    return {name: _listed(value) for name, value in root.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(part) for name, part in value.items()}
    if inner and all(name.isdigit() for name in inner):
        return list(inner.values())
    return inner


def is_true(value: object) -> bool:
    return value == "true"
