"""Plays the cells: each journey to its right end, with a kill in the middle."""

import asyncio
import secrets
from collections import defaultdict
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from temporalio.service import RPCError, RPCStatusCode

from billing.identifiers import return_id
from billing.messages import GATEWAY_REPORTED, GatewayReport
from billing.payment import GatewayName, PaymentMethod, PaymentStatus
from storage.payments import PaymentRecord
from storage.tables import payments
from tests.end_to_end.buyers import CREDITED, movements, order_points
from tests.faults.cells import CLOSE, END, FLAG, METHODS, OPEN, SETTLE, Cell
from tests.faults.crash_points import CrashPoint, CrashPoints
from tests.faults.keeping import KeptWorkers
from tests.faults.operators import shorten_budget, skip_time
from tests.fixtures.house import BASE, House

_PATIENCE_SECONDS = 180
_LOOK_SECONDS = 0.2
_SHORT_LIFE_SECONDS = 5
# Long enough for an order whose worker died to be placed again.
_LONGER_LIFE_SECONDS = 10
# Tries of a close, over seven seconds, that find the gateway out of reach.
_TRIES_LOST = 4
# Cut to this, the budget of a close that has failed before is over at once.
_NO_BUDGET = timedelta(milliseconds=500)
# More than a canceled payment's order is tried to be closed before it is paid.
_REFUSALS_TO_CLOSE = 20
_SWITCHED_FROM = {
    GatewayName.STRIPE: (GatewayName.ALIPAY, PaymentMethod.QR),
    GatewayName.ALIPAY: (GatewayName.WECHATPAY, PaymentMethod.NATIVE),
    GatewayName.WECHATPAY: (GatewayName.ALIPAY, PaymentMethod.QR),
}
_IN_FLIGHT = {GatewayName.STRIPE: 8, GatewayName.ALIPAY: 14, GatewayName.WECHATPAY: 8}
_ENDED = frozenset(status.value for status in PaymentStatus if status.is_terminal)
_UNAVAILABLE = 503

Json = dict[str, Any]


