"""Users who buy points, and a look at all that the record says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import text

from billing.identifiers import POINTS_TRANSACTION, make_id
from billing.messages import PaymentOrder
from billing.payment import Failure, GatewayName, PaymentMethod, PaymentType
from billing.points import PointsPurchase, PointsTransaction
from billing.refund import RefundStatus
from storage.database import Database
from storage.points import User
from tests.storage.samples import NOW, take

FAILURE = Failure(code="refused_by_gateway", message="the bank sent it back")
_numbers = count(1)
_NEW_USERS = count(1)


def make_user() -> User:
    return User("shop", f"user-{next(_NEW_USERS)}-of-points")


def make_transaction_id() -> str:
    number = next(_numbers)
    return make_id(
        POINTS_TRANSACTION, int(NOW.timestamp() * 1000) + number, number.to_bytes(10, "big")
    )


async def buy(
    database: Database,
    user: User,
    points: int,
    bonus_points: int = 0,
    *,
    amount_minor: int = 1000,
    days: int | None = None,
    now: datetime = NOW,
) -> PaymentOrder:
    """A payment for points by Stripe, which limits refunds by nothing, and what it brought."""
    purchase = PointsPurchase(
        package_id="small", points=points, bonus_points=bonus_points, expires_after_days=days
    )
    order = await take(
        database,
        type=PaymentType.POINTS,
        application=user.application,
        user_id=user.user_id,
        amount_minor=amount_minor,
        currency="USD",
        gateway=GatewayName.STRIPE,
        method=PaymentMethod.CARD,
        points=purchase,
    )
    async with database.begin() as work:
        await work.points.grant(user, order.payment_id, purchase, now)
    return order


async def spend(
    database: Database, user: User, points: int, *, now: datetime = NOW, id: str | None = None
) -> PointsTransaction:
    async with database.begin() as work:
        return await work.points.spend(user, id or make_transaction_id(), points, "a hint", now)


async def fail_refund(database: Database, refund_id: str, *, now: datetime = NOW) -> None:
    async with database.begin() as work:
        await work.refunds.move(refund_id, RefundStatus.FAILED, now=now, failure=FAILURE)


@dataclass(frozen=True)
class LotRow:
    payment_id: str
    kind: str
    remaining: int
    spent: int
    taken: int
    expired: int


@dataclass(frozen=True)
class Account:
    """All that four places say of one user's points."""

    balance: int
    debt: int
    lots: Sequence[LotRow]
    ledger: int
    """What the ledger says that we owe the user."""
    history: Sequence[PointsTransaction]
    """Oldest first."""

    def require_agreement(self) -> None:
        assert self.balance == sum(lot.remaining for lot in self.lots) - self.debt
        assert self.balance == self.ledger
        running = 0
        for one in self.history:
            running += one.amount
            assert one.balance_after == running
        assert running == self.balance


async def look(database: Database, user: User) -> Account:
    whose: dict[str, Any] = {"application": user.application, "user_id": user.user_id}
    async with database.begin() as work:
        balance = (
            await work.connection.execute(
                text(
                    "SELECT balance, debt FROM points_balances"
                    " WHERE application = :application AND user_id = :user_id"
                ),
                whose,
            )
        ).first()
        lots = await work.connection.execute(
            text(
                "SELECT payment_id, kind, remaining, spent, taken, expired FROM points_lots"
                " WHERE application = :application AND user_id = :user_id ORDER BY id"
            ),
            whose,
        )
        ledger = await work.connection.scalar(
            text(
                "SELECT coalesce(-sum(amount_minor), 0)::bigint FROM ledger_postings JOIN"
                " ledger_accounts ON ledger_accounts.id = account_id"
                " WHERE code = :code AND currency = 'PTS'"
            ),
            {"code": user.account},
        )
        page = await work.points.page(user, limit=1000)
        return Account(
            balance=balance.balance if balance else 0,
            debt=balance.debt if balance else 0,
            lots=[LotRow(*row) for row in lots],
            ledger=int(ledger or 0),
            history=page.data[::-1],
        )


async def ledger_sums(database: Database) -> dict[str, int]:
    """The sum of all postings in each commodity."""
    async with database.begin() as work:
        rows = await work.connection.execute(
            text(
                "SELECT currency, sum(amount_minor)::bigint AS total FROM ledger_postings"
                " GROUP BY currency"
            )
        )
        return {row.currency: row.total for row in rows}
