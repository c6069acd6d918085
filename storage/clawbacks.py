"""Clawbacks: the points that refunds and disputes take back, out of which lots, and their way back.

A clawback is known by its cause: a refund's id or a dispute's. It is recorded even where it takes
no points, for the amount counts: the points of a purchase go with its money in proportion, whatever
parts it is refunded in.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, cast, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import RefundExceedsPayment
from billing.identifiers import is_refund_id
from billing.points import (
    Clawback,
    ClawbackPolicy,
    ClawbackPreview,
    LotKind,
    PointsLot,
    PointsMovement,
    PointsTransaction,
    PurchaseStanding,
    draw,
    plan_clawback,
    points_due,
)
from storage.dispute_rows import DisputeChange, DisputeRecord
from storage.payments import Payments
from storage.points_book import Balance, PointsBook, User
from storage.points_tables import (
    IS_OWED,
    points_balances,
    points_clawbacks,
    points_lots,
)
from storage.tables import payments, receipts


@dataclass(frozen=True)
class _Purchase:
    """A payment that brought points: whose, and for how much."""

    payment_id: str
    user: User
    paid_minor: int


class Clawbacks:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection, held: Payments, book: PointsBook) -> None:
        self._connection = connection
        self._payments = held
        self._book = book

    async def take(
        self,
        cause_id: str,
        payment_id: str,
        amount_minor: int,
        policy: ClawbackPolicy,
        now: datetime,
    ) -> int:
        """Take back the points that go with a refund of `amount_minor`; the amount that `policy`
        lets pass (minor units). A payment without points loses none; a repeat takes none.

        Raises PointsAlreadySpent and RefundExceedsPayment, having written nothing.
        """
        return await self._take_back(cause_id, payment_id, amount_minor, policy, now)

    async def seize(self, cause_id: str, payment_id: str, amount_minor: int, now: datetime) -> None:
        """Take back the points that go with money which is gone whatever we say: what is spent is
        owed, and what was taken back before is not taken twice."""
        await self._take_back(
            cause_id, payment_id, amount_minor, ClawbackPolicy.DEBT, now, is_gone=True
        )

    async def follow(self, change: DisputeChange, now: datetime) -> None:
        """Have the points that a dispute has follow the money that it has: taken back when money is
        withdrawn, restored when it is reinstated.

        Its first withdrawal is known by the dispute's id, a later one also by how far its money
        had moved.
        """
        record = change.after
        held = max(record.held_minor, 0)
        if held == (max(change.before.held_minor, 0) if change.before else 0):
            return
        if not await self._is_of_purchase(record):
            return
        causes = await self._causes_of(record)
        for cause_id in causes:
            await self.restore(cause_id, now)
        if held > 0:
            moved = record.withdrawn_minor + record.reinstated_minor
            cause_id = f"{record.dispute.id}/{moved}" if causes else record.dispute.id
            await self.seize(cause_id, record.payment_id, held, now)

    async def _take_back(
        self,
        cause_id: str,
        payment_id: str,
        amount_minor: int,
        policy: ClawbackPolicy,
        now: datetime,
        *,
        is_gone: bool = False,
    ) -> int:
        await self._payments.hold(payment_id)
        purchase = await self._purchase(payment_id)
        if purchase is None:
            return amount_minor
        balance = await self._book.open(purchase.user, now)
        known: int | None = await self._connection.scalar(
            select(points_clawbacks.c.amount_minor).where(points_clawbacks.c.cause_id == cause_id)
        )
        if known is not None:
            return known
        plan, _ = await self._plan(purchase, amount_minor, policy, now, is_gone=is_gone)
        await self._connection.execute(
            insert(points_clawbacks).values(
                cause_id=cause_id,
                application=purchase.user.application,
                user_id=purchase.user.user_id,
                payment_id=payment_id,
                amount_minor=plan.amount_minor,
                points=plan.points,
                owed=plan.owed,
                effective_at=now,
            )
        )
        await self._carry_out(cause_id, payment_id, plan, balance, now)
        return plan.amount_minor

    async def _carry_out(
        self, cause_id: str, payment_id: str, plan: Clawback, balance: Balance, now: datetime
    ) -> None:
        for taking in plan.takings:
            await self._book.take(cause_id, taking)
        if plan.movement:
            await self._book.move(
                balance,
                PointsMovement.CLAWBACK,
                plan.movement,
                payment_id=payment_id,
                refund_id=_refund_of(cause_id),
                debt=plan.owed,
                now=now,
            )

    async def restore(self, cause_id: str, now: datetime) -> PointsTransaction | None:
        """Undo what the refund took, lot by lot, once; None where it moved no points.

        Points that paid for its debt since go back to the lots they came from; whatever else the
        user owes is paid from what is restored.
        """
        payment_id = await self._connection.scalar(
            select(points_clawbacks.c.payment_id).where(points_clawbacks.c.cause_id == cause_id)
        )
        purchase = None if payment_id is None else await self._purchase(payment_id)
        if purchase is None:
            return None
        await self._payments.hold(purchase.payment_id)
        balance = await self._book.open(purchase.user, now)
        rows = await self._connection.execute(
            select(points_clawbacks.c.owed).where(
                points_clawbacks.c.cause_id == cause_id,
                points_clawbacks.c.restored_at.is_(None),
            )
        )
        row = rows.first()
        if row is None:
            return None
        owed: int = row.owed
        await self._connection.execute(
            update(points_clawbacks)
            .where(points_clawbacks.c.cause_id == cause_id)
            .values(owed=0, restored_at=now)
        )
        restored = owed
        for taking in await self._book.takings(cause_id):
            await self._book.change_lot(
                taking.lot_id,
                remaining=taking.points,
                expired=taking.lapsed,
                taken=-taking.points - taking.lapsed,
            )
            restored += taking.points
        if restored == 0:
            await self._catch_up(purchase, balance, now)
            return None
        transaction = await self._book.move(
            balance,
            PointsMovement.RESTORE,
            restored,
            payment_id=purchase.payment_id,
            refund_id=_refund_of(cause_id),
            debt=-owed,
            now=now,
        )
        await self.pay_debt(balance, now)
        await self._catch_up(purchase, balance, now)
        return transaction

    async def _catch_up(self, purchase: _Purchase, balance: Balance, now: datetime) -> None:
        """Take what was just restored although its money is gone all the same: refunded elsewhere
        or withdrawn at a time when another refund had taken these points already, or refunded with
        parts of a point that had gone, rounded up, with the refund that failed."""
        rows = await self._connection.execute(
            select(
                points_clawbacks.c.cause_id,
                points_clawbacks.c.amount_minor,
                points_clawbacks.c.points,
            )
            .where(
                points_clawbacks.c.payment_id == purchase.payment_id,
                points_clawbacks.c.restored_at.is_(None),
            )
            .order_by(points_clawbacks.c.effective_at.desc(), points_clawbacks.c.cause_id)
        )
        lots = await self._book.lots(purchase.user, payment_id=purchase.payment_id)
        granted = sum(lot.granted for lot in lots if lot.payment_id == purchase.payment_id)
        for row in rows.all():
            # No more than goes with its own money: what it takes comes back with that alone.
            gone = min(row.amount_minor, purchase.paid_minor)
            room = points_due(granted, purchase.paid_minor, gone) - row.points
            if room > 0:
                await self._take_more(row.cause_id, purchase, room, balance, now)

    async def _take_more(
        self, cause_id: str, purchase: _Purchase, most: int, balance: Balance, now: datetime
    ) -> None:
        plan, _ = await self._plan(purchase, 0, ClawbackPolicy.DEBT, now, is_gone=True, most=most)
        if plan.points == 0:
            return
        await self._connection.execute(
            update(points_clawbacks)
            .where(points_clawbacks.c.cause_id == cause_id)
            .values(
                points=points_clawbacks.c.points + plan.points,
                owed=points_clawbacks.c.owed + plan.owed,
            )
        )
        await self._carry_out(cause_id, purchase.payment_id, plan, balance, now)

    async def preview(
        self, payment_id: str, amount_minor: int | None, policy: ClawbackPolicy, now: datetime
    ) -> ClawbackPreview | None:
        """What a refund of `amount_minor` (minor units; None: all that is left) would do to the
        points, changing nothing; None where the payment brought none.

        Raises RefundExceedsPayment and PointsAlreadySpent, as the refund would.
        """
        purchase = await self._purchase(payment_id)
        if purchase is None:
            return None
        plan, lots = await self._plan(purchase, amount_minor, policy, now)
        kinds = {lot.id: lot.kind for lot in lots}
        taken = dict.fromkeys(LotKind, 0)
        for taking in plan.takings:
            taken[kinds[taking.lot_id]] += taking.points
        balance = await self._connection.scalar(
            select(points_balances.c.balance).where(
                points_balances.c.application == purchase.user.application,
                points_balances.c.user_id == purchase.user.user_id,
            )
        )
        return ClawbackPreview(
            amount=plan.amount_minor,
            points=plan.movement,
            bonus=taken[LotKind.BONUS],
            paid=taken[LotKind.PAID],
            owed=plan.owed,
            balance_after=(balance or 0) - plan.movement,
        )

    async def pay_debt(self, balance: Balance, now: datetime) -> None:
        """What can be spent pays what is owed, to the oldest cause first; the balance, being the
        one less the other, stays as it is."""
        if balance.debt == 0:
            return
        rows = await self._connection.execute(
            select(points_clawbacks.c.cause_id, points_clawbacks.c.owed)
            .where(
                points_clawbacks.c.application == balance.user.application,
                points_clawbacks.c.user_id == balance.user.user_id,
                IS_OWED,
            )
            .order_by(points_clawbacks.c.effective_at, points_clawbacks.c.cause_id)
        )
        for cause_id, owed in rows.all():
            takings = draw(await self._book.lots(balance.user), owed, now)
            paid = sum(taking.points for taking in takings)
            if paid == 0:
                break
            for taking in takings:
                await self._book.take(cause_id, taking)
            await self._connection.execute(
                update(points_clawbacks)
                .where(points_clawbacks.c.cause_id == cause_id)
                .values(owed=points_clawbacks.c.owed - paid)
            )
            balance.debt -= paid
        await self._book.store(balance, now)

    async def _plan(
        self,
        purchase: _Purchase,
        amount_minor: int | None,
        policy: ClawbackPolicy,
        now: datetime,
        *,
        is_gone: bool = False,
        most: int | None = None,
    ) -> tuple[Clawback, list[PointsLot]]:
        standing = await self._standing(purchase)
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

    async def _purchase(self, payment_id: str) -> _Purchase | None:
        rows = await self._connection.execute(
            select(points_lots.c.application, points_lots.c.user_id, payments.c.amount_minor)
            .join_from(points_lots, payments, payments.c.id == points_lots.c.payment_id)
            .where(points_lots.c.payment_id == payment_id)
            .limit(1)
        )
        row = rows.first()
        if row is None:
            return None
        return _Purchase(payment_id, User(row.application, row.user_id), row.amount_minor)

    async def _standing(self, purchase: _Purchase) -> PurchaseStanding:
        def total(column: str) -> ColumnElement[int]:
            return cast(func.coalesce(func.sum(points_clawbacks.c[column]), 0), BigInteger)

        rows = await self._connection.execute(
            select(total("amount_minor"), total("points")).where(
                points_clawbacks.c.payment_id == purchase.payment_id,
                points_clawbacks.c.restored_at.is_(None),
            )
        )
        refunded, taken = rows.one()
        return PurchaseStanding(purchase.payment_id, purchase.paid_minor, refunded, taken)

    async def _is_of_purchase(self, record: DisputeRecord) -> bool:
        """Whether the disputed money is what paid for the payment."""
        kept: bool | None = await self._connection.scalar(
            select(receipts.c.kept).where(
                receipts.c.payment_id == record.payment_id, receipts.c.attempt == record.attempt
            )
        )
        return bool(kept)

    async def _causes_of(self, record: DisputeRecord) -> list[str]:
        """Under which causes a dispute has taken points, restored or not."""
        dispute_id = record.dispute.id
        rows = await self._connection.execute(
            select(points_clawbacks.c.cause_id).where(
                points_clawbacks.c.payment_id == record.payment_id,
                (points_clawbacks.c.cause_id == dispute_id)
                | points_clawbacks.c.cause_id.startswith(f"{dispute_id}/", autoescape=True),
            )
        )
        return list(rows.scalars())


def _refund_of(cause_id: str) -> str | None:
    """What a movement of points names as its refund: a dispute is none."""
    return cause_id if is_refund_id(cause_id) else None
