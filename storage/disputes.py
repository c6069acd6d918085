"""Disputes: one row each, and all that a change of it brings with it in the same transaction.

Whoever writes a dispute holds its payment first. Gateways tell the whole truth of a dispute at
every asking, so what is written is the latest of it, and an answer that comes late changes nothing.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.dispute import DisputeStatus
from storage.attention import Attention
from storage.dispute_rows import (
    DisputeChange,
    DisputeRecord,
    dispute_event_data_of,
    dispute_of,
)
from storage.dispute_tables import disputes
from storage.events import Events
from storage.ledger import Ledger
from storage.payments import Payments
from storage.tables import payments, receipts

__all__ = ["OPENED", "DisputeChange", "DisputeRecord", "Disputes"]

OPENED = "dispute_opened"
"""Why a person is called for: the bank waits for an answer."""


class Disputes:
    """The repository of one unit of work."""

    def __init__(
        self,
        connection: AsyncConnection,
        payments: Payments,
        events: Events,
        ledger: Ledger,
        attention: Attention,
    ) -> None:
        self._connection = connection
        self._payments = payments
        self._events = events
        self._ledger = ledger
        self._attention = attention

    async def record(self, told: DisputeRecord, now: datetime) -> DisputeChange | None:
        """Write what a gateway told of a dispute; None if that is known, or older than what is.

        With it go the events, the postings, what the payment shows, and the call for a person.
        What `told` says is written off, and when it was closed, does not matter. Raises
        IntegrityError where there is no receipt of the attempt.
        """
        await self._payments.hold(told.payment_id)
        before = await self._find(told)
        assert before is None or before.payment_id == told.payment_id, "a dispute is of one order"
        after = _settled(told, before, now)
        if before is not None and (after == before or after.age < before.age):
            return None
        await self._write(after, now)
        change = DisputeChange(before, after)
        for event_type in change.event_types:
            await self._events.append(
                after.payment_id, after.application, event_type, dispute_event_data_of(after), now
            )
        for cause, postings in change.entries(await self._lost_from(after)):
            await self._ledger.post(cause, now, postings)
        await self._show(after.payment_id, now)
        await self._call(change, now)
        return change

    async def of_payment(self, payment_id: str) -> list[DisputeRecord]:
        """Every dispute of a payment, oldest first."""
        rows = await self._connection.execute(
            select(disputes)
            .where(disputes.c.payment_id == payment_id)
            .order_by(disputes.c.opened_at, disputes.c.reference)
        )
        return [dispute_of(row) for row in rows.mappings()]

    async def _find(self, told: DisputeRecord) -> DisputeRecord | None:
        rows = await self._connection.execute(
            select(disputes).where(
                disputes.c.gateway == told.gateway.value,
                disputes.c.reference == told.dispute.id,
            )
        )
        row = rows.mappings().first()
        return None if row is None else dispute_of(row)

    async def _write(self, record: DisputeRecord, now: datetime) -> None:
        dispute = record.dispute
        changing: dict[str, Any] = {
            "status": dispute.status.value,
            "gateway_status": record.gateway_status,
            "reason": dispute.reason,
            "amount_minor": dispute.amount,
            "withdrawn_minor": record.withdrawn_minor,
            "reinstated_minor": record.reinstated_minor,
            "written_off_minor": record.written_off_minor,
            "fee_minor": record.fee_minor,
            "due_by": dispute.due_by,
            "closed_at": dispute.closed_at,
        }
        await self._connection.execute(
            insert(disputes)
            .values(
                gateway=record.gateway.value,
                reference=dispute.id,
                payment_id=record.payment_id,
                attempt=record.attempt,
                application=record.application,
                currency=dispute.currency,
                opened_at=dispute.opened_at,
                updated_at=now,
                effective_at=now,
                **changing,
            )
            .on_conflict_do_update(
                index_elements=["gateway", "reference"],
                set_={**changing, "updated_at": func.greatest(disputes.c.updated_at, now)},
            )
        )

    async def _lost_from(self, record: DisputeRecord) -> str:
        """Where the money had been booked when it came in."""
        kept = await self._connection.scalar(
            select(receipts.c.kept).where(
                receipts.c.payment_id == record.payment_id, receipts.c.attempt == record.attempt
            )
        )
        return "revenue" if kept else f"unapplied_receipts:{record.gateway.value}"

    async def _show(self, payment_id: str, now: datetime) -> None:
        """Have the payment show its latest dispute."""
        latest = (await self.of_payment(payment_id))[-1].dispute
        await self._connection.execute(
            update(payments)
            .where(payments.c.id == payment_id)
            .values(
                dispute=latest.model_dump(mode="json"),
                updated_at=func.greatest(payments.c.updated_at, now),
            )
        )

    async def _call(self, change: DisputeChange, now: datetime) -> None:
        """Call for a person while the bank waits for one, anew when what it waits for changes."""
        before, record = change.before, change.after
        standing = await self.of_payment(record.payment_id)
        undecided = [one for one in standing if not one.dispute.status.has_ended]
        is_waiting = not record.dispute.status.has_ended
        is_other = before is None or (before.dispute.status, before.dispute.due_by) != (
            record.dispute.status,
            record.dispute.due_by,
        )
        if not undecided or (is_waiting and is_other):
            await self._attention.resolve(record.payment_id, now, OPENED)
        if undecided:
            detail = _detail(record if is_waiting else undecided[-1])
            await self._attention.raise_(record.payment_id, OPENED, detail, now)


def _settled(told: DisputeRecord, before: DisputeRecord | None, now: datetime) -> DisputeRecord:
    """What was told, with what we make of it: the loss, and when we learned that it was over."""
    status = told.dispute.status
    closed_at = None
    if status.has_ended:
        was_closed = before is not None and before.dispute.status is status
        closed_at = before.dispute.closed_at if was_closed and before else now
    return replace(
        told,
        dispute=told.dispute.model_copy(update={"closed_at": closed_at}),
        written_off_minor=max(told.held_minor, 0) if status is DisputeStatus.LOST else 0,
    )


def _detail(record: DisputeRecord) -> str:
    dispute = record.dispute
    due = f"{dispute.due_by:%Y-%m-%d %H:%M} UTC" if dispute.due_by else "an unknown time"
    return (
        f"{record.gateway.value} has dispute {dispute.id} ({dispute.reason}) over {dispute.amount}"
        f" {dispute.currency} in minor units, of which it has withdrawn {record.held_minor}: it is"
        f" {record.gateway_status} there; answer it there by {due}, or accept it"
    )
