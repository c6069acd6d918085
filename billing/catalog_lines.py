"""On which line of a TOML file an entry stands: the parser tells of its own errors only."""

import re
from typing import Final

Location = tuple[int | str, ...]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=")


def line_of(text: str, location: Location) -> int | None:
    """The line of the entry, or else of the one that it should stand in; None for neither."""
    lines = _lines(text)
    for length in range(len(location), 0, -1):
        if (line := lines.get(location[:length])) is not None:
            return line
    return None


def _lines(text: str) -> dict[Location, int]:
    """Where tables and keys begin. Of tables in an array each has its index, from 0."""
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = tuple(header[2].split("."))
            lines.setdefault(table, number)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
                lines[table] = number
        elif key := _KEY.match(line):
            lines.setdefault((*table, *key[1].split(".")), number)
    return lines
