"""A gateway and a record of one saved method in memory, for tests of the workflows' own decisions.

The activities have the real names and messages; what they answer is set by the test.
"""

import asyncio
from datetime import datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from billing.method import MethodStatus, SavedMethod
from billing.method_messages import (
    MakeDefault,
    MethodOrder,
    MethodStanding,
    OpenMethod,
    RevokeMethod,
    SettleMethod,
)
from billing.payment import Failure, GatewayName, NoAction, Redirect

SIGN_HERE = Redirect(url="https://gateway.example/sign")
REFUSAL = "payment_method_not_active"
IN_USE = "method_in_use"
REFUSED = Failure(code="consent_refused", message="no")


def method_order(method_id: str, now: datetime) -> MethodOrder:
    return MethodOrder(
        method_id=method_id,
        application="shop",
        user_id="user_1",
        gateway=GatewayName.STRIPE,
        currency="USD",
        created_at=now,
    )


class ScriptedMethodActivities:
    """`status` is the record's, `opened` what a request for consent makes of it and `settled` what
    a question does. `is_released` is the gateway's word on one that has ended. `silent` names what
    finds nobody, `held` what waits for `answers`. `calls` tells what was done, in order; `revoked`
    with what status. `is_used` refuses to end it unless that is forced."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = MethodStatus.PENDING
        self.failure: Failure | None = None
        self.opened = MethodStatus.PENDING
        self.settled = MethodStatus.PENDING
        self.is_released = False
        self.needs_attention = False
        self.refuses = False
        self.is_used = False
        self.silent: set[str] = set()
        self.held: set[str] = set()
        self.answers = asyncio.Event()
        self.revoked: list[tuple[MethodStatus, Failure | None, MethodOrder | None]] = []
        self.asked_at: dict[str, datetime] = {}
        self.method_id = ""

    @activity.defn(name="method.open")
    async def open(self, request: OpenMethod) -> MethodStanding:
        await self._begin("open", request.now)
        if self.status is MethodStatus.PENDING:
            self._move(self.opened)
        return self._standing()

    @activity.defn(name="method.settle")
    async def settle(self, request: SettleMethod) -> MethodStanding:
        await self._begin("settle", request.now)
        if not self.status.is_terminal:
            self._move(self.settled)
        return self._standing()

    @activity.defn(name="method.revoke")
    async def revoke(self, request: RevokeMethod) -> MethodStanding:
        if self.is_used and not request.is_forced:
            raise ApplicationError("it is charged", type=IN_USE, non_retryable=True)
        self.revoked.append((request.status, request.failure, request.order))
        if not self.status.is_terminal:
            self.status, self.failure = request.status, request.failure
        await self._begin("revoke", request.now)
        self.is_released = True
        return self._standing()

    @activity.defn(name="method.make_default")
    async def make_default(self, request: MakeDefault) -> MethodStanding:
        await self._begin("make_default", request.now)
        if self.refuses:
            raise ApplicationError("it is ended", type=REFUSAL, non_retryable=True)
        return self._standing(is_default=True)

    def _move(self, to: MethodStatus) -> None:
        """What ends by the gateway's own word has ended there."""
        self.status, self.is_released = to, to.is_terminal
        self.failure = REFUSED if to is MethodStatus.FAILED else None

    async def _begin(self, call: str, now: datetime) -> None:
        self.calls.append(call)
        self.asked_at[call] = now
        if call in self.silent:
            raise ApplicationError("no answer", type="outcome_unknown")
        if call in self.held:
            await self.answers.wait()

    def _standing(self, *, is_default: bool = False) -> MethodStanding:
        now = self.asked_at[self.calls[-1]]
        is_pending = self.status is MethodStatus.PENDING
        return MethodStanding(
            method=SavedMethod(
                id=self.method_id,
                user_id="user_1",
                gateway=GatewayName.STRIPE,
                status=self.status,
                is_default=is_default,
                next_action=SIGN_HERE if is_pending else NoAction(),
                failure=self.failure,
                created_at=now,
                updated_at=now,
                ended_at=now if self.status.is_terminal else None,
            ),
            is_released=self.is_released,
            needs_attention=self.needs_attention,
        )
