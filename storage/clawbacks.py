"""Clawbacks: the points that refunds and disputes take back, out of which lots, and their way back.

A clawback is known by its cause: a refund's id or a dispute's. It is recorded even where it takes
no points, for the amount counts: the points of a purchase go with its money in proportion, whatever
parts it is refunded in.
"""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.identifiers import is_refund_id
from billing.points import (
    Clawback,
    ClawbackPolicy,
    ClawbackPreview,
    LotKind,
    PointsMovement,
    PointsTransaction,
    draw,
    plan_return,
    points_due,
)
from storage.dispute_rows import DisputeChange, DisputeRecord
from storage.payments import Payments
from storage.points_book import Balance, PointsBook
from storage.points_tables import IS_OWED, points_balances, points_clawbacks
from storage.purchases import Purchase, Purchases, StandingClawback
from storage.tables import receipts


class Clawbacks:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection, held: Payments, book: PointsBook) -> None:
        self._connection = connection
        self._payments = held
        self._book = book
        self._purchases = Purchases(connection, book)

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
        purchase = await self._purchases.find(payment_id)
        if purchase is None:
            return amount_minor
        balance = await self._book.open(purchase.user, now)
        known: int | None = await self._connection.scalar(
            select(points_clawbacks.c.amount_minor).where(points_clawbacks.c.cause_id == cause_id)
        )
        if known is not None:
            return known
        plan, _ = await self._purchases.plan(purchase, amount_minor, policy, now, is_gone=is_gone)
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
        purchase = None if payment_id is None else await self._purchases.find(payment_id)
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
            await self._book.return_to_lot(taking)
            restored += taking.points
        transaction = None
        if restored > 0:
            transaction = await self._book.move(
                balance,
                PointsMovement.RESTORE,
                restored,
                payment_id=purchase.payment_id,
                refund_id=_refund_of(cause_id),
                debt=-owed,
                now=now,
            )
        await self._settle_up(purchase, balance, now)
        await self.pay_debt(balance, now)
        return transaction

    async def _settle_up(self, purchase: Purchase, balance: Balance, now: datetime) -> None:
        """Have those that stand keep the points that go with their money, no fewer and no more.

        Fewer, where money is gone whose points another refund had taken: refunded elsewhere,
        withdrawn, or a part of a point rounded up with the refund that failed. More, where each of
        those beside it had rounded up.
        """
        standing = await self._purchases.standing(purchase)
        granted = sum(lot.granted for lot in await self._purchases.lots(purchase))

        def due(amount_minor: int) -> int:
            return points_due(granted, purchase.paid_minor, min(amount_minor, purchase.paid_minor))

        for one in standing:
            # No more than goes with its own money: what it takes comes back with that alone.
            room = due(one.amount_minor) - one.points
            if room > 0:
                await self._take_more(one.cause_id, purchase, room, balance, now)
        surplus = sum(one.points for one in standing) - due(
            sum(one.amount_minor for one in standing)
        )
        for one in standing:
            part = min(surplus, one.points)
            if part > 0:
                await self._give_back(one, purchase, part, balance, now)
                surplus -= part

    async def _take_more(
        self, cause_id: str, purchase: Purchase, most: int, balance: Balance, now: datetime
    ) -> None:
        plan, _ = await self._purchases.plan(
            purchase, 0, ClawbackPolicy.DEBT, now, is_gone=True, most=most
        )
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

    async def _give_back(
        self,
        clawback: StandingClawback,
        purchase: Purchase,
        points: int,
        balance: Balance,
        now: datetime,
    ) -> None:
        """Restore some of what a clawback that stands has taken."""
        takings = await self._book.takings(clawback.cause_id)
        own = await self._purchases.lots(purchase)
        plan = plan_return(takings, own, points, owed=clawback.owed)
        for taking in plan.takings:
            await self._book.put_back(clawback.cause_id, taking)
        await self._connection.execute(
            update(points_clawbacks)
            .where(points_clawbacks.c.cause_id == clawback.cause_id)
            .values(
                points=points_clawbacks.c.points - plan.points,
                owed=points_clawbacks.c.owed - plan.owed,
            )
        )
        if plan.movement:
            await self._book.move(
                balance,
                PointsMovement.RESTORE,
                plan.movement,
                payment_id=purchase.payment_id,
                refund_id=_refund_of(clawback.cause_id),
                debt=-plan.owed,
                now=now,
            )

    async def preview(
        self, payment_id: str, amount_minor: int | None, policy: ClawbackPolicy, now: datetime
    ) -> ClawbackPreview | None:
        """What a refund of `amount_minor` (minor units; None: all that is left) would do to the
        points, changing nothing; None where the payment brought none.

        Raises RefundExceedsPayment and PointsAlreadySpent, as the refund would.
        """
        purchase = await self._purchases.find(payment_id)
        if purchase is None:
            return None
        plan, lots = await self._purchases.plan(purchase, amount_minor, policy, now)
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
