"""How often one payment may be asked about."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_REMEMBERED: Final = 10_000


class Pace:
    """At most one turn per key and interval, within this process; monotonic seconds."""

    def __init__(
        self, interval_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._last: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> bool:
        """Whether it is the key's turn; if so, the next comes an interval from now."""
        now = self._clock()
        last = self._last.get(key)
        if last is not None and now - last < self._interval_seconds:
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return True
