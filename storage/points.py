"""Points: credited with a payment, spent oldest first, and written off when they expire.

Whoever writes points of a payment holds the payment first, then the user's balance: so two
transactions wait for each other and never deadlock.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    RowMapping,
    and_,
    bindparam,
    cast,
    func,
    insert,
    null,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import IdempotencyKeyReused, InsufficientPoints, InvalidRequest
from billing.identifiers import is_points_transaction_id
from billing.points import (
    HeldLot,
    LotKind,
    PointsBalance,
    PointsHoldings,
    PointsMovement,
    PointsPurchase,
    PointsTransaction,
    choose_lots,
)
from storage.clawbacks import Clawbacks
from storage.paging import Page
from storage.payments import Payments
from storage.points_book import Balance, PointsBook, User, is_of, lot_of, transaction_of
from storage.points_tables import (
    CAN_FALL_DUE,
    HAS_REMAINING,
    points_balances,
    points_lots,
    points_transactions,
)

__all__ = ["Points", "User"]

_MOVEMENTS: Final = {LotKind.PAID: PointsMovement.PURCHASE, LotKind.BONUS: PointsMovement.BONUS}

_IS_OWN: Final = and_(
    points_lots.c.application == points_balances.c.application,
    points_lots.c.user_id == points_balances.c.user_id,
)
_IS_SPENDABLE: Final = and_(
    points_balances.c.debt == 0,
    or_(points_lots.c.expires_at.is_(null()), points_lots.c.expires_at > bindparam("at")),
)
_SPENDABLE: Final = func.coalesce(func.sum(points_lots.c.remaining).filter(_IS_SPENDABLE), 0)
_BALANCE: Final = (
    select(
        points_balances.c.balance,
        points_balances.c.debt,
        cast(_SPENDABLE, BigInteger).label("spendable"),
    )
    .outerjoin_from(points_balances, points_lots, and_(_IS_OWN, HAS_REMAINING))
    .where(
        points_balances.c.application == bindparam("of_application"),
        points_balances.c.user_id == bindparam("of_user"),
    )
    .group_by(points_balances.c.balance, points_balances.c.debt)
)


class Points:
    """The repository of one unit of work."""

    def __init__(
        self,
        connection: AsyncConnection,
        payments: Payments,
        book: PointsBook,
        clawbacks: Clawbacks,
    ) -> None:
        self._connection = connection
        self._payments = payments
        self._book = book
        self._clawbacks = clawbacks

    async def grant(
        self, user: User, payment_id: str, purchase: PointsPurchase, now: datetime
    ) -> list[PointsTransaction]:
        """Credit what a payment bought, once: a repeat credits nothing. A debt is paid first."""
        await self._payments.hold(payment_id)
        balance = await self._book.open(user, now)
        known = select(points_lots.c.id).where(points_lots.c.payment_id == payment_id).limit(1)
        if await self._connection.scalar(known) is not None:
            return []
        transactions = []
        for kind, points in purchase.lots().items():
            await self._connection.execute(
                insert(points_lots).values(
                    application=user.application,
                    user_id=user.user_id,
                    payment_id=payment_id,
                    package_id=purchase.package_id,
                    kind=kind.value,
                    granted=points,
                    remaining=points,
                    expires_at=purchase.expires_at(now),
                    effective_at=now,
                )
            )
            movement = _MOVEMENTS[kind]
            transactions.append(
                await self._book.move(balance, movement, points, payment_id=payment_id, now=now)
            )
        await self._clawbacks.pay_debt(balance, now)
        return transactions

    async def spend(
        self, user: User, transaction_id: str, points: int, description: str | None, now: datetime
    ) -> PointsTransaction:
        """Spend from the oldest lots; a repeat under the same id changes nothing and answers with
        what stands.

        Raises InsufficientPoints, InvalidRequest (less than one point) and IdempotencyKeyReused
        (the id is another movement's), having written nothing.
        """
        balance = await self._book.hold(user)
        if balance is None:
            raise InsufficientPoints(f"0 points can be spent, not {points}", param="points")
        # A statement of its own: it sees what was committed while we waited for the lock.
        standing = await self._standing(transaction_id)
        if standing is not None:
            return _same(standing, user, points, transaction_id)
        lots = await self._book.lots(user)
        takings = choose_lots(lots, points, debt=balance.debt, now=now)
        for taking in takings:
            await self._book.change_lot(
                taking.lot_id, remaining=-taking.points, spent=taking.points
            )
        return await self._book.move(
            balance,
            PointsMovement.SPEND,
            points,
            transaction_id=transaction_id,
            description=description,
            now=now,
        )

    async def due(self, now: datetime, limit: int) -> list[User]:
        """Users with points that have expired, those with the oldest first."""
        since = func.min(points_lots.c.expires_at)
        rows = await self._connection.execute(
            select(points_lots.c.application, points_lots.c.user_id)
            .where(CAN_FALL_DUE, points_lots.c.expires_at <= now)
            .group_by(points_lots.c.application, points_lots.c.user_id)
            .order_by(since)
            .limit(limit)
        )
        return [User(application, user_id) for application, user_id in rows]

    async def expire(self, user: User, now: datetime) -> list[PointsTransaction]:
        """Write off what has expired, a movement for each lot."""
        balance = await self._book.hold(user)
        if balance is None:
            return []
        return [
            await self._expire(balance, lot.id, lot.remaining, lot.payment_id, now)
            for lot in await self._book.lots(user)
            if lot.is_due(now)
        ]

    async def balance(self, user: User, now: datetime) -> PointsBalance:
        """What the user has; nothing where nobody ever had points by that name."""
        rows = await self._connection.execute(
            _BALANCE,
            {"of_application": user.application, "of_user": user.user_id, "at": now},
        )
        row = rows.mappings().first()
        if row is None:
            return PointsBalance(user_id=user.user_id, balance=0, spendable=0, owed=0)
        return PointsBalance(
            user_id=user.user_id,
            balance=row["balance"],
            spendable=row["spendable"],
            owed=row["debt"],
        )

    async def holdings(self, user: User, now: datetime) -> PointsHoldings:
        """As `balance`, with the lots behind it, as they stood at one moment."""
        rows = await self._connection.execute(
            select(points_balances.c.balance, points_balances.c.debt, points_lots)
            .outerjoin_from(points_balances, points_lots, and_(_IS_OWN, HAS_REMAINING))
            .where(is_of(points_balances.c, user))
            .order_by(points_lots.c.id)
        )
        found = rows.mappings().all()
        lots = [lot_of(row) for row in found if row["id"] is not None]
        debt = found[0]["debt"] if found else 0
        spendable = sum(lot.remaining for lot in lots if lot.is_spendable(now))
        return PointsHoldings(
            user_id=user.user_id,
            balance=found[0]["balance"] if found else 0,
            spendable=0 if debt else spendable,
            owed=debt,
            lots=[HeldLot.model_validate(lot, from_attributes=True) for lot in lots],
        )

    async def page(
        self, user: User, *, limit: int, cursor: str | None = None
    ) -> Page[PointsTransaction]:
        """The user's movements, newest first. Raises InvalidRequest on a cursor not ours."""
        query = select(points_transactions).where(is_of(points_transactions.c, user))
        if cursor is not None:
            query = query.where(points_transactions.c.sequence < await self._place(user, cursor))
        rows = await self._connection.execute(
            query.order_by(points_transactions.c.sequence.desc()).limit(limit + 1)
        )
        found = [transaction_of(row) for row in rows.mappings()]
        has_more = len(found) > limit
        return Page(
            data=found[:limit],
            has_more=has_more,
            next_cursor=found[limit - 1].id if has_more else None,
        )

    async def find(self, transaction_id: str, application: str) -> PointsTransaction | None:
        """A movement of this application's users, or None."""
        row = await self._standing(transaction_id)
        if row is None or row["application"] != application:
            return None
        return transaction_of(row)

    async def _place(self, user: User, cursor: str) -> int:
        place: int | None = None
        if is_points_transaction_id(cursor):
            place = await self._connection.scalar(
                select(points_transactions.c.sequence).where(
                    is_of(points_transactions.c, user), points_transactions.c.id == cursor
                )
            )
        if place is None:
            raise InvalidRequest("cursor is not one that a list gave", param="cursor")
        return place

    async def _standing(self, transaction_id: str) -> RowMapping | None:
        rows = await self._connection.execute(
            select(points_transactions).where(points_transactions.c.id == transaction_id)
        )
        return rows.mappings().first()

    async def _expire(
        self, balance: Balance, lot_id: int, points: int, payment_id: str, now: datetime
    ) -> PointsTransaction:
        await self._book.change_lot(lot_id, remaining=-points, expired=points)
        return await self._book.move(
            balance, PointsMovement.EXPIRY, points, payment_id=payment_id, now=now
        )


def _same(standing: RowMapping, user: User, points: int, transaction_id: str) -> PointsTransaction:
    asked = user.application, user.user_id, PointsMovement.SPEND.value, -points
    columns = ("application", "user_id", "kind", "amount")
    if tuple(standing[column] for column in columns) != asked:
        raise IdempotencyKeyReused(f"{transaction_id} is another movement of points")
    return transaction_of(standing)
