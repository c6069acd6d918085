"""Handing stored webhooks on in the background, after the gateway has its answer.

Bounded: what is not handed on here, the worker's loop delivers from the inbox within seconds.
"""

import asyncio
from collections.abc import Coroutine
from typing import Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from billing.messages import GatewayReport
from storage.inbox import InboxEntry, InboxOutcome

_CONCURRENT: Final = 20
_BACKLOG: Final = 1000
_DRAIN_SECONDS: Final = 10.0

log = structlog.get_logger()


class Delivering(Protocol):
    """What `activities.delivery.Delivery` does with one entry, or one question."""

    async def deliver(self, entry: InboxEntry) -> None: ...

    async def observe(self, payment_id: str, report: GatewayReport) -> InboxOutcome | None: ...


class Deliveries:
    """Deliveries under way in this process."""

    def __init__(self, delivery: Delivering) -> None:
        self._delivery = delivery
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._under_way: set[asyncio.Task[None]] = set()

    def hand_on(self, entry: InboxEntry) -> None:
        """Deliver soon, without waiting for it; with too many under way, leave it to the loop."""
        self._begin(self._deliver(entry))

    def ask_again(self, payment_id: str, request_id: str) -> None:
        """Have the gateway asked soon about a payment that has ended; without waiting for it."""
        self._begin(self._ask_again(payment_id, request_id))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        if len(self._under_way) >= _BACKLOG:
            work.close()
            return
        task = asyncio.create_task(work)
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

    async def _ask_again(self, payment_id: str, request_id: str) -> None:
        report = GatewayReport(event_id=f"refresh/{request_id}", event_type="refresh")
        async with self._slots:
            try:
                await self._delivery.observe(payment_id, report)
            except (RPCError, SQLAlchemyError) as problem:
                log.warning("refresh_lost", payment_id=payment_id, error=type(problem).__name__)

    async def _deliver(self, entry: InboxEntry) -> None:
        async with self._slots:
            try:
                await self._delivery.deliver(entry)
            except Exception:
                log.exception(
                    "webhook_delivery_failed", event_id=entry.event_id, payment_id=entry.payment_id
                )
