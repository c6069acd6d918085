"""Webhooks on their way: kept in the book until the receiver has taken them.

`enqueue` belongs into the transaction that makes the change it tells of. A webhook leaves after
its request has been answered, is signed anew at each try, and repeats on the gateway's schedule,
shortened for a sandbox. After a restart the open ones continue.
"""

import asyncio
import heapq
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx

from sandbox.book import Book, Document
from sandbox.faults import Fault, Faults

KIND: Final = "delivery"
WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
GIVEN_UP: Final = "given_up"
WITHHELD: Final = "withheld"

_PARALLEL: Final = 8
_TIMEOUT_SECONDS: Final = 10.0
_ANSWER_KEPT: Final = 200
_REORDER_CEILING_SECONDS: Final = 20.0
_FORGERIES: Final = ("bad_signature", "signtest")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class _Due:
    """When a webhook is to be sent; at the same moment in the order they were made."""

    at: float
    turn: int
    delivery_id: str = field(compare=False)
    order: tuple[str, str] = field(compare=False)


_of_this_request: ContextVar[list[_Due] | None] = ContextVar("webhooks_of_request", default=None)


@dataclass(frozen=True)
class Message:
    """A webhook as it goes out: POSTed with these headers and exactly these bytes. `accepted` reads
    the reply to it, where that is not for the gateway's rules."""

    headers: dict[str, str]
    content: bytes
    accepted: Callable[[int, bytes], bool] | None = None


@dataclass(frozen=True)
class WebhookRules:
    """A gateway's manner of delivery.

    `sign(payload, forged)` makes the message from the payload that was enqueued, at each try;
    forged means with a signature that must not verify. `accepted(status, body)` reads the reply
    as the gateway would. `retry_delays` are seconds before the second, third, ... try.
    """

    sign: Callable[[dict[str, Any], bool], Message]
    accepted: Callable[[int, bytes], bool]
    retry_delays: tuple[float, ...]


