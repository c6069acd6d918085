"""Saved payment methods.

Every status write is one UPDATE that names the states it may follow, and answers with the status
that stands afterwards. Writers of one user's methods take turns (`hold`): at most one is the
default, and each is changed after another without a deadlock.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, false, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import MethodNotActive, MethodNotFound
from billing.identifiers import mandate_number
from billing.method import CardFace, MethodStatus, SavedMethod, sources_of
from billing.method_messages import MethodOrder
from billing.payment import Failure, GatewayName, NextAction
from runtime.cipher import Cipher
from storage.events import Events
from storage.method_lists import (
    charges_since,
    expiring_methods,
    page_of_methods,
    unfinished_methods,
    was_charged,
)
from storage.method_rows import (
    MethodRecord,
    face_values,
    method_event_data_of,
    method_record_of,
    seal_method_action,
    seal_method_order,
)
from storage.method_tables import (
    IS_DEFAULT,
    payment_methods,
)
from storage.paging import Page
from storage.tables import IS_CHARGE_UNFINISHED, customers, payments

__all__ = ["MethodRecord", "Methods"]

_LOCK: Final = text(
    "SELECT pg_advisory_xact_lock(hashtextextended("
    "'everbill.methods/' || application || '/' || user_id, 0))"
    " FROM payment_methods WHERE id = :id"
)

_FIND: Final = select(payment_methods).where(payment_methods.c.id == bindparam("of_id"))
_FIND_OF_APPLICATION: Final = _FIND.where(
    payment_methods.c.application == bindparam("of_application")
)


class Methods:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection, cipher: Cipher, events: Events) -> None:
        self._connection = connection
        self._cipher = cipher
        self._events = events

    async def insert(self, order: MethodOrder, now: datetime) -> MethodRecord:
        """Write the row and its first event, unless they are there, and the customer at the first
        of theirs."""
        inserted = await self._connection.execute(
            insert(payment_methods)
            .values(
                id=order.method_id,
                application=order.application,
                user_id=order.user_id,
                gateway=order.gateway.value,
                status=MethodStatus.PENDING.value,
                number=mandate_number(order.method_id),
                currency=order.currency,
                most_minor=order.most_minor,
                rhythm_months=order.every_months,
                order_document=seal_method_order(self._cipher, order),
                created_at=order.created_at,
                updated_at=now,
            )
            .on_conflict_do_nothing()
            .returning(payment_methods)
        )
        row = inserted.mappings().first()
        if row is not None:
            await self._connection.execute(
                insert(customers)
                .values(
                    application=order.application,
                    user_id=order.user_id,
                    created_at=order.created_at,
                )
                .on_conflict_do_nothing()
            )
            await self._events.append(
                order.method_id,
                order.application,
                "method.created",
                method_event_data_of(row),
                now,
            )
        return await self.found(order.method_id)

    async def find(self, method_id: str, *, application: str | None = None) -> MethodRecord | None:
        named = {"of_id": method_id, "of_application": application}
        query = _FIND if application is None else _FIND_OF_APPLICATION
        row = (await self._connection.execute(query, named)).mappings().first()
        return None if row is None else method_record_of(row, self._cipher)

    async def found(self, method_id: str) -> MethodRecord:
        """Raises MethodNotFound."""
        record = await self.find(method_id)
        if record is None:
            raise MethodNotFound(f"there is no row of payment method {method_id}")
        return record

    async def behind(self, gateway: GatewayName, reference: str) -> str | None:
        """The method whose mandate, or whose set-up, the gateway knows by this number of its own;
        the latest of several."""
        found: str | None = await self._connection.scalar(
            select(payment_methods.c.id)
            .where(
                payment_methods.c.gateway == gateway.value,
                or_(
                    payment_methods.c.reference == reference,
                    payment_methods.c.setup_reference == reference,
                ),
            )
            .order_by(payment_methods.c.created_at.desc())
            .limit(1)
        )
        return found

    async def hold(self, method_id: str) -> None:
        """Keep others from changing any method of this one's user in this transaction."""
        await self._connection.execute(_LOCK, {"id": method_id})

    async def note_customer(self, method_id: str, reference: str) -> None:
        """What the gateway calls its customer: the same at every repeat."""
        await self._connection.execute(
            update(payment_methods)
            .where(
                payment_methods.c.id == method_id, payment_methods.c.customer_reference.is_(None)
            )
            .values(customer_reference=reference)
        )

    async def record_opened(
        self,
        method_id: str,
        *,
        setup_reference: str | None,
        next_action: NextAction,
        now: datetime,
    ) -> None:
        """Store what the payer needs to consent; one that does not wait any more stays as it is."""
        await self._connection.execute(
            update(payment_methods)
            .where(
                payment_methods.c.id == method_id,
                payment_methods.c.status == MethodStatus.PENDING.value,
            )
            .values(
                next_action=seal_method_action(self._cipher, method_id, next_action),
                setup_reference=func.coalesce(setup_reference, payment_methods.c.setup_reference),
                updated_at=_not_before(now),
            )
        )

    async def activate(
        self,
        method_id: str,
        *,
        reference: str | None,
        card: CardFace | None,
        most_minor: int | None,
        ends_at: datetime | None,
        now: datetime,
    ) -> MethodStatus:
        """The payer has consented: it may be charged, and is the user's default if there is none.

        The status that stands. `hold` comes first.
        """
        other = payment_methods.alias("other")
        has_default = (
            select(other.c.id)
            .where(
                other.c.application == payment_methods.c.application,
                other.c.user_id == payment_methods.c.user_id,
                other.c.is_default,
            )
            .exists()
        )
        values: dict[str, Any] = {
            **face_values(reference, card, most_minor, ends_at),
            "is_default": ~has_default,
            "next_action": None,
            "activated_at": now,
        }
        return await self._write(method_id, MethodStatus.ACTIVE, values, "method.activated", now)

    async def renew(
        self,
        method_id: str,
        *,
        reference: str | None,
        card: CardFace | None,
        most_minor: int | None,
        ends_at: datetime | None,
        now: datetime,
    ) -> None:
        """What the gateway says now of one that is active: the network has put a new card in the
        old one's place, say. Nothing is written where nothing is new."""
        values = face_values(reference, card, most_minor, ends_at)
        is_new = [payment_methods.c[name].is_distinct_from(to) for name, to in values.items()]
        await self._change(method_id, values, "method.updated", now, or_(false(), *is_new))

    async def note_asked(self, method_id: str, gateway_status: str, now: datetime) -> None:
        """Keep the gateway's own word, and when it was given."""
        await self._connection.execute(
            update(payment_methods)
            .where(payment_methods.c.id == method_id)
            .values(gateway_status=gateway_status, asked_at=now)
        )

    async def end(
        self,
        method_id: str,
        to: MethodStatus,
        *,
        now: datetime,
        failure: Failure | None = None,
    ) -> MethodStatus:
        """FAILED, with its `failure`, or ENDED; the status that stands. `hold` comes first."""
        values = {
            "failure": failure.model_dump(mode="json") if failure is not None else None,
            "is_default": False,
            "next_action": None,
            "ended_at": now,
        }
        return await self._write(method_id, to, values, f"method.{to.value}", now)

    async def set_released(self, method_id: str, now: datetime | None) -> None:
        """Whether the gateway keeps nothing of an ended one that might be charged: since when."""
        await self._connection.execute(
            update(payment_methods)
            .where(payment_methods.c.id == method_id, payment_methods.c.ended_at.is_not(None))
            .values(
                released_at=None
                if now is None
                else func.coalesce(payment_methods.c.released_at, now)
            )
        )

    async def make_default(self, method_id: str, now: datetime) -> None:
        """Have it take the place of the user's default. Raises MethodNotActive, MethodNotFound."""
        await self.hold(method_id)
        record = await self.found(method_id)
        if record.method.status is not MethodStatus.ACTIVE:
            raise MethodNotActive(
                f"the payment method is {record.method.status}; only an active one can be the"
                " default"
            )
        if record.method.is_default:
            return
        before = await self.default_of(record.order.application, record.order.user_id)
        if before is not None:
            await self._set_default(before, now, is_default=False)
        await self._set_default(method_id, now, is_default=True)

    async def default_of(self, application: str, user_id: str) -> str | None:
        found: str | None = await self._connection.scalar(
            select(payment_methods.c.id).where(
                payment_methods.c.application == application,
                payment_methods.c.user_id == user_id,
                IS_DEFAULT,
            )
        )
        return found

    async def charges_under_way(self, method_id: str) -> list[str]:
        """Ids of the payments charged to it that have not ended."""
        rows = await self._connection.execute(
            select(payments.c.id)
            .where(payments.c.payment_method_id == method_id, IS_CHARGE_UNFINISHED)
            .order_by(payments.c.id)
        )
        return list(rows.scalars())

    async def was_charged(self, method_id: str) -> bool:
        """Whether it was charged since it was asked for, or may be just now, for whatever that
        was."""
        return await was_charged(self._connection, method_id)

    async def charges_since(self, method_id: str, since: datetime) -> int:
        """How many payments that began since then its gateway was asked for, whatever came of
        them."""
        return await charges_since(self._connection, method_id, since)

    async def page(
        self,
        *,
        application: str,
        user_id: str,
        limit: int,
        cursor: str | None = None,
        status: MethodStatus | None = None,
    ) -> Page[SavedMethod]:
        """A user's methods, newest first. Raises InvalidRequest on a cursor that is not ours."""
        return await page_of_methods(
            self._connection,
            self._cipher,
            application=application,
            user_id=user_id,
            limit=limit,
            cursor=cursor,
            status=status,
        )

    async def unfinished(self, after: str | None, limit: int) -> list[str]:
        """Ids, in order, of methods that wait for consent, are still to be revoked, or are active
        past their end: no gateway tells of that, so it is asked about, and once a day from then."""
        return await unfinished_methods(self._connection, after, limit)

    async def expiring(self, until: datetime, limit: int) -> list[str]:
        """Ids of active methods that expire by then, which nobody was told of yet."""
        return await expiring_methods(self._connection, until, limit)

    async def tell_expiry(self, method_id: str, now: datetime) -> None:
        """Tell once of each expiry: a card that its network has replaced has another."""
        columns = payment_methods.c
        is_new = and_(
            columns.status == MethodStatus.ACTIVE.value,
            columns.expires_at.is_distinct_from(columns.expiry_told),
        )
        told = {"expiry_told": columns.expires_at}
        await self._change(method_id, told, "method.expiring", now, is_new)

    async def _set_default(self, method_id: str, now: datetime, *, is_default: bool) -> None:
        await self._change(
            method_id,
            {"is_default": is_default},
            "method.default_changed",
            now,
            payment_methods.c.is_default.is_distinct_from(is_default),
        )

    async def _write(
        self, method_id: str, to: MethodStatus, values: dict[str, Any], event: str, now: datetime
    ) -> MethodStatus:
        before = [status.value for status in sorted(sources_of(to))]
        is_written = await self._change(
            method_id,
            {"status": to.value, **values},
            event,
            now,
            payment_methods.c.status.in_(before),
        )
        return to if is_written else (await self.found(method_id)).method.status

    async def _change(
        self,
        method_id: str,
        values: dict[str, Any],
        event: str,
        now: datetime,
        condition: ColumnElement[bool],
    ) -> bool:
        """One UPDATE, and its event; False where the condition did not hold."""
        changed = await self._connection.execute(
            update(payment_methods)
            .where(payment_methods.c.id == method_id, condition)
            .values(updated_at=_not_before(now), **values)
            .returning(payment_methods)
        )
        row = changed.mappings().first()
        if row is None:
            return False
        await self._events.append(
            method_id, row["application"], event, method_event_data_of(row), now
        )
        return True


def _not_before(now: datetime) -> ColumnElement[datetime]:
    """An activity that is repeated late brings its old time; the row's never goes back."""
    return func.greatest(payment_methods.c.updated_at, now)