class Matrix:
    """`statuses` has every payment as the record has it. `killed` has the pids of those killed by
    hand, apart from those that met a crash point. `missed` counts payments that ended before they
    met theirs, and were played again."""

    def __init__(self, house: House, workers: KeptWorkers, points: CrashPoints) -> None:
        self.statuses: dict[str, str] = {}
        self.killed: set[int] = set()
        self.missed = 0
        self._house = house
        self._workers = workers
        self._points = points
        self._slots = {name: asyncio.Semaphore(count) for name, count in _IN_FLIGHT.items()}
        # A kill takes along whatever else its worker is about, which then waits for heartbeats to
        # be missed: one kill at a time on each queue keeps most of them apart.
        self._killing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def look(self) -> None:
        """Look at the record again and again, for everybody who waits for a status."""
        while True:
            async with self._house.database.begin() as work:
                rows = await work.connection.execute(select(payments.c.id, payments.c.status))
                self.statuses = {row.id: row.status for row in rows}
            await asyncio.sleep(_LOOK_SECONDS)

    async def play(self, cell: Cell) -> None:
        """One payment, and one death of a worker of its gateway."""
        act = {
            "paid": self._pay,
            "canceled": self._cancel,
            "expired": self._expire,
            "disputed": self._dispute,
            "switched": self._switch,
            "returned": self._pay_late,
            "refunded": self._refund_elsewhere,
            "bought": self._buy_points,
        }[cell.journey]
        async with self._slots[cell.gateway]:
            while not await act(cell):
                self.missed += 1

    async def play_out_of_reach(
        self, gateway: GatewayName, method: PaymentMethod, place: str
    ) -> str:
        """A payment canceled while its gateway is out of reach: the core worker dies at this place
        of `payment.end`. Its id."""
        payment = await self._opened(gateway, method)
        payment_id: str = payment["id"]
        point = CrashPoint(END, place, payment_id)
        self._points.arm(point)
        await self._house.sandbox.fault(
            gateway, "query", "http_500", reference=payment_id, times=_TRIES_LOST
        )
        canceling = asyncio.create_task(self._command_cancel(payment_id))
        await self._end_budget(payment_id)
        await self._fired(point)
        await self._until(payment_id, PaymentStatus.CANCELED)
        await canceling
        if gateway is GatewayName.ALIPAY:
            # Alipay knows of a trade from when the payer scans or signs in.
            action = payment["next_action"]
            await self._house.sandbox.decline(gateway=gateway, next_action=action)
        return payment_id

    async def play_undying(self, payment_id: str, gateway: GatewayName, place: str) -> None:
        """The gateway says of the canceled payment's attempt what nobody understands, however
        often it is asked: the core worker dies at this place of `payment.flag`."""
        point = CrashPoint(FLAG, place, payment_id)
        self._points.arm(point)
        await self._house.sandbox.fault(
            gateway, "query", "unknown_status", reference=payment_id, times=1000
        )
        await skip_time(self._house.client, payment_id)
        await self._fired(point)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while "attempt_not_dead" not in await self._reasons(payment_id):
                await asyncio.sleep(_LOOK_SECONDS)

    async def let_die(self, payment_id: str) -> None:
        """The gateway makes sense again, and reports."""
        try:
            await self._house.client.get_workflow_handle(payment_id).signal(
                GATEWAY_REPORTED, GatewayReport(event_id="by hand", event_type="reported")
            )
        except RPCError as problem:
            # It has asked by itself in the meantime, and ended.
            if problem.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def lose_core(self) -> None:
        """Every core worker dies while, with each method, one payment waits for its payer, one
        has just been paid and one is being opened."""
        waiting, paying = [
            await asyncio.gather(*(self._opened(*each) for each in METHODS)) for _ in range(2)
        ]
        opening = [asyncio.create_task(self._opened(*each)) for each in METHODS]
        await asyncio.gather(*(self._house.pay(payment) for payment in paying))
        self.killed |= self._workers.kill("core")
        await asyncio.gather(*(self._house.pay(payment) for payment in waiting))
        opened = await asyncio.gather(*opening)
        await asyncio.gather(*(self._house.pay(payment) for payment in opened))
        for payment in waiting + paying + opened:
            await self._until(payment["id"], PaymentStatus.SUCCEEDED)

    async def until_quiet(self) -> dict[str, PaymentRecord]:
        """Wait until every webhook is delivered, every payment has ended, and no process runs but
        those that watch an attempt that may yet be paid, which only Alipay leaves behind: it does
        not know a trade nobody has scanned. The payments these belong to."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                alive = await self._alive()
                if (
                    all(_is_watched_by_right(record) for record in alive.values())
                    and await self._is_inbox_empty()
                    and await self._running() == set(alive)
                ):
                    return alive
                await asyncio.sleep(0.2)

    # Each answers whether the crash point was met: a payment that was held up by the death of
    # another's worker may have come past it before it was armed.

    async def _pay(self, cell: Cell) -> bool:
        if cell.activity == OPEN:
            payment_id = await self._create_through_death(cell)
            await self._until(payment_id, PaymentStatus.REQUIRES_ACTION)
            await self._house.pay(await self._house.read(payment_id))
            is_met = True
        else:
            async with self._killing[cell.gateway]:
                payment = await self._create(cell)
                payment_id = payment["id"]
                await self._until(payment_id, PaymentStatus.REQUIRES_ACTION)
                self._points.arm(cell.point(payment_id))
                await self._house.pay(await self._house.read(payment_id))
                is_met = await self._is_met(cell.point(payment_id))
        await self._until(payment_id, PaymentStatus.SUCCEEDED)
        return is_met

    async def _cancel(self, cell: Cell) -> bool:
        if cell.activity == OPEN:
            payment_id = await self._create_through_death(cell)
            await self._until(payment_id, PaymentStatus.REQUIRES_ACTION)
            await self._command_cancel(payment_id)
            is_met = True
        else:
            payment_id = (await self._create(cell))["id"]
            await self._until(payment_id, PaymentStatus.REQUIRES_ACTION)
            async with self._killing[cell.gateway]:
                self._points.arm(cell.point(payment_id))
                canceling = asyncio.create_task(self._command_cancel(payment_id))
                is_met = await self._is_met(cell.point(payment_id))
            await canceling
        await self._until(payment_id, PaymentStatus.CANCELED)
        return is_met

    async def _expire(self, cell: Cell) -> bool:
        if cell.activity == OPEN:
            payment_id = await self._create_through_death(
                cell, expires_in_seconds=_LONGER_LIFE_SECONDS
            )
            await self._until(payment_id, PaymentStatus.EXPIRED)
            return True
        payment = await self._create(cell, expires_in_seconds=_SHORT_LIFE_SECONDS)
        if payment["status"] != "requires_action":
            return False
        self._points.arm(cell.point(payment["id"]))
        await self._until(payment["id"], PaymentStatus.EXPIRED)
        return not self._points.disarm(cell.point(payment["id"]))

    async def _dispute(self, cell: Cell) -> bool:
        payment = await self._create(cell)
        payment_id = payment["id"]
        await self._until(payment_id, PaymentStatus.REQUIRES_ACTION)
        await self._house.pay(await self._house.read(payment_id))
        await self._until(payment_id, PaymentStatus.SUCCEEDED)
        point = cell.point(payment_id)
        async with self._killing[cell.gateway]:
            self._points.arm(point)
            await self._house.sandbox.dispute(reference=payment_id)
            await self._fired(point)
        await self._house.sandbox.close_dispute(payment_id, "lost")
        await self._house.until(
            payment_id, lambda now: now["dispute"] and now["dispute"]["status"] == "lost"
        )
        return True

    async def _switch(self, cell: Cell) -> bool:
        payment = await self._opened(*_SWITCHED_FROM[cell.gateway])
        payment_id, point = payment["id"], cell.point(payment["id"])
        async with self._killing[cell.gateway]:
            self._points.arm(point)
            switching = asyncio.create_task(self._command_switch(payment_id, cell))
            await self._fired(point)
        await switching
        switched = await self._house.until(
            payment_id, lambda now: now["gateway"] == cell.gateway.value
        )
        await self._house.pay(switched)
        await self._until(payment_id, PaymentStatus.SUCCEEDED)
        return True

    async def _pay_late(self, cell: Cell) -> bool:
        payment = await self._opened(cell.gateway, cell.method)
        payment_id = payment["id"]
        if cell.gateway is GatewayName.WECHATPAY:
            await self._house.sandbox.fault(
                cell.gateway,
                "close",
                "close_too_early",
                reference=payment_id,
                times=_REFUSALS_TO_CLOSE,
            )
        await self._command_cancel(payment_id)
        await self._until(payment_id, PaymentStatus.CANCELED)
        owner = payment_id if cell.activity == SETTLE else return_id(payment_id, payment["attempt"])
        async with self._killing[cell.gateway]:
            self._points.arm(cell.point(owner))
            await self._house.pay(payment)
            await self._fired(cell.point(owner))
        # The refund goes on by itself: nothing is quiet before it has ended.
        return True

    async def _refund_elsewhere(self, cell: Cell) -> bool:
        payment = await self._create(cell)
        payment_id = payment["id"]
        await self._until(payment_id, PaymentStatus.REQUIRES_ACTION)
        await self._house.pay(await self._house.read(payment_id))
        await self._until(payment_id, PaymentStatus.SUCCEEDED)
        point = cell.point(payment_id)
        async with self._killing[cell.gateway]:
            self._points.arm(point)
            await self._house.sandbox.refund(cell.gateway, payment_id, amount=900)
            await self._fired(point)
        await self._house.until(payment_id, lambda now: now["amount_refunded"] == 900)
        return True

    async def _buy_points(self, cell: Cell) -> bool:
        user_id = f"{cell.name}-{secrets.token_hex(4)}"
        async with self._killing[cell.gateway]:
            payment = await order_points(self._house, cell.gateway, user_id, method=cell.method)
            point = cell.point(payment["id"])
            self._points.arm(point)
            await self._house.pay(payment)
            is_met = await self._is_met(point)
        await self._until(payment["id"], PaymentStatus.SUCCEEDED)
        assert await movements(self._house, user_id) == CREDITED
        return is_met

    async def _opened(self, gateway: GatewayName, method: PaymentMethod) -> Json:
        """A payment that waits for its payer."""
        payment = await self._order(gateway, method, "user_1")
        await self._until(payment["id"], PaymentStatus.REQUIRES_ACTION)
        return await self._house.read(payment["id"])

    async def _create(self, cell: Cell, **more: int) -> Json:
        return await self._order(cell.gateway, cell.method, cell.name, **more)

    async def _create_through_death(self, cell: Cell, **more: int) -> str:
        point = cell.point(cell.name)
        async with self._killing[cell.gateway]:
            self._points.arm(point)
            creating = asyncio.create_task(self._create(cell, **more))
            await self._fired(point)
        payment_id: str = (await creating)["id"]
        return payment_id

    async def _order(
        self, gateway: GatewayName, method: PaymentMethod, user_id: str, **more: Any
    ) -> Json:
        """As an application would: sent again, under the same key, while nobody can say yes."""
        key, answer = secrets.token_hex(16), None
        while answer is None or answer.status_code == _UNAVAILABLE:
            answer = await self._house.post_create(
                gateway, key=key, method=method, user_id=user_id, **more
            )
        assert answer.status_code in (200, 201, 202), answer.text
        payment: Json = answer.json()
        return payment

    async def _command_cancel(self, payment_id: str) -> None:
        answer = None
        while answer is None or answer.status_code == _UNAVAILABLE:
            answer = await self._house.command(payment_id, "cancel")
        assert answer.status_code in (200, 202), answer.text

    async def _command_switch(self, payment_id: str, cell: Cell) -> None:
        """As an application would: the same command again while nobody can say yes."""
        key, answer = secrets.token_hex(16), None
        while answer is None or answer.status_code == _UNAVAILABLE:
            answer = await self._house.api.post(
                f"{BASE}/{payment_id}/switch",
                json={"gateway": cell.gateway.value, "method": cell.method.value},
                headers={"Idempotency-Key": key},
            )
        assert answer.status_code in (200, 202), answer.text

    async def _end_budget(self, payment_id: str) -> None:
        """Let the close under way run out of time, as it does by itself after a minute."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                try:
                    await shorten_budget(self._house.client, payment_id, CLOSE, _NO_BUDGET)
                except RPCError as problem:
                    if problem.status is not RPCStatusCode.NOT_FOUND:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return

    async def _fired(self, point: CrashPoint) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not self._points.has_fired(point):
                await asyncio.sleep(0.02)

    async def _is_met(self, point: CrashPoint) -> bool:
        """Wait until the point has fired, or can do so no more since the payment has ended."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not self._points.has_fired(point):
                if self.statuses.get(point.owner) in _ENDED:
                    return not self._points.disarm(point)
                await asyncio.sleep(0.02)
        return True

    async def _until(self, payment_id: str, status: PaymentStatus) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while self.statuses.get(payment_id) != status:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _reasons(self, payment_id: str) -> list[str]:
        async with self._house.database.begin() as work:
            return [each.reason for each in await work.attention.open(payment_id)]

    async def _is_inbox_empty(self) -> bool:
        async with self._house.database.begin() as work:
            return not (await work.inbox.counts()).get("waiting")

    async def _alive(self) -> dict[str, PaymentRecord]:
        """The payments that have not ended, or have an attempt that may yet be paid."""
        async with self._house.database.begin() as work:
            ids = await work.payments.unfinished(None, 1000)
            found = {payment_id: await work.payments.find(payment_id) for payment_id in ids}
        return {payment_id: record for payment_id, record in found.items() if record}

    async def _running(self) -> set[str]:
        listed = self._house.client.list_workflows("ExecutionStatus = 'Running'")
        return {each.id async for each in listed}


def _is_watched_by_right(record: PaymentRecord) -> bool:
    gateways = {attempt.gateway for attempt in record.open_attempts}
    return record.payment.status.is_terminal and gateways == {GatewayName.ALIPAY}
