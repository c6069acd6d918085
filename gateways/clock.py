"""Time as the Chinese gateways write it, and the clock that adapters are given."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

BEIJING: Final = timezone(timedelta(hours=8))
"""China keeps one zone and no summer time."""

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def read_rfc3339(value: object) -> datetime | None:
    """The instant, or None where the value is not a time with its offset."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else None
