"""Refunds: set aside from what a receipt brought, and followed until they end.

Whoever writes a refund holds its payment first, so that reservations are made one at a time and
together never exceed the receipt.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, RowMapping, and_, cast, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import PaymentNotFound, RefundNotFound
from billing.payment import Failure, Review
from billing.points import ClawbackPolicy, ClawbackPreview
from billing.refund import RefundCause, RefundStatus, sources_of
from storage.clawbacks import Clawbacks
from storage.events import Events
from storage.payment_rows import event_data_of
from storage.payments import Payments
from storage.refund_basis import (
    BASIS_OF_ATTEMPT,
    BASIS_OF_KEPT,
    OF_RECEIPT,
    amount_of,
    earliest,
    require_refundable,
    require_within_limits,
)
from storage.refund_rows import RefundRecord, refund_event_data_of, refund_of, told
from storage.tables import IS_REFUND_UNFINISHED, payments, receipts, refunds

__all__ = ["RefundRecord", "Refunds"]

_IS_DONE: Final = refunds.c.status == RefundStatus.SUCCEEDED.value
_RECORD: Final = select(
    refunds,
    receipts.c.gateway_reference.label("payment_reference"),
    receipts.c.amount_minor.label("paid_minor"),
    receipts.c.kept,
).join_from(refunds, receipts, OF_RECEIPT)


MADE_ELSEWHERE: Final = "made at the gateway"
"""The reason of a refund that nobody gave us one for."""


class Refunds:
    """The repository of one unit of work."""

    def __init__(
        self,
        connection: AsyncConnection,
        payments: Payments,
        events: Events,
        clawbacks: Clawbacks,
    ) -> None:
        self._connection = connection
        self._payments = payments
        self._events = events
        self._clawbacks = clawbacks
        self._held: set[str] = set()

    async def reserve(
        self,
        *,
        refund_id: str,
        payment_id: str,
        application: str | None,
        attempt: int | None,
        amount_minor: int | None,
        cause: RefundCause,
        reason: str,
        now: datetime,
        clawback: ClawbackPolicy = ClawbackPolicy.REFUSE,
    ) -> RefundRecord:
        """Set an amount (minor units; None: all that is left) of one receipt aside; a repeat
        under the same id changes nothing and answers with what stands, also where the record had
        lost the refund and it was found at the gateway.

        `attempt` is the receipt's, None for the kept one; `application` None is anybody's. Points
        that the payment bought are taken back, and where they are spent, `clawback` decides:
        `reduce` sets less aside than was asked for.
        Raises PaymentNotFound, PaymentNotRefundable (no such receipt, a payment that has not
        succeeded, or the gateway's limits), RefundExceedsPayment and PointsAlreadySpent, having
        written nothing; IntegrityError for an amount below 1, or an id of another payment's refund.
        """
        await self._payments.hold(payment_id)
        # A statement of its own: it sees what was committed while we waited for the lock.
        basis = await self._basis(payment_id, application, attempt, refund_id)
        if not basis["stands"]:
            require_refundable(basis, payment_id, attempt, cause)
            ask_at = earliest(basis, now)
            require_within_limits(basis, payment_id, ask_at)
            amount = amount_of(basis, payment_id, amount_minor)
            if cause is RefundCause.REQUESTED:
                amount = await self._clawbacks.take(refund_id, payment_id, amount, clawback, now)
            await self._insert(refund_id, basis, amount, cause, reason, ask_at, now)
        record = await self.find(refund_id)
        assert record is not None, "a row that was just inserted, or was there before"
        return record

    async def preview(
        self,
        payment_id: str,
        application: str,
        amount_minor: int | None,
        *,
        now: datetime,
        clawback: ClawbackPolicy,
    ) -> tuple[int, ClawbackPreview | None]:
        """What would be set aside (minor units) if a refund were reserved now, and what that would
        do to points that the payment brought; nothing is written.

        Raises as `reserve`.
        """
        basis = await self._basis(payment_id, application, None, "")
        require_refundable(basis, payment_id, None, RefundCause.REQUESTED)
        require_within_limits(basis, payment_id, earliest(basis, now))
        amount = amount_of(basis, payment_id, amount_minor)
        points = await self._clawbacks.preview(payment_id, amount, clawback, now)
        return amount if points is None else points.amount, points

    async def note_elsewhere(
        self,
        *,
        refund_id: str,
        payment_id: str,
        attempt: int,
        amount_minor: int,
        number: str,
        now: datetime,
    ) -> RefundRecord:
        """Write a refund that the gateway made without us, `number` being its own there; a repeat
        under the same id changes nothing and answers with what stands.

        Nothing is refused: the money is gone. Its points are taken back, and owed where they are
        spent. Raises PaymentNotFound, and PaymentNotRefundable where the attempt has no receipt.
        """
        await self._payments.hold(payment_id)
        basis = await self._basis(payment_id, None, attempt, refund_id)
        if not basis["stands"]:
            require_refundable(basis, payment_id, attempt, RefundCause.ELSEWHERE)
            if basis["kept"]:
                await self._clawbacks.seize(refund_id, payment_id, amount_minor, now)
            await self._insert(
                refund_id, basis, amount_minor, RefundCause.ELSEWHERE, MADE_ELSEWHERE, now, now,
                reference=number,
            )  # fmt: skip
        record = await self.find(refund_id)
        assert record is not None, "a row that was just inserted, or was there before"
        return record

    async def find(
        self, refund_id: str, *, lock: bool = False, application: str | None = None
    ) -> RefundRecord | None:
        """The refund, or None; `lock` keeps others from changing it, and its payment, in this
        transaction."""
        if lock and not await self._hold(refund_id):
            return None
        query = _RECORD.where(refunds.c.id == refund_id)
        if application is not None:
            query = query.where(refunds.c.application == application)
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else refund_of(row)

    async def move(
        self,
        refund_id: str,
        to: RefundStatus,
        *,
        now: datetime,
        failure: Failure | None = None,
        review: Review | None = None,
        refunded_at: datetime | None = None,
        gateway_reference: str | None = None,
        gateway_status: str | None = None,
    ) -> RefundStatus:
        """One UPDATE naming the states `to` may follow, and its event; the status that stands.

        What the payment shows as refunded follows, with an event of the payment's own. Only a
        refund that stands succeeded has `refunded_at`, and only one in review says why. Raises
        RefundNotFound, and IntegrityError where `to` lacks the one of these that belongs to it.
        """
        await self._require_held(refund_id)
        values: dict[str, Any] = {
            "refunded_at": refunded_at,
            "review": review.model_dump(mode="json") if review is not None else None,
            **told(gateway_reference, gateway_status),
        }
        if failure is not None:
            values["failure"] = failure.model_dump(mode="json")
        changed = await self._connection.execute(
            update(refunds)
            .where(
                refunds.c.id == refund_id,
                refunds.c.status.in_([status.value for status in sorted(sources_of(to))]),
            )
            .values(status=to.value, updated_at=func.greatest(refunds.c.updated_at, now), **values)
            .returning(refunds)
        )
        row = changed.mappings().first()
        if row is None:
            return await self._standing(refund_id)
        await self._tell(row, f"refund.{to.value}", now)
        if to is RefundStatus.FAILED:
            await self._clawbacks.restore(refund_id, now)
        if to.has_ended:
            await self._show(row, to, now)
        return to

    async def note_asked(
        self,
        refund_id: str,
        *,
        now: datetime,
        gateway_reference: str | None = None,
        gateway_status: str | None = None,
    ) -> None:
        """Write that the gateway was asked, and what it said of itself. Raises RefundNotFound."""
        await self._require_held(refund_id)
        await self._connection.execute(
            update(refunds)
            .where(refunds.c.id == refund_id)
            .values(
                # PostgreSQL's greatest() passes over nulls: the first time is simply `now`.
                asked_at=func.greatest(refunds.c.asked_at, now),
                updated_at=func.greatest(refunds.c.updated_at, now),
                **told(gateway_reference, gateway_status),
            )
        )

    async def given_back(self, payment_id: str, attempt: int) -> tuple[int, bool]:
        """What is refunded of a receipt (minor units), and whether more may be on its way."""
        rows = await self._connection.execute(
            select(
                cast(
                    func.coalesce(func.sum(refunds.c.amount_minor).filter(_IS_DONE), 0), BigInteger
                ),
                func.coalesce(func.bool_or(IS_REFUND_UNFINISHED), False),
            ).where(refunds.c.payment_id == payment_id, refunds.c.attempt == attempt)
        )
        done, is_under_way = rows.one()
        return done, is_under_way

    async def unfinished(self, after: str | None, limit: int) -> list[str]:
        """Ids, in order, of refunds that have not ended."""
        query = select(refunds.c.id).where(IS_REFUND_UNFINISHED)
        if after is not None:
            query = query.where(refunds.c.id > after)
        rows = await self._connection.execute(query.order_by(refunds.c.id).limit(limit))
        return list(rows.scalars())

    async def of_payment(self, payment_id: str) -> list[RefundRecord]:
        """Every refund of a payment, of all its receipts, oldest id first."""
        rows = await self._connection.execute(
            _RECORD.where(refunds.c.payment_id == payment_id).order_by(refunds.c.id)
        )
        return [refund_of(row) for row in rows.mappings()]

    async def _basis(
        self, payment_id: str, application: str | None, attempt: int | None, refund_id: str
    ) -> RowMapping:
        found = await self._connection.execute(
            BASIS_OF_KEPT if attempt is None else BASIS_OF_ATTEMPT,
            {"wanted_payment": payment_id, "wanted_refund": refund_id, "wanted_attempt": attempt},
        )
        basis: RowMapping | None = found.mappings().first()
        if basis is None or (application is not None and basis["owner"] != application):
            raise PaymentNotFound(f"there is no payment {payment_id}")
        return basis

    async def _insert(
        self,
        refund_id: str,
        basis: RowMapping,
        amount_minor: int,
        cause: RefundCause,
        reason: str,
        ask_at: datetime,
        now: datetime,
        *,
        reference: str | None = None,
    ) -> None:
        inserted = await self._connection.execute(
            insert(refunds)
            .values(
                id=refund_id,
                payment_id=basis["payment_id"],
                attempt=basis["attempt"],
                application=basis["owner"],
                cause=cause.value,
                status=RefundStatus.PENDING.value,
                amount_minor=amount_minor,
                currency=basis["currency"],
                gateway=basis["gateway"],
                reason=reason,
                gateway_reference=reference,
                ask_at=ask_at,
                created_at=now,
                updated_at=now,
                effective_at=now,
            )
            .returning(refunds)
        )
        await self._tell(inserted.mappings().one(), "refund.created", now)

    async def _show(self, refund: RowMapping, to: RefundStatus, now: datetime) -> None:
        """Have the payment say what is refunded of the receipt that paid for it."""
        given_back = (
            select(cast(func.coalesce(func.sum(refunds.c.amount_minor), 0), BigInteger))
            .join_from(refunds, receipts, and_(OF_RECEIPT, receipts.c.kept))
            .where(
                refunds.c.payment_id == refund["payment_id"],
                refunds.c.status == RefundStatus.SUCCEEDED.value,
            )
            .scalar_subquery()
        )
        # A gateway's word is recorded even where it is of more than was paid.
        refunded = func.least(payments.c.amount_minor, given_back)
        changed = await self._connection.execute(
            update(payments)
            .where(
                payments.c.id == refund["payment_id"],
                payments.c.amount_refunded_minor != refunded,
            )
            .values(
                amount_refunded_minor=refunded,
                updated_at=func.greatest(payments.c.updated_at, now),
            )
            .returning(payments)
        )
        row = changed.mappings().first()
        if row is None:
            return
        succeeded = to is RefundStatus.SUCCEEDED
        await self._events.append(
            row["id"],
            row["application"],
            "payment.refunded" if succeeded else "payment.refund_failed",
            event_data_of(row)
            | {"amount_refunded": row["amount_refunded_minor"], "refund_id": refund["id"]},
            now,
        )

    async def _tell(self, row: RowMapping, type: str, now: datetime) -> None:
        await self._events.append(
            row["id"], row["application"], type, refund_event_data_of(row), now
        )

    async def _hold(self, refund_id: str) -> bool:
        """Lock the refund's payment, which guards the refund as well; False if there is none."""
        if refund_id not in self._held:
            payment_id = await self._connection.scalar(
                select(refunds.c.payment_id).where(refunds.c.id == refund_id)
            )
            if payment_id is None:
                return False
            await self._payments.hold(payment_id)
            self._held.add(refund_id)
        return True

    async def _require_held(self, refund_id: str) -> None:
        if not await self._hold(refund_id):
            raise RefundNotFound(f"there is no row of refund {refund_id}")

    async def _standing(self, refund_id: str) -> RefundStatus:
        rows = await self._connection.execute(
            select(refunds.c.status).where(refunds.c.id == refund_id)
        )
        return RefundStatus(rows.scalar_one())
