"""Crash points: where a worker ends itself by SIGKILL, if a test has armed that point.

An armed point is a file, good for one use: right before it kills itself, the worker moves it from
`armed/` to `fired/` and writes its pid there, so that a test can tell who was killed, and where.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from billing.messages import SpendRequest
from gateways.gateway import (
    AlreadyOrdered,
    DisputeObservation,
    Gateway,
    Observation,
    Opened,
    OpenOutcome,
    Order,
    RefundObservation,
    RefundOrder,
    Refused,
    ToldRefunds,
)
from gateways.mandates import Mandate, MandateObservation, MandateOrder, Mandates
from storage.clawbacks import Clawbacks
from storage.points import Points, User

_NAMES = ("payment_id", "refund_id", "method_id", "subscription_id", "user_id")
_has_closed: ContextVar[bool] = ContextVar("has_closed", default=False)
"""Whether this run of `payment.close` has had its close answered: its next query is the second."""


@dataclass(frozen=True)
class CrashPoint:
    """`place` is `before` or `after` an activity's body, or `before_<call>` or `after_<call>`
    within it, the call being `open`, `query`, `close`, `requery` (the query after a close),
    `refund`, `query_refund`, `list_disputes` or `list_refunds`, or of mandates `set_up`, `query`,
    `revoke`, `announce` or `postpone`; where points are moved there is `before_commit`.

    `owner` is the one payment, refund, spend, saved method or subscription that is to meet it, by
    its id, or by its user's id where it has none yet. It determines the gateway.
    """

    activity: str
    place: str
    owner: str

    @property
    def name(self) -> str:
        return f"{self.activity}~{self.place}~{self.owner}"


class CrashPoints:
    """The points of one folder, shared by the tests that arm and the workers that fire."""

    def __init__(self, folder: Path) -> None:
        self._armed = folder / "armed"
        self._fired = folder / "fired"
        for each in (self._armed, self._fired):
            each.mkdir(parents=True, exist_ok=True)

    def arm(self, point: CrashPoint) -> None:
        (self._armed / point.name).touch()

    def disarm(self, point: CrashPoint) -> bool:
        """Whether it was still armed."""
        try:
            (self._armed / point.name).unlink()
        except FileNotFoundError:
            return False
        return True

    def has_fired(self, point: CrashPoint) -> bool:
        return (self._fired / point.name).exists()

    @property
    def fired(self) -> dict[str, int]:
        """The points that were met, by name, and the pid of each worker that met one."""
        return {file.name: int(file.read_text()) for file in self._fired.iterdir()}

    def reached(self, place: str, *owners: str) -> None:
        """Die here if one of the owners has this place armed in the activity under way."""
        for owner in owners:
            point = CrashPoint(activity.info().activity_type, place, owner)
            try:
                (self._armed / point.name).rename(self._fired / point.name)
            except FileNotFoundError:
                continue
            (self._fired / point.name).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


class CrashInterceptor(Interceptor):
    """Before an activity's body, and after it, when its result has not been reported yet."""

    def __init__(self, points: CrashPoints) -> None:
        self._points = points

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _CrashingInbound(next, self._points)


class _CrashingInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, points: CrashPoints) -> None:
        super().__init__(next)
        self._points = points

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        owners = _owners_of(input.args[0])
        self._points.reached("before", *owners)
        result = await super().execute_activity(input)
        self._points.reached("after", *owners)
        return result


def _owners_of(request: Any) -> tuple[str, ...]:
    """Whose activity it is: every id that its request names, and the user's where the object has
    none yet that a test could know."""
    wanted = getattr(request, "request", None)
    if isinstance(wanted, SpendRequest):
        return (wanted.transaction_id, wanted.user_id)
    subscription = getattr(request, "subscription", None)
    parts = [request, wanted, getattr(request, "order", None), subscription]
    found = [getattr(part, name, None) for part in parts for name in _NAMES]
    return tuple(one for one in (*found, getattr(subscription, "id", None)) if one is not None)


