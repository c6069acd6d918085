"""Faults that a test or a person asks for, and how they are done to a call.

A gateway's package wraps each call our adapters make with `faulted`, which does the faults of
every protocol (cut, slow, 5xx, garbage, ...) and hands the fault to the handler for those that
alter an answer before it is signed.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.book import Book

if TYPE_CHECKING:
    from sandbox.core import Sandbox

OPERATIONS: Final = (
    "open",
    "query",
    "close",
    "refund",
    "refund_query",
    "dispute_query",
    "mandate",
    "webhook",
    "*",
)
CALL_FAULTS: Final = (
    "cut_before",
    "cut_after",
    "slow",
    "http_429",
    "http_500",
    "http_500_after",
    "garbage",
    "truncated",
    "wrong_amount",
    "wrong_currency",
    "wrong_merchant",
    "wrong_order",
    "bad_signature",
    "unknown_status",
    "close_too_early",
    "balance_insufficient",
)
WEBHOOK_FAULTS: Final = (
    "never",
    "duplicate",
    "delay",
    "before_answer",
    "reorder",
    "bad_signature",
    "signtest",
)
CUT_EXTENSION: Final = "sandbox.cut"
"""The ASGI extension by which a handler closes its connection; set by `sandbox.server`."""

_KIND: Final = "fault"


@dataclass(frozen=True)
class Fault:
    """One fault, for the next `times` calls that match.

    `operation` is one of OPERATIONS (`*` is any call, not webhooks), `reference` limits it to one
    payment, `parameters` are the fault's own (`seconds`, `retry_after`, `copies`).
    """

    id: str
    gateway: str
    operation: str
    name: str
    times: int
    reference: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def number(self, parameter: str, default: float) -> float:
        return float(self.parameters.get(parameter, default))

    def matches(self, gateway: str, operation: str, reference: str | None) -> bool:
        return (
            self.gateway == gateway
            and (self.operation == operation or (self.operation == "*" and operation != "webhook"))
            and self.reference in (None, reference)
        )


class Faults:
    """The faults still to happen, oldest first; kept in the book, so a restart keeps them."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._waiting = {document["id"]: Fault(**document) for document in book.find(_KIND)}

    def add(
        self,
        gateway: str,
        operation: str,
        name: str,
        *,
        times: int = 1,
        reference: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The new fault's id. Raises ValueError where the operation has no such fault."""
        names = WEBHOOK_FAULTS if operation == "webhook" else CALL_FAULTS
        if operation not in OPERATIONS or name not in names:
            raise ValueError(
                f"{operation!r} has no fault {name!r}: operations are {', '.join(OPERATIONS)};"
                f" faults of calls {', '.join(CALL_FAULTS)}; of webhooks"
                f" {', '.join(WEBHOOK_FAULTS)}"
            )
        fault = Fault(
            uuid.uuid4().hex, gateway, operation, name, times, reference, parameters or {}
        )
        self._keep(fault)
        return fault.id

    def waiting(self) -> list[Fault]:
        return list(self._waiting.values())

    def clear(self) -> int:
        """How many were waiting."""
        with self._book.transaction():
            for fault_id in self._waiting:
                self._book.delete(_KIND, fault_id)
        return self.forget()

    def forget(self) -> int:
        """Follow a book that was cleared; how many were waiting."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def take(self, gateway: str, operation: str, reference: str | None) -> Fault | None:
        """The oldest fault for this call, used up by one; None when it is to go well."""
        for fault in self._waiting.values():
            if fault.matches(gateway, operation, reference):
                self._use(fault)
                return fault
        return None

    def _use(self, fault: Fault) -> None:
        if fault.times > 1:
            self._keep(Fault(**{**asdict(fault), "times": fault.times - 1}))
            return
        with self._book.transaction():
            self._book.delete(_KIND, fault.id)
        del self._waiting[fault.id]

    def _keep(self, fault: Fault) -> None:
        with self._book.transaction():
            self._book.put(_KIND, fault.id, asdict(fault))
        self._waiting[fault.id] = fault


async def faulted(
    sandbox: "Sandbox",
    gateway: str,
    operation: str,
    reference: str | None,
    handle: Callable[[Fault | None], Awaitable[Response]],
    refuse: Callable[[int], Response],
) -> Response:
    """Answer one call, done by `handle`, with whatever fault is waiting for it.

    `handle` gets that fault and does those that alter an answer: `wrong_*`, `bad_signature`,
    `unknown_status`. It must have committed when it returns. `refuse(status)` is the gateway's
    own body for 429 and 500. Everything else is done here.
    """
    fault = sandbox.faults.take(gateway, operation, reference)
    name = fault.name if fault else None
    if fault and name == "http_429":
        answer = refuse(429)
        answer.headers["Retry-After"] = f"{fault.number('retry_after', 1):.0f}"
        return answer
    if name == "http_500":
        return refuse(500)
    if name == "cut_before":
        return Cut()
    answer = await handle(fault)
    if fault and name == "slow":
        sandbox.delivery.release()
        await asyncio.sleep(fault.number("seconds", 5))
    if name == "cut_after":
        return Cut()
    if name == "http_500_after":
        return refuse(500)
    if name == "garbage":
        return Response(b"\x00\xff<<not what you asked for", media_type=answer.media_type)
    if name == "truncated":
        return _halved(answer)
    return answer


def _halved(answer: Response) -> Response:
    headers = {
        name: value for name, value in answer.headers.items() if name.lower() != "content-length"
    }
    content = bytes(answer.body)
    return Response(content[: len(content) // 2], answer.status_code, headers)


class Cut(Response):
    """No answer at all: the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][CUT_EXTENSION]()
        while (await receive())["type"] != "http.disconnect":
            pass
