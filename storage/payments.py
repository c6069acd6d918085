"""Payments.

Every status write is one UPDATE that names the states it may follow, and answers with the status
that stands afterwards, whoever wrote it.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import PaymentNotFound
from billing.messages import PaymentOrder
from billing.payment import (
    Failure,
    GatewayName,
    NextAction,
    Payment,
    PaymentStatus,
    PaymentType,
    Review,
    sources_of,
)
from runtime.cipher import Cipher
from storage.attempts import Attempts, attempt_values
from storage.columns import named_values
from storage.events import Events, event_values
from storage.paging import Page
from storage.payment_pages import page_of_payments
from storage.payment_rows import (
    AttemptRecord,
    PaymentRecord,
    event_data_of,
    record_of,
    seal_next_action,
    seal_order,
)
from storage.payment_statements import (
    FIND_PAYMENT,
    FIND_PAYMENT_OF_APPLICATION,
    WRITE_PAYMENT,
    inserting,
)
from storage.tables import (
    IS_OPEN,
    IS_UNFINISHED,
    customers,
    events,
    payment_attempts,
    payments,
)

__all__ = ["AttemptRecord", "PaymentRecord", "Payments"]


class Payments:
    """The repository of one unit of work."""

    def __init__(
        self, connection: AsyncConnection, cipher: Cipher, events: Events, attempts: Attempts
    ) -> None:
        self._connection = connection
        self._cipher = cipher
        self._events = events
        self._attempts = attempts

    async def insert(self, order: PaymentOrder, now: datetime) -> PaymentRecord:
        """Write the row, its first attempt and its first event, unless they are there, and the
        customer at the first payment of theirs.

        One statement, all or nothing also outside a transaction.
        """
        row = {
            "id": order.payment_id,
            "application": order.application,
            "type": order.type.value,
            "status": PaymentStatus.CREATED.value,
            "user_id": order.user_id,
            "amount_minor": order.amount_minor,
            "currency": order.currency,
            "gateway": order.gateway.value,
            "method": order.method.value,
            "description": order.description,
            "metadata": order.metadata,
            "attempt": 1,
            "order_document": seal_order(self._cipher, order),
            "payment_method_id": order.payment_method_id,
            "created_at": order.created_at,
            "updated_at": now,
            "expires_at": order.expires_at,
        }
        attempt = attempt_values(
            order.payment_id, 1, order.gateway, order.method, order.expires_at, now
        )
        customer = {
            "application": order.application,
            "user_id": order.user_id,
            "created_at": order.created_at,
        }
        created = event_values(
            order.payment_id,
            "payment.created",
            {
                "status": PaymentStatus.CREATED.value,
                "amount": order.amount_minor,
                "currency": order.currency,
                "gateway": order.gateway.value,
                "method": order.method.value,
                "user_id": order.user_id,
            },
            now,
        ) | {"application": order.application, "sequence": 1}
        named = {payments: row, payment_attempts: attempt, customers: customer, events: created}
        await self._connection.execute(
            inserting(*(tuple(values) for values in named.values())),
            named_values(named),
        )
        record = await self.find(order.payment_id)
        assert record is not None, "a row that was just inserted, or was there before"
        return record

    async def find(
        self, payment_id: str, *, lock: bool = False, application: str | None = None
    ) -> PaymentRecord | None:
        """The payment, or None; `lock` keeps others from changing it in this transaction."""
        if lock:
            # A statement of its own: the next one sees what was committed while it waited.
            await self.hold(payment_id)
        named = {"of_id": payment_id, "of_application": application}
        query = FIND_PAYMENT if application is None else FIND_PAYMENT_OF_APPLICATION
        rows = (await self._connection.execute(query, named)).mappings().all()
        return record_of(rows, self._cipher) if rows else None

    async def record_opened(
        self,
        payment_id: str,
        attempt: int,
        *,
        reference: str | None,
        next_action: NextAction,
        now: datetime,
    ) -> PaymentStatus:
        """Store what the payer needs; the status that stands.

        A payment that has moved on keeps its state, and only the attempt learns its reference.
        """
        sealed = seal_next_action(self._cipher, payment_id, next_action)
        status = await self._write(
            payment_id,
            PaymentStatus.REQUIRES_ACTION,
            {"next_action": sealed, "gateway_reference": reference},
            now,
            before=[PaymentStatus.CREATED],
        )
        await self._attempts.set(payment_id, attempt, reference=reference, opened=True, now=now)
        return status

    async def record_switched(
        self,
        payment_id: str,
        attempt: AttemptRecord,
        *,
        reference: str | None,
        next_action: NextAction,
        now: datetime,
    ) -> PaymentStatus:
        """As `record_opened`, for an attempt that takes the place of the payment's own.

        A payment that does not wait for its payer any more keeps the attempt it has.
        """
        sealed = seal_next_action(self._cipher, payment_id, next_action)
        changed = await self._connection.execute(
            update(payments)
            .where(
                payments.c.id == payment_id,
                payments.c.status == PaymentStatus.REQUIRES_ACTION.value,
                payments.c.attempt < attempt.attempt,
            )
            .values(
                attempt=attempt.attempt,
                gateway=attempt.gateway.value,
                method=attempt.method.value,
                gateway_reference=reference,
                next_action=sealed,
                failure=None,
                updated_at=_not_before(now),
            )
            .returning(payments)
        )
        row = changed.mappings().first()
        if row is not None:
            await self._events.append(
                payment_id, row["application"], "payment.switched", event_data_of(row), now
            )
        await self._attempts.set(
            payment_id, attempt.attempt, reference=reference, opened=True, now=now
        )
        return await self._standing(payment_id)

    async def move(
        self,
        payment_id: str,
        to: PaymentStatus,
        *,
        now: datetime,
        failure: Failure | None = None,
        review: Review | None = None,
        paid_at: datetime | None = None,
        gateway_reference: str | None = None,
        paid_by: AttemptRecord | None = None,
    ) -> PaymentStatus:
        """One UPDATE naming the states `to` may follow, and its event; the status that stands.

        A final status takes the payer's instructions away; leaving `needs_review` clears why.
        `paid_by` is the attempt whose money was kept, whichever way the payer was asked for last.
        """
        values: dict[str, Any] = {
            "review": review.model_dump(mode="json") if review is not None else None
        }
        if to.is_terminal:
            values["next_action"] = None
        if to is PaymentStatus.SUCCEEDED:
            values["failure"] = None
        if failure is not None:
            values["failure"] = failure.model_dump(mode="json")
        if paid_at is not None:
            values["paid_at"] = paid_at
        if gateway_reference is not None:
            values["gateway_reference"] = gateway_reference
        if paid_by is not None:
            values |= {
                "attempt": paid_by.attempt,
                "gateway": paid_by.gateway.value,
                "method": paid_by.method.value,
            }
        return await self._write(payment_id, to, values, now, before=sorted(sources_of(to)))

    async def record_failure(self, payment_id: str, failure: Failure, now: datetime) -> None:
        """A payer's try was declined and another is still possible."""
        document = failure.model_dump(mode="json")
        changed = await self._connection.execute(
            update(payments)
            .where(
                payments.c.id == payment_id,
                IS_UNFINISHED,
                payments.c.failure.is_distinct_from(document),
            )
            .values(failure=document, updated_at=_not_before(now))
            .returning(payments.c.application, payments.c.attempt)
        )
        row = changed.mappings().first()
        if row is not None:
            await self._events.append(
                payment_id,
                row["application"],
                "payment.try_failed",
                {"attempt": row["attempt"], "failure": document},
                now,
            )

    async def page(
        self,
        *,
        application: str,
        limit: int,
        cursor: str | None = None,
        user_id: str | None = None,
        type: PaymentType | None = None,
        status: PaymentStatus | None = None,
        gateway: GatewayName | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Page[Payment]:
        """Payments newest first. Raises InvalidRequest on a cursor that is not ours."""
        return await page_of_payments(
            self._connection,
            self._cipher,
            application=application,
            limit=limit,
            cursor=cursor,
            user_id=user_id,
            type=type,
            status=status,
            gateway=gateway,
            created_after=created_after,
            created_before=created_before,
        )

    async def unfinished(self, after: str | None, limit: int) -> list[str]:
        """Ids, in order, of payments that have not ended or may still be paid."""
        waiting = select(payments.c.id).where(IS_UNFINISHED)
        watched = select(payment_attempts.c.payment_id).where(IS_OPEN)
        if after is not None:
            waiting = waiting.where(payments.c.id > after)
            watched = watched.where(payment_attempts.c.payment_id > after)
        waiting = waiting.order_by(payments.c.id).limit(limit)
        watched = watched.distinct().order_by(payment_attempts.c.payment_id).limit(limit)
        both = waiting.union(watched).subquery()
        rows = await self._connection.execute(select(both.c.id).order_by(both.c.id).limit(limit))
        return list(rows.scalars())

    async def _write(
        self,
        payment_id: str,
        to: PaymentStatus,
        values: dict[str, Any],
        now: datetime,
        *,
        before: list[PaymentStatus],
    ) -> PaymentStatus:
        changed = await self._connection.execute(
            WRITE_PAYMENT,
            {
                "of_id": payment_id,
                "before": [status.value for status in before],
                "now": now,
                "status": to.value,
                **values,
            },
        )
        row = changed.mappings().first()
        if row is None:
            return await self._standing(payment_id)
        self._attempts.note_held(payment_id)
        await self._events.append(
            payment_id, row["application"], f"payment.{to.value}", event_data_of(row), now
        )
        return to

    async def hold(self, payment_id: str) -> None:
        """Lock the payment: see `Attempts.hold`."""
        await self._attempts.hold(payment_id)

    async def _standing(self, payment_id: str) -> PaymentStatus:
        status = await self._connection.scalar(
            select(payments.c.status).where(payments.c.id == payment_id)
        )
        if status is None:
            raise PaymentNotFound(f"there is no row of payment {payment_id}")
        return PaymentStatus(status)


def _not_before(now: datetime) -> ColumnElement[datetime]:
    """An activity that is repeated late brings its old time; the row's never goes back."""
    return func.greatest(payments.c.updated_at, now)
