"""Changes in order, waited for: the long poll behind `GET /events`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from storage.database import Database
from storage.events import EventPage

LONGEST_WAIT_SECONDS: Final = 20
_POLL_SECONDS: Final = 0.25
_WAITERS: Final = 100


class Feed:
    """Reads pages of events; bounded in who may wait, so that waiting cannot starve the rest."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closing = asyncio.Event()
        self._waiting = 0

    async def after(
        self,
        application: str,
        cursor: str | None,
        limit: int,
        *,
        wait_seconds: float,
        is_gone: Callable[[], Awaitable[bool]],
    ) -> EventPage:
        """The next page, waiting for its first event; empty when the wait ends without one.

        Beyond a hundred waiters, and while we stop, nobody waits: an empty page is always true.
        """
        page = await self._read(application, cursor, limit)
        if self._waiting >= _WAITERS:
            return page
        self._waiting += 1
        try:
            ends = asyncio.get_running_loop().time() + wait_seconds
            while not page.data and not self._closing.is_set():
                left = ends - asyncio.get_running_loop().time()
                if left <= 0 or await is_gone():
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), min(left, _POLL_SECONDS))
                page = await self._read(application, cursor, limit)
            return page
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let everybody who waits have an answer now."""
        self._closing.set()

    async def _read(self, application: str, cursor: str | None, limit: int) -> EventPage:
        async with self._database.begin() as work:
            return await work.events.after(application=application, cursor=cursor, limit=limit)
