"""The book of one user's points: what stands in it, locked, and each movement written once.

A movement is one row of the history, one ledger transaction and one event; the balance follows.
"""

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.identifiers import POINTS_TRANSACTION, make_id
from billing.points import COMMODITY, LotKind, PointsLot, PointsMovement, PointsTransaction, Taking
from storage.events import Events
from storage.ledger import Ledger, Posting
from storage.points_tables import (
    HAS_REMAINING,
    points_balances,
    points_lots,
    points_takings,
    points_transactions,
)

_EVENTS: Final = {
    PointsMovement.PURCHASE: "points.credited",
    PointsMovement.BONUS: "points.credited",
    PointsMovement.SPEND: "points.spent",
    PointsMovement.CLAWBACK: "points.taken_back",
    PointsMovement.RESTORE: "points.restored",
    PointsMovement.EXPIRY: "points.expired",
}
_COUNTER_ACCOUNTS: Final = {
    PointsMovement.SPEND: "points_spent",
    PointsMovement.EXPIRY: "points_expired",
}
_ISSUED: Final = "points_issued"

# Statements of every movement are built once: to build one takes longer than to send it.
_IS_OWN: Final = and_(
    points_balances.c.application == bindparam("of_application"),
    points_balances.c.user_id == bindparam("of_user"),
)
_ARE_OWN: Final = and_(
    points_lots.c.application == bindparam("of_application"),
    points_lots.c.user_id == bindparam("of_user"),
)
_HOLD: Final = select(points_balances).where(_IS_OWN).with_for_update()
_OPEN: Final = postgresql.insert(points_balances).on_conflict_do_nothing()
_STORE: Final = update(points_balances).where(_IS_OWN)
_LEFT: Final = select(points_lots).where(_ARE_OWN, HAS_REMAINING).order_by(points_lots.c.id)
_LEFT_OR_BROUGHT: Final = (
    select(points_lots)
    .where(_ARE_OWN, or_(HAS_REMAINING, points_lots.c.payment_id == bindparam("brought_by")))
    .order_by(points_lots.c.id)
)
_MOVE: Final = insert(points_transactions).returning(points_transactions)


@dataclass(frozen=True)
class User:
    """Whose points: user ids are an application's own."""

    application: str
    user_id: str

    @property
    def account(self) -> str:
        """The ledger account; a credit is what we owe the user."""
        return f"points:{self.application}:{self.user_id}"


@dataclass
class Balance:
    """A user's balance, locked in this transaction; `balance` is what the lots hold less `debt`."""

    user: User
    balance: int
    debt: int
    movements: int


