"""The webhook inbox: an event is stored before it is answered, and stays until it is delivered."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import RowMapping, Text, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.identifiers import is_refund_id, parse_attempt_number, parse_mandate_number
from billing.payment import GatewayName
from runtime.cipher import Cipher
from storage.tables import IS_WAITING, refunds
from storage.tables import webhook_inbox as inbox

_BODY: Final = "webhook_inbox.body"

# The API delivers at once; the loop takes what it left after this.
FIRST_TRY_BY_LOOP: Final = timedelta(seconds=3)
_LONGEST_BACK_OFF_SECONDS: Final = 600

_STORE: Final = (
    insert(inbox).on_conflict_do_nothing(index_elements=["gateway", "event_id"]).returning(inbox)
)
_MARK: Final = (
    update(inbox)
    .where(inbox.c.id == bindparam("of_entry"), inbox.c.outcome.is_(None))
    .values(
        payment_id=func.coalesce(inbox.c.payment_id, bindparam("of_payment", type_=Text())),
        method_id=func.coalesce(inbox.c.method_id, bindparam("of_method", type_=Text())),
    )
)


class InboxOutcome(StrEnum):
    """DELIVERED: a workflow knows of it, or the record says the same. UNMATCHED: no such payment;
    others may share the merchant account. IGNORED: about no payment at all."""

    DELIVERED = "delivered"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


@dataclass(frozen=True)
class InboxEntry:
    id: int
    gateway: GatewayName
    event_id: str
    event_type: str
    payment_id: str | None
    number: str | None
    tries: int
    refund_id: str | None = None
    disputed_reference: str | None = None
    foreign_refund: str | None = None
    refunded_reference: str | None = None
    method_id: str | None = None
    mandate_reference: str | None = None


class Inbox:
    def __init__(self, connection: AsyncConnection, cipher: Cipher) -> None:
        self._connection = connection
        self._cipher = cipher

    async def store(
        self,
        gateway: GatewayName,
        event_id: str,
        event_type: str,
        number: str | None,
        body: bytes,
        now: datetime,
        *,
        refund_number: str | None = None,
        disputed_reference: str | None = None,
        foreign_refund: str | None = None,
        refunded_reference: str | None = None,
        mandate_number: str | None = None,
        mandate_reference: str | None = None,
    ) -> InboxEntry | None:
        """Store the event; None if it came before.

        `number` is the order's and `refund_number` the refund's, as the gateway tells them: the
        entry names a payment or a refund only where they are of our making.
        `foreign_refund` is a refund that is not, and `disputed_reference` and
        `refunded_reference` the gateway's own number of an order that is disputed, or refunded so.
        `mandate_number` and `mandate_reference` are our and the gateway's own number of a mandate.
        """
        parsed = parse_attempt_number(number) if number is not None else None
        is_ours = refund_number is not None and is_refund_id(refund_number)
        inserted = await self._connection.execute(
            _STORE,
            {
                "gateway": gateway.value,
                "event_id": event_id,
                "event_type": event_type,
                "number": number,
                "payment_id": parsed[0] if parsed is not None else None,
                "refund_id": refund_number if is_ours else None,
                "disputed_reference": disputed_reference,
                "foreign_refund": foreign_refund,
                "refunded_reference": refunded_reference,
                "method_id": parse_mandate_number(mandate_number) if mandate_number else None,
                "mandate_reference": mandate_reference,
                "body": self._cipher.seal(body, _BODY),
                "received_at": now,
                "next_try_at": now + FIRST_TRY_BY_LOOP,
            },
        )
        row = inserted.mappings().first()
        return None if row is None else _entry(row)

    async def claim_due(self, now: datetime, limit: int) -> list[InboxEntry]:
        """Take what is due, oldest first, and put its next try off; others skip what is taken."""
        due = (
            select(inbox.c.id)
            .where(IS_WAITING, inbox.c.next_try_at <= now)
            .order_by(inbox.c.next_try_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        back_off = func.least(
            func.power(2, func.least(inbox.c.tries, 12)) * 2, _LONGEST_BACK_OFF_SECONDS
        )
        taken = await self._connection.execute(
            update(inbox)
            .where(inbox.c.id.in_(select(due.c.id)))
            .values(
                tries=inbox.c.tries + 1,
                next_try_at=now + func.make_interval(0, 0, 0, 0, 0, 0, back_off),
            )
            .returning(inbox)
        )
        return sorted((_entry(row) for row in taken.mappings()), key=lambda entry: entry.id)

    async def mark(
        self,
        entry_id: int,
        outcome: InboxOutcome,
        now: datetime,
        *,
        payment_id: str | None = None,
        method_id: str | None = None,
    ) -> None:
        """Settle an entry; `payment_id` or `method_id` is what it turned out to be about."""
        await self._connection.execute(
            _MARK,
            {
                "of_entry": entry_id,
                "of_payment": payment_id,
                "of_method": method_id,
                "outcome": outcome.value,
                "settled_at": now,
            },
        )

    async def foreign_refunds(self, gateway: GatewayName, number: str, payment_id: str) -> set[str]:
        """The numbers of refunds made elsewhere that were named of the order `number`, also those
        of our form that the record does not have."""
        is_lost = and_(
            inbox.c.refund_id.is_not(None), ~exists().where(refunds.c.id == inbox.c.refund_id)
        )
        rows = await self._connection.execute(
            select(func.coalesce(inbox.c.foreign_refund, inbox.c.refund_id)).where(
                inbox.c.payment_id == payment_id,
                inbox.c.gateway == gateway.value,
                inbox.c.number == number,
                or_(inbox.c.foreign_refund.is_not(None), is_lost),
            )
        )
        return set(rows.scalars())

    async def body(self, entry_id: int) -> bytes | None:
        """The raw body as it came, for whoever investigates."""
        sealed = await self._connection.scalar(select(inbox.c.body).where(inbox.c.id == entry_id))
        return None if sealed is None else self._cipher.open(sealed, _BODY)

    async def counts(self) -> dict[str, int]:
        """How many rows have each outcome; `waiting` those that have none yet."""
        rows = await self._connection.execute(
            select(func.coalesce(inbox.c.outcome, "waiting"), func.count()).group_by(
                inbox.c.outcome
            )
        )
        return {row[0]: row[1] for row in rows}


def _entry(row: RowMapping) -> InboxEntry:
    return InboxEntry(
        id=row["id"],
        gateway=GatewayName(row["gateway"]),
        event_id=row["event_id"],
        event_type=row["event_type"],
        payment_id=row["payment_id"],
        number=row["number"],
        tries=row["tries"],
        refund_id=row["refund_id"],
        disputed_reference=row["disputed_reference"],
        foreign_refund=row["foreign_refund"],
        refunded_reference=row["refunded_reference"],
        method_id=row["method_id"],
        mandate_reference=row["mandate_reference"],
    )