def crash_points_written(points: CrashPoints) -> None:
    """Make `before_commit` a place wherever this process moves points: they are spent, credited,
    taken back or restored, and nothing is committed."""
    for owner, name in (
        (Points, "spend"),
        (Points, "grant"),
        (Clawbacks, "take"),
        (Clawbacks, "restore"),
    ):
        setattr(owner, name, _crashing(points, getattr(owner, name)))


def _crashing(
    points: CrashPoints, write: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def crashing(*given: Any) -> Any:
        written = await write(*given)
        users = [one.user_id for one in given if isinstance(one, User)]
        points.reached("before_commit", *users, *(one for one in given if isinstance(one, str)))
        return written

    return crashing


class _CrashingMandates:
    """As `CrashingGateway`, for mandates; the owner is the method."""

    def __init__(self, inner: Mandates, points: CrashPoints) -> None:
        self._inner = inner
        self._points = points

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> str | None:
        return await self._inner.enrol(application, user_id, created_at)

    async def set_up(self, order: MandateOrder) -> Opened | Refused | AlreadyOrdered:
        self._points.reached("before_set_up", order.method_id, order.user_id)
        outcome = await self._inner.set_up(order)
        self._points.reached("after_set_up", order.method_id, order.user_id)
        return outcome

    async def query(self, mandate: Mandate) -> MandateObservation:
        self._points.reached("before_query", mandate.method_id)
        observation = await self._inner.query(mandate)
        self._points.reached("after_query", mandate.method_id)
        return observation

    async def revoke(self, mandate: Mandate) -> None:
        self._points.reached("before_revoke", mandate.method_id)
        await self._inner.revoke(mandate)
        self._points.reached("after_revoke", mandate.method_id)

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        self._points.reached("before_announce", mandate.method_id)
        await self._inner.announce(mandate, amount_minor, currency)
        self._points.reached("after_announce", mandate.method_id)

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        self._points.reached("before_postpone", mandate.method_id)
        await self._inner.postpone(mandate, charge_on)
        self._points.reached("after_postpone", mandate.method_id)


class CrashingGateway(Gateway):
    """A gateway with a point before each call, when the row is written and nothing asked, and
    after it, when money may have moved and nothing is recorded."""

    def __init__(self, inner: Gateway, points: CrashPoints) -> None:
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.mandates = inner.mandates and _CrashingMandates(inner.mandates, points)
        self._inner = inner
        self._points = points

    async def open(self, order: Order) -> OpenOutcome:
        self._reached("before_open", order)
        outcome = await self._inner.open(order)
        self._reached("after_open", order)
        return outcome

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        call = "requery" if _has_closed.get() else "query"
        self._reached(f"before_{call}", order)
        observation = await self._inner.query(order, gateway_number=gateway_number)
        self._reached(f"after_{call}", order)
        return observation

    async def close(self, order: Order) -> None:
        self._reached("before_close", order)
        await self._inner.close(order)
        _has_closed.set(True)
        self._reached("after_close", order)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        self._points.reached("before_refund", order.payment_number, order.number)
        observation = await self._inner.refund(order)
        self._points.reached("after_refund", order.payment_number, order.number)
        return observation

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        self._points.reached("before_query_refund", order.payment_number, order.number)
        observation = await self._inner.query_refund(order)
        self._points.reached("after_query_refund", order.payment_number, order.number)
        return observation

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        self._reached("before_list_refunds", order)
        told = await self._inner.list_refunds(order, hints)
        self._reached("after_list_refunds", order)
        return told

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        self._reached("before_list_disputes", order)
        disputes = await self._inner.list_disputes(order)
        self._reached("after_list_disputes", order)
        return disputes

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _reached(self, place: str, order: Order) -> None:
        self._points.reached(place, order.payment_id, order.user_id)
