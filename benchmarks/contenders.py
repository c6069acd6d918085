"""The two that are compared, as one paying customer sees each: ordered, instructed, settled."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

import httpx
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)

from benchmarks.bare import PLAIN_QUEUE, QUEUE, Plain, RefundShape, SameShape, Work
from billing.payment import GatewayName, PaymentStatus
from runtime import attributes

BASE: Final = "/api/v1/payment"
_ORDERS: Final = {
    GatewayName.STRIPE: ("card", "USD"),
    GatewayName.ALIPAY: ("qr", "CNY"),
    GatewayName.WECHATPAY: ("native", "CNY"),
}
_AMOUNT_MINOR: Final = 2900
TASK_TIMEOUT: Final = timedelta(seconds=5)
LONGEST_SECONDS: Final = 90.0
PATIENCE_SECONDS: Final = 0.1
COME_BACK: Final = (202, 429, 503)


class RunFailed(Exception):
    """A payment did not go the plain way from order to ledger, so that nothing can be measured."""


@dataclass(frozen=True)
class Taken:
    """One payment, or its bare likeness: when the payer was instructed, when it was over.

    A spend of points has no gateway, and is answered when it is over.
    """

    id: str
    gateway: GatewayName | None
    instructed_seconds: float
    settled_seconds: float
    ended_at: float
    """By the monotonic clock."""


class Contender(Protocol):
    """Takes payments one after another, as many at a time as it is called."""

    @property
    def name(self) -> str: ...

    async def take(self) -> Taken:
        """One payment from order to end. Raises RunFailed."""


def _in_turn() -> Iterator[GatewayName]:
    return itertools.cycle(GatewayName)


@dataclass
class Everbill:
    """Ordered over REST, paid at the sandbox's control; the webhook does the rest.

    A payment is over when its workflow has ended, which is after its ledger entry is committed.
    """

    api: httpx.AsyncClient
    payer: httpx.AsyncClient
    temporal: Client
    name: str = "everbill"
    settled: list[str] = field(default_factory=list)
    refunded: list[str] = field(default_factory=list)
    repeated: int = 0
    """Orders and refunds that had to be sent again under their key: answered 202, 429 or 503."""
    _turn: Iterator[GatewayName] = field(default_factory=_in_turn)

    async def take(self) -> Taken:
        gateway = next(self._turn)
        async with asyncio.timeout(LONGEST_SECONDS):
            began = time.monotonic()
            payment = await self._order(gateway)
            instructed = time.monotonic()
            expect(
                await self.payer.post(
                    "/control/pay",
                    json={"gateway": gateway.value, "next_action": payment["next_action"]},
                ),
                200,
            )
            ended = await self.temporal.get_workflow_handle(payment["id"]).result()
        over = time.monotonic()
        if ended["status"] != PaymentStatus.SUCCEEDED:
            raise RunFailed(f"{payment['id']} by {gateway.value} ended {ended['status']}")
        self.settled.append(payment["id"])
        return Taken(payment["id"], gateway, instructed - began, over - began, over)

    async def _order(self, gateway: GatewayName) -> dict[str, Any]:
        """The payment with its instructions, asked for as often as it takes: that time counts."""
        method, currency = _ORDERS[gateway]
        order = {
            "user_id": "benchmark",
            "amount": _AMOUNT_MINOR,
            "currency": currency,
            "gateway": gateway.value,
            "method": method,
            "description": "A month of BASIC",
        }
        return await self.post("/create", secrets.token_hex(16), order)

    async def post(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """The 201, asked for as often as it takes under the one key. Raises RunFailed."""
        while True:
            answer = await self.api.post(
                f"{BASE}{path}", headers={"Idempotency-Key": key}, json=body
            )
            if answer.status_code not in COME_BACK:
                return expect(answer, 201)
            self.repeated += 1
            await asyncio.sleep(PATIENCE_SECONDS)


@dataclass
class Bare:
    """A bare workflow, signalled by the driver itself; `shape` is one of `benchmarks.bare`."""

    temporal: Client
    shape: type[SameShape] | type[Plain] | type[RefundShape]
    name: str
    _turn: Iterator[GatewayName] = field(default_factory=_in_turn)

    async def take(self) -> Taken:
        work = Work(id=f"bare_{secrets.token_hex(13)}", gateway=next(self._turn))
        async with asyncio.timeout(LONGEST_SECONDS):
            began = time.monotonic()
            await self.temporal.execute_update_with_start_workflow(
                self.shape.create,
                work,
                start_workflow_operation=self._starting(work),
                id=f"create/{secrets.token_hex(16)}",
            )
            instructed = time.monotonic()
            handle = self.temporal.get_workflow_handle(work.id)
            await handle.signal(self.shape.reported, work)
            await handle.result()
        over = time.monotonic()
        return Taken(work.id, work.gateway, instructed - began, over - began, over)

    def _starting(self, work: Work) -> WithStartWorkflowOperation[Any, Any]:
        is_plain = self.shape is Plain
        return WithStartWorkflowOperation(
            self.shape.run,
            work,
            id=work.id,
            task_queue=PLAIN_QUEUE if is_plain else QUEUE,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=TypedSearchAttributes.empty if is_plain else _attributes(work),
            static_summary=None if is_plain else f"29.00 CNY by {work.gateway.value}",
        )


def _attributes(work: Work) -> TypedSearchAttributes:
    """As many as a payment starts with."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(attributes.CUSTOMER_ID, "benchmark"),
            SearchAttributePair(attributes.BILLING_STATUS, PaymentStatus.CREATED.value),
            SearchAttributePair(attributes.GATEWAY, work.gateway.value),
            SearchAttributePair(attributes.CURRENCY, "CNY"),
            SearchAttributePair(attributes.AMOUNT_MINOR, _AMOUNT_MINOR),
            SearchAttributePair(attributes.NEEDS_ATTENTION, False),
        ]
    )


def expect(answer: httpx.Response, status_code: int) -> dict[str, Any]:
    """The answer's document. Raises RunFailed for another status."""
    if answer.status_code != status_code:
        raise RunFailed(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code},"
            f" not {status_code}: {answer.json().get('detail', '')}"
        )
    document: dict[str, Any] = answer.json()
    return document
