"""Payments that brought points, and what their refunds and disputes have come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import RefundExceedsPayment
from billing.points import (
    Clawback,
    ClawbackPolicy,
    PointsLot,
    PurchaseStanding,
    plan_clawback,
)
from storage.points_book import PointsBook, User
from storage.points_tables import points_clawbacks, points_lots
from storage.tables import payments


@dataclass(frozen=True)
class Purchase:
    """A payment that brought points: whose, and for how much."""

    payment_id: str
    user: User
    paid_minor: int


@dataclass(frozen=True)
class StandingClawback:
    """What one refund or dispute has and was not restored: money (minor units), `points`, and
    `owed`, those of them that no lot had."""

    cause_id: str
    amount_minor: int
    points: int
    owed: int


class Purchases:
    """Reads only; whoever writes by what it says has locked payment and balance."""

    def __init__(self, connection: AsyncConnection, book: PointsBook) -> None:
        self._connection = connection
        self._book = book

    async def find(self, payment_id: str) -> Purchase | None:
        rows = await self._connection.execute(
            select(points_lots.c.application, points_lots.c.user_id, payments.c.amount_minor)
            .join_from(points_lots, payments, payments.c.id == points_lots.c.payment_id)
            .where(points_lots.c.payment_id == payment_id)
            .limit(1)
        )
        row = rows.first()
        if row is None:
            return None
        return Purchase(payment_id, User(row.application, row.user_id), row.amount_minor)

    async def plan(
        self,
        purchase: Purchase,
        amount_minor: int | None,
        policy: ClawbackPolicy,
        now: datetime,
        *,
        is_gone: bool = False,
        most: int | None = None,
    ) -> tuple[Clawback, list[PointsLot]]:
        """What a refund of `amount_minor` (None: all that is left) would take, and from which lots;
        of money that `is_gone`, also beyond what was paid.

        Raises RefundExceedsPayment and PointsAlreadySpent.
        """
        standing = _sum(purchase, await self.standing(purchase))
        left = max(purchase.paid_minor - standing.refunded_minor, 0)
        amount = left if amount_minor is None else amount_minor
        if not is_gone and (left == 0 or amount > left):
            raise RefundExceedsPayment(
                f"{left} of {purchase.paid_minor} in minor units are left of payment"
                f" {purchase.payment_id}, the rest being refunded or set aside for it",
                param="amount",
            )
        lots = await self._book.lots(purchase.user, payment_id=purchase.payment_id)
        return plan_clawback(lots, standing, amount, policy, now, most=most), lots

    async def standing(self, purchase: Purchase) -> list[StandingClawback]:
        """The clawbacks of the purchase that stand, the latest first."""
        rows = await self._connection.execute(
            select(
                points_clawbacks.c.cause_id,
                points_clawbacks.c.amount_minor,
                points_clawbacks.c.points,
                points_clawbacks.c.owed,
            )
            .where(
                points_clawbacks.c.payment_id == purchase.payment_id,
                points_clawbacks.c.restored_at.is_(None),
            )
            .order_by(points_clawbacks.c.effective_at.desc(), points_clawbacks.c.cause_id)
        )
        return [StandingClawback(*row) for row in rows]

    async def lots(self, purchase: Purchase) -> list[PointsLot]:
        """Those that the purchase brought."""
        lots = await self._book.lots(purchase.user, payment_id=purchase.payment_id)
        return [lot for lot in lots if lot.payment_id == purchase.payment_id]


def _sum(purchase: Purchase, standing: Sequence[StandingClawback]) -> PurchaseStanding:
    return PurchaseStanding(
        purchase.payment_id,
        purchase.paid_minor,
        sum(one.amount_minor for one in standing),
        sum(one.points for one in standing),
    )
