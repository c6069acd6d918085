"""The refunds of the kill matrix: where in them a worker dies, and how each is played."""

import asyncio
import itertools
import secrets
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from billing.payment import GatewayName
from storage.tables import ledger_postings, ledger_transactions, refunds
from tests.end_to_end.buyers import movements, order_points
from tests.end_to_end.claims import claimed_refund
from tests.end_to_end.outcomes import until_status
from tests.faults.crash_points import CrashPoint, CrashPoints
from tests.fixtures.house import METHODS, House

RESERVE: Final = "refund.reserve"
ASK: Final = "refund.ask"
SETTLE: Final = "refund.settle"
PLACES: Final = {
    RESERVE: ("before", "after"),
    ASK: ("before", "before_refund", "after_refund", "after"),
    SETTLE: ("before", "before_query_refund", "after_query_refund", "after"),
}
AMOUNT: Final = 900

_UNCOMMITTED: Final = "before_commit"
"""A place of refunds of points alone: these are written."""
_PACKAGE: Final = "points_1200"
_POINTS, _BONUS = 1200, 180
_PATIENCE_SECONDS: Final = 180
_LOOK_SECONDS: Final = 0.2
_PAYING: Final = 12
_PENDING_CARD: Final = "4000000000007726"
_FAILING_CARD: Final = "4000000000005126"
_UNAVAILABLE: Final = 503


@dataclass(frozen=True)
class RefundCell:
    """A worker dies at this place of this activity; `is_sent_back` where the bank cannot place
    the money, so that a refund that has succeeded fails; `is_of_points` where what was paid for
    are points, which go and come with the money."""

    gateway: str
    activity: str
    place: str
    is_sent_back: bool = False
    is_of_points: bool = False

    @property
    def name(self) -> str:
        words = (self.gateway, self.activity, self.place)
        sent_back, points = self.is_sent_back * ("sent_back",), self.is_of_points * ("points",)
        return "-".join((*words, *sent_back, *points))

    @property
    def queue(self) -> str:
        return "core" if self.activity == RESERVE else self.gateway

    @property
    def end(self) -> str:
        return "failed" if self.is_sent_back else "succeeded"

    @property
    def card(self) -> dict[str, str]:
        """How the payer pays, for the refund to be asked after."""
        if self.gateway != "stripe" or self.activity != SETTLE:
            return {}
        return {"card": _FAILING_CARD if self.is_sent_back else _PENDING_CARD}


def refund_cells(*, is_soak: bool = False) -> Iterator[RefundCell]:
    """The soak has the refunds of points that die like others as well: the suite those that have
    just taken points, or are about to give them back, and have not committed it."""
    for gateway, (activity, places) in itertools.product(METHODS, PLACES.items()):
        for place in places:
            yield RefundCell(gateway, activity, place)
            if is_soak:
                yield RefundCell(gateway, activity, place, is_of_points=True)
        if activity == RESERVE:
            yield RefundCell(gateway, activity, _UNCOMMITTED, is_of_points=True)
    for place in PLACES[SETTLE]:
        yield RefundCell("stripe", SETTLE, place, is_sent_back=True)
        if is_soak:
            yield RefundCell("stripe", SETTLE, place, is_sent_back=True, is_of_points=True)
    yield RefundCell("stripe", SETTLE, _UNCOMMITTED, is_sent_back=True, is_of_points=True)