class Delivery:
    """All webhooks of all gateways.

    Faults: `never` withholds it, `duplicate` sends `copies` more (1) at the same time, `delay`
    waits `seconds` (5), `before_answer` sends it before the request that caused it is answered,
    `reorder` holds it until another webhook of this gateway has been sent (at most `seconds`,
    20), `bad_signature` forges the first try, `signtest` makes a probe of it (WeChat Pay).
    """

    def __init__(self, book: Book, faults: Faults) -> None:
        self.rules: dict[str, WebhookRules] = {}
        self._book = book
        self._faults = faults
        self._turns = itertools.count()
        self._schedule: list[_Due] = []
        self._ready: dict[str, _Due] = {}
        self._reordered: dict[str, str] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._busy_orders: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()
        self._client: httpx.AsyncClient | None = None

    def enqueue(
        self,
        gateway: str,
        *,
        url: str,
        number: str,
        reference: str,
        event_type: str,
        payload: dict[str, Any],
    ) -> str:
        """Keep a webhook for delivery; its delivery id. Call inside the book's transaction.

        `payload` is what the gateway's `sign` gets, JSON; `number` the order, `reference` the
        payment id (for faults), `event_type` the gateway's word for the page.
        """
        delivery_id = f"whd_{uuid.uuid4().hex}"
        fault = self._faults.take(gateway, "webhook", reference)
        now = time.time()
        document: Document = {
            "id": delivery_id,
            "gateway": gateway,
            "url": url,
            "number": number,
            "reference": reference,
            "event_type": event_type,
            "payload": payload,
            "created_at": now,
            "state": WITHHELD if fault and fault.name == "never" else WAITING,
            "fault": fault.name if fault else None,
            "copies": _extra_copies(fault),
            "next_at": now + _hold_seconds(fault),
            "rounds": 0,
            "tries": [],
        }
        self._book.put(KIND, delivery_id, document)
        if fault and fault.name == "reorder":
            self._reordered[delivery_id] = gateway
        self._plan(document)
        return delivery_id

    def newest(self, limit: int) -> list[Document]:
        """The webhooks made last, newest first, each with its `tries` and the answers to them."""
        return self._book.newest(KIND, limit)

    def resend(self, delivery_id: str) -> bool:
        """Send a webhook again, whatever became of it. False if there is none of this id."""
        with self._book.transaction():
            document = self._book.get(KIND, delivery_id)
            if document is None:
                return False
            document |= {"state": WAITING, "fault": None, "copies": 0, "next_at": time.time()}
            self._book.put(KIND, delivery_id, document)
        self._plan(document)
        return True

    def forget(self) -> None:
        """Follow a book that was cleared: stop what is on its way."""
        for task in self._sending.values():
            task.cancel()
        self._schedule.clear()
        self._ready.clear()
        self._reordered.clear()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around one request: what it enqueues leaves when this ends."""
        mine: list[_Due] = []
        token = _of_this_request.set(mine)
        try:
            yield
        finally:
            self.release()
            _of_this_request.reset(token)

    def release(self) -> None:
        """Let the webhooks of this request go, even if it is not answered yet."""
        mine = _of_this_request.get() or []
        for due in mine:
            heapq.heappush(self._schedule, due)
        mine.clear()
        self._wake.set()

    async def before_answer(self) -> None:
        """Send those webhooks of this request that are to arrive before its answer."""
        for due in list(_of_this_request.get() or ()):
            document = self._book.get(KIND, due.delivery_id)
            if document and document["fault"] == "before_answer" and not document["rounds"]:
                await self._send(document)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver while this is entered."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            self._client = client
            for document in self._book.find(KIND, state=WAITING):
                self._plan(document)
            loop = asyncio.create_task(self._deliver_due())
            try:
                yield
            finally:
                tasks = [loop, *self._sending.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _plan(self, document: Document) -> None:
        """Send it at its time, and not before the request that made it is done."""
        order = (document["gateway"], document["number"])
        due = _Due(document["next_at"], next(self._turns), document["id"], order)
        mine = _of_this_request.get()
        if mine is None:
            heapq.heappush(self._schedule, due)
            self._wake.set()
        else:
            mine.append(due)

    async def _deliver_due(self) -> None:
        while True:
            self._wake.clear()
            pause = self._start_due()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    def _start_due(self) -> float | None:
        """Start what is due; the seconds until the next one, None to wait for a wake-up.

        The webhooks of one order go one after the other, so that only a fault reorders them.
        """
        now = time.time()
        while self._schedule and self._schedule[0].at <= now:
            due = heapq.heappop(self._schedule)
            self._ready[due.delivery_id] = due
        for due in list(self._ready.values()):
            if len(self._sending) >= _PARALLEL:
                break
            if due.order not in self._busy_orders:
                del self._ready[due.delivery_id]
                self._start(due, now)
        return self._schedule[0].at - now if self._schedule else None

    def _start(self, due: _Due, now: float) -> None:
        document = self._book.get(KIND, due.delivery_id)
        if document is None or document["state"] != WAITING or document["next_at"] > now:
            return
        self._busy_orders.add(due.order)
        task = self._sending[due.delivery_id] = asyncio.create_task(self._send(document))
        task.add_done_callback(partial(self._finish, document))

    def _finish(self, document: Document, task: asyncio.Task[None]) -> None:
        del self._sending[document["id"]]
        self._busy_orders.discard((document["gateway"], document["number"]))
        self._wake.set()
        if not task.cancelled() and task.exception():
            _log.error("webhook %s was not sent", document["id"], exc_info=task.exception())

    async def _send(self, document: Document) -> None:
        rules = self.rules[document["gateway"]]
        forged = document["fault"] in _FORGERIES and not document["rounds"]
        copies = document["copies"] if not document["rounds"] else 0
        tries = await asyncio.gather(
            *(self._post(document, rules, forged) for _ in range(1 + copies))
        )
        accepted = any(attempt["accepted"] for attempt in tries)
        with self._book.transaction():
            current = self._book.get(KIND, document["id"])
            if current is None:
                return
            rounds = current["rounds"] + 1
            current["rounds"] = rounds
            current["tries"] += tries
            if accepted:
                current["state"] = DELIVERED
            elif rounds > len(rules.retry_delays):
                current["state"] = GIVEN_UP
            else:
                current["next_at"] = time.time() + rules.retry_delays[rounds - 1]
            self._book.put(KIND, document["id"], current)
            if current["state"] == WAITING:
                self._plan(current)
            self._let_reordered_follow(document)

    async def _post(self, document: Document, rules: WebhookRules, forged: bool) -> dict[str, Any]:
        """One try, told in the form in which the book keeps it."""
        if self._client is None:
            raise RuntimeError("webhooks are delivered only while Delivery.running() is entered")
        message = rules.sign(document["payload"], forged)
        record: dict[str, Any] = {"at": time.time(), "accepted": False, "forged": forged}
        try:
            reply = await self._client.post(
                document["url"], headers=message.headers, content=message.content
            )
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            return record | {"error": f"{type(problem).__name__}: {problem}"}
        is_accepted = message.accepted or rules.accepted
        return record | {
            "accepted": is_accepted(reply.status_code, reply.content),
            "status": reply.status_code,
            "answer": reply.content[:_ANSWER_KEPT].decode(errors="replace"),
        }

    def _let_reordered_follow(self, sent: Document) -> None:
        self._reordered.pop(sent["id"], None)
        for delivery_id, gateway in list(self._reordered.items()):
            if gateway != sent["gateway"]:
                continue
            del self._reordered[delivery_id]
            held = self._book.get(KIND, delivery_id)
            if held:
                held["next_at"] = time.time()
                self._book.put(KIND, delivery_id, held)
                self._plan(held)


def _extra_copies(fault: Fault | None) -> int:
    return int(fault.number("copies", 1)) if fault and fault.name == "duplicate" else 0


def _hold_seconds(fault: Fault | None) -> float:
    if fault and fault.name == "delay":
        return fault.number("seconds", 5)
    if fault and fault.name == "reorder":
        return fault.number("seconds", _REORDER_CEILING_SECONDS)
    return 0.0
