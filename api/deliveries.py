"""Handing stored webhooks on in the background, after the gateway has its answer.

Bounded: what is not handed on here, the worker's loop delivers from the inbox within seconds.
"""

import asyncio
from typing import Final, Protocol

import structlog

from storage.inbox import InboxEntry

_CONCURRENT: Final = 20
_BACKLOG: Final = 1000
_DRAIN_SECONDS: Final = 10.0

log = structlog.get_logger()


class Delivering(Protocol):
    """What `activities.delivery.Delivery` does with one entry."""

    async def deliver(self, entry: InboxEntry) -> None: ...


class Deliveries:
    """Deliveries under way in this process."""

    def __init__(self, delivery: Delivering) -> None:
        self._delivery = delivery
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._under_way: set[asyncio.Task[None]] = set()

    def hand_on(self, entry: InboxEntry) -> None:
        """Deliver soon, without waiting for it; with too many under way, leave it to the loop."""
        if len(self._under_way) >= _BACKLOG:
            return
        task = asyncio.create_task(self._deliver(entry))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Let what is under way finish, for at most ten seconds."""
        if not self._under_way:
            return
        _, unfinished = await asyncio.wait(self._under_way, timeout=_DRAIN_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _deliver(self, entry: InboxEntry) -> None:
        async with self._slots:
            try:
                await self._delivery.deliver(entry)
            except Exception:
                log.exception(
                    "webhook_delivery_failed", event_id=entry.event_id, payment_id=entry.payment_id
                )