class RefundMatrix:
    """`amounts` has what each payment must have given back in the end."""

    def __init__(self, house: House, points: CrashPoints) -> None:
        self.amounts: dict[str, int] = {}
        self._house = house
        self._points = points
        self._statuses: dict[str, str] = {}
        self._paying = asyncio.Semaphore(_PAYING)
        self._killing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def look(self) -> None:
        """Look at the record again and again, for everybody who waits for a status."""
        while True:
            async with self._house.database.begin() as work:
                rows = await work.connection.execute(select(refunds.c.id, refunds.c.status))
                self._statuses = {row.id: row.status for row in rows}
            await asyncio.sleep(_LOOK_SECONDS)

    async def take(self, cell: RefundCell) -> dict[str, Any]:
        """A payment that is paid, by a payer who makes the refund go the cell's way."""
        async with self._paying:
            if cell.is_of_points:
                user_id = f"{cell.name}-{secrets.token_hex(4)}"
                payment = await order_points(self._house, cell.gateway, user_id, _PACKAGE)
            else:
                payment = await self._house.create(cell.gateway)
            action = payment["next_action"]
            await self._house.sandbox.pay(gateway=cell.gateway, next_action=action, **cell.card)
            await until_status(self._house, payment["id"], "succeeded")
        return payment

    async def play(self, cell: RefundCell, payment: dict[str, Any]) -> None:
        """One refund of the payment, and one death of a worker of its queue."""
        payment_id: str = payment["id"]
        key = secrets.token_hex(16)
        refund_id = await claimed_refund(self._house, payment, key, amount=AMOUNT)
        point = CrashPoint(cell.activity, cell.place, refund_id)
        if cell.gateway == GatewayName.ALIPAY and cell.activity == SETTLE:
            # It tells what became of a refund at once, unless that answer is lost.
            await self._house.sandbox.fault(
                cell.gateway, "refund", "http_500_after", reference=payment_id
            )
        async with self._killing[cell.queue]:
            self._points.arm(point)
            asking = asyncio.create_task(self._refund(payment_id, key))
            await self._fired(point)
        await asking
        await self._until(refund_id, cell.end)
        self.amounts[payment_id] = 0 if cell.is_sent_back else AMOUNT
        if cell.is_of_points:
            await self._require_points(cell, payment)

    async def _require_points(self, cell: RefundCell, payment: dict[str, Any]) -> None:
        """Taken once, and given back once where the money came back."""
        bought = _POINTS + _BONUS
        gone = -(-bought * AMOUNT // payment["amount"])
        expected = [
            ("purchase", _POINTS, _POINTS),
            ("bonus", _BONUS, bought),
            ("clawback", -gone, bought - gone),
        ]
        if cell.is_sent_back:
            expected.append(("restore", gone, bought))
        assert await movements(self._house, payment["user_id"]) == expected

    async def _refund(self, payment_id: str, key: str) -> None:
        """As an application would: sent again, under the same key, while nobody can say yes."""
        answer = None
        while answer is None or answer.status_code == _UNAVAILABLE:
            answer = await self._house.post_refund(payment_id, key=key, amount=AMOUNT)
        assert answer.status_code in (201, 202), answer.text

    async def _fired(self, point: CrashPoint) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not self._points.has_fired(point):
                await asyncio.sleep(0.02)

    async def _until(self, refund_id: str, status: str) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while self._statuses.get(refund_id) != status:
                await asyncio.sleep(_LOOK_SECONDS)

    async def count(self) -> tuple[int, int]:
        """Payments that gave back more than was asked for, and those that gave back less or whose
        refund is not in record and ledger once, with its return where it was sent back."""
        twice = lost = 0
        for charge in await self._house.sandbox.charges():
            wanted = self.amounts.get(charge["reference"])
            if wanted is None:
                continue
            twice += charge["refunded"] > wanted
            lost += charge["refunded"] < wanted or not await self._is_booked(charge["reference"])
        return twice, lost

    async def _is_booked(self, payment_id: str) -> bool:
        async with self._house.database.begin() as work:
            [record] = await work.refunds.of_payment(payment_id)
            cause = f"refund/{record.refund.id}"
            rows = await work.connection.execute(
                select(ledger_transactions.c.cause, ledger_postings.c.amount_minor)
                .join_from(
                    ledger_postings,
                    ledger_transactions,
                    ledger_transactions.c.id == ledger_postings.c.transaction_id,
                )
                .where(
                    ledger_transactions.c.cause.startswith(cause),
                    ledger_postings.c.amount_minor.in_((AMOUNT, -AMOUNT)),
                )
                .order_by(ledger_transactions.c.cause, ledger_postings.c.amount_minor)
            )
            booked = [(row.cause, row.amount_minor) for row in rows]
        given_back = [(cause, -AMOUNT), (cause, AMOUNT)]
        taken_again = [(f"{cause}/failed", -AMOUNT), (f"{cause}/failed", AMOUNT)]
        if self.amounts[payment_id]:
            return booked == given_back
        return booked in ([], given_back + taken_again)
