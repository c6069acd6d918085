"""Idempotency keys as Stripe's API v1 keeps them: the first answer, for 24 hours."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from sandbox.book import Book, Document
from sandbox.stripe.errors import StripeError

_KIND: Final = "stripe_key"
_LIFE_SECONDS: Final = 24 * 3600
_MAX_LENGTH: Final = 255


@dataclass(frozen=True)
class Kept:
    """The first answer to a key: its status, its body and the request that got it."""

    status: int
    body: Document
    request_id: str


class IdempotencyKeys:
    """Which keys were used, for what, and what was answered."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._running: set[str] = set()

    @contextmanager
    def claimed(self, key: str | None) -> Iterator[None]:
        """While a request with this key runs. Raises StripeError (409) if another one does."""
        if key is None:
            yield
            return
        if len(key) > _MAX_LENGTH:
            raise StripeError(
                400,
                f"Idempotency keys may be at most {_MAX_LENGTH} characters.",
                type="idempotency_error",
            )
        if key in self._running:
            raise StripeError(
                409,
                "There is currently another in-progress request using this Idempotent Key (that"
                " probably means you submitted twice, and the other request is still going"
                f" through): {key}.",
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        self._running.add(key)
        try:
            yield
        finally:
            self._running.discard(key)

    def answered(self, key: str | None, fingerprint: str, now: int) -> Kept | None:
        """The answer kept under this key. Raises StripeError (400) where it was used for another
        request."""
        used = self._book.get(_KIND, key) if key else None
        if used is None or used["at"] + _LIFE_SECONDS <= now:
            return None
        if used["fingerprint"] != fingerprint:
            raise StripeError(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were"
                f" first used with. Try using a key other than '{key}' if you meant to execute a"
                " different request.",
                type="idempotency_error",
            )
        return Kept(used["status"], used["body"], used["request_id"])

    def keep(self, key: str | None, fingerprint: str, now: int, answer: Kept) -> None:
        """Keep the first answer; inside the transaction that made what it tells of."""
        if key:
            self._book.put(
                _KIND,
                key,
                {
                    "at": now,
                    "fingerprint": fingerprint,
                    "status": answer.status,
                    "body": answer.body,
                    "request_id": answer.request_id,
                },
            )


def fingerprint(path: str, form_text: str) -> str:
    """Two requests are the same when path and parameters are, in whatever order."""
    pairs = sorted(parse_qsl(form_text, keep_blank_values=True))
    return hashlib.sha256(repr((path, pairs)).encode()).hexdigest()