def make_transaction_id() -> str:
    return make_id(POINTS_TRANSACTION, time.time_ns() // 1_000_000, secrets.token_bytes(10))


class PointsBook:
    def __init__(self, connection: AsyncConnection, events: Events, ledger: Ledger) -> None:
        self._connection = connection
        self._events = events
        self._ledger = ledger

    async def hold(self, user: User) -> Balance | None:
        """Lock what the user has; None where nobody ever had points by that name."""
        rows = await self._connection.execute(
            _HOLD, {"of_application": user.application, "of_user": user.user_id}
        )
        row = rows.mappings().first()
        if row is None:
            return None
        return Balance(user, row["balance"], row["debt"], row["movements"])

    async def open(self, user: User, now: datetime) -> Balance:
        """As `hold`, beginning at nothing."""
        await self._connection.execute(
            _OPEN,
            {
                "application": user.application,
                "user_id": user.user_id,
                "balance": 0,
                "debt": 0,
                "movements": 0,
                "updated_at": now,
            },
        )
        balance = await self.hold(user)
        assert balance is not None, "a row that was just inserted, or was there before"
        return balance

    async def lots(self, user: User, *, payment_id: str | None = None) -> list[PointsLot]:
        """What the user has left, and all lots of the payment, oldest first."""
        whose = {"of_application": user.application, "of_user": user.user_id}
        if payment_id is None:
            rows = await self._connection.execute(_LEFT, whose)
        else:
            rows = await self._connection.execute(
                _LEFT_OR_BROUGHT, {**whose, "brought_by": payment_id}
            )
        return [lot_of(row) for row in rows.mappings()]

    async def change_lot(self, lot_id: int, **changes: int) -> None:
        """Add to the lot's columns, or take from them."""
        await self._connection.execute(
            update(points_lots)
            .where(points_lots.c.id == lot_id)
            .values({column: points_lots.c[column] + by for column, by in changes.items() if by})
        )

    async def take(self, cause_id: str, taking: Taking) -> None:
        """Take points back out of a lot, for the clawback `cause_id`."""
        await self.change_lot(
            taking.lot_id,
            remaining=-taking.points,
            expired=-taking.lapsed,
            taken=taking.points + taking.lapsed,
        )
        taken = postgresql.insert(points_takings).values(
            cause_id=cause_id, lot_id=taking.lot_id, points=taking.points, lapsed=taking.lapsed
        )
        await self._connection.execute(
            taken.on_conflict_do_update(
                index_elements=["cause_id", "lot_id"],
                set_={
                    "points": points_takings.c.points + taken.excluded.points,
                    "lapsed": points_takings.c.lapsed + taken.excluded.lapsed,
                },
            )
        )

    async def put_back(self, cause_id: str, taking: Taking) -> None:
        """Of what the clawback `cause_id` has taken out of a lot, put back this much: no more than
        that, and a taking of which nothing is left is none."""
        await self.return_to_lot(taking)
        of_lot = and_(
            points_takings.c.cause_id == cause_id, points_takings.c.lot_id == taking.lot_id
        )
        is_all = and_(
            points_takings.c.points == taking.points, points_takings.c.lapsed == taking.lapsed
        )
        gone = await self._connection.execute(delete(points_takings).where(of_lot, is_all))
        if gone.rowcount == 0:
            await self._connection.execute(
                update(points_takings)
                .where(of_lot)
                .values(
                    points=points_takings.c.points - taking.points,
                    lapsed=points_takings.c.lapsed - taking.lapsed,
                )
            )

    async def return_to_lot(self, taking: Taking) -> None:
        """As if it had not been taken out of the lot."""
        await self.change_lot(
            taking.lot_id,
            remaining=taking.points,
            expired=taking.lapsed,
            taken=-taking.points - taking.lapsed,
        )

    async def takings(self, cause_id: str) -> list[Taking]:
        """What a clawback has taken, out of which lots."""
        rows = await self._connection.execute(
            select(points_takings)
            .where(points_takings.c.cause_id == cause_id)
            .order_by(points_takings.c.lot_id)
        )
        return [Taking(row.lot_id, row.points, row.lapsed) for row in rows]

    async def move(
        self,
        balance: Balance,
        kind: PointsMovement,
        points: int,
        *,
        now: datetime,
        transaction_id: str | None = None,
        payment_id: str | None = None,
        refund_id: str | None = None,
        description: str | None = None,
        debt: int = 0,
    ) -> PointsTransaction:
        """Write a movement of `points` (one at least), and `debt` more of what is owed."""
        amount = points if kind.is_credit else -points
        values = {
            "id": transaction_id or make_transaction_id(),
            "application": balance.user.application,
            "user_id": balance.user.user_id,
            "sequence": balance.movements + 1,
            "kind": kind.value,
            "amount": amount,
            "balance_after": balance.balance + amount,
            "payment_id": payment_id,
            "refund_id": refund_id,
            "description": description,
            "effective_at": now,
        }
        rows = await self._connection.execute(_MOVE, values)
        transaction = transaction_of(rows.mappings().one())
        balance.balance += amount
        balance.debt += debt
        balance.movements += 1
        await self.store(balance, now)
        await self._ledger.post(
            f"points/{transaction.id}",
            now,
            [
                Posting(balance.user.account, -amount, COMMODITY),
                Posting(_COUNTER_ACCOUNTS.get(kind, _ISSUED), amount, COMMODITY),
            ],
        )
        await self._events.append(
            transaction.id,
            balance.user.application,
            _EVENTS[kind],
            transaction.model_dump(mode="json", exclude={"id", "created_at"}),
            now,
        )
        return transaction

    async def store(self, balance: Balance, now: datetime) -> None:
        """Write the balance as it now stands."""
        await self._connection.execute(
            _STORE,
            {
                "of_application": balance.user.application,
                "of_user": balance.user.user_id,
                "balance": balance.balance,
                "debt": balance.debt,
                "movements": balance.movements,
                "updated_at": now,
            },
        )


def is_of(columns: Any, user: User) -> ColumnElement[bool]:
    """The condition that a row of these columns is the user's."""
    return and_(columns.application == user.application, columns.user_id == user.user_id)


def transaction_of(row: RowMapping) -> PointsTransaction:
    """From a row of the history."""
    return PointsTransaction(
        id=row["id"],
        user_id=row["user_id"],
        kind=PointsMovement(row["kind"]),
        amount=row["amount"],
        balance_after=row["balance_after"],
        payment_id=row["payment_id"],
        refund_id=row["refund_id"],
        description=row["description"],
        created_at=row["effective_at"],
    )


def lot_of(row: RowMapping) -> PointsLot:
    """From a row of the lots."""
    return PointsLot(
        id=row["id"],
        payment_id=row["payment_id"],
        kind=LotKind(row["kind"]),
        granted=row["granted"],
        remaining=row["remaining"],
        expired=row["expired"],
        expires_at=row["expires_at"],
    )
