"""Webhooks on their way: kept in the book until the receiver has taken them.

`enqueue` belongs into the transaction that makes the change it tells of. A webhook leaves after
its request has been answered, is signed anew at each try, and repeats on the gateway's schedule,
shortened for a sandbox. After a restart the open ones continue.
"""

import asyncio
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from sandbox.book import Book, Document
from sandbox.faults import Faults

_KIND: Final = "delivery"
_PARALLEL: Final = 16
_ANSWER_KEPT: Final = 200
_REORDER_CEILING: Final = 20.0

_of_this_request: ContextVar[list[str] | None] = ContextVar("deliveries_of_request", default=None)


@dataclass(frozen=True)
class Message:
    """A webhook as it goes out: POSTed with these headers and exactly these bytes."""

    headers: dict[str, str]
    content: bytes


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
    """All webhooks of all gateways."""

    def __init__(self, book: Book, faults: Faults) -> None:
        self.rules: dict[str, WebhookRules] = {}
        self._book = book
        self._faults = faults
        self._held: set[str] = set()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

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
        raise NotImplementedError

    def release(self) -> None:
        """Let the webhooks of this request go before it is answered."""
        raise NotImplementedError
