"""Keyset pages: what was read last says where the next page begins."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A page of a list; `next_cursor` continues it and is None on the last one."""

    data: list[Item]
    has_more: bool
    next_cursor: str | None
