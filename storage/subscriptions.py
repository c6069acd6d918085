"""Subscriptions, written by their own process alone: each write names the version before it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import InvalidRequest, SubscriptionNotFound
from billing.identifiers import is_subscription_id
from billing.subscription import Subscription, SubscriptionStatus, sources_of
from billing.subscription_messages import ChargeStatus, SubscriptionStart, WriteSubscription
from runtime.cipher import Cipher
from storage.columns import named_values
from storage.events import Events, event_values
from storage.method_tables import payment_methods
from storage.paging import Page
from storage.subscription_rows import (
    RECORD,
    SubscriptionRecord,
    charge_of,
    dump_of,
    event_data_of,
    record_of,
    seal_start,
    state_of,
)
from storage.subscription_statements import (
    FIND_SUBSCRIPTION,
    FIND_SUBSCRIPTION_OF_APPLICATION,
    REFUNDED_OF_PERIODS,
    writing,
)
from storage.subscription_tables import (
    IS_SUBSCRIPTION_UNFINISHED,
    subscription_charges,
    subscriptions,
)
from storage.tables import customers, events

__all__ = ["SubscriptionRecord", "Subscriptions", "WriterLost"]


_ENDED: Final = [status.value for status in SubscriptionStatus if status.is_terminal]


class WriterLost(Exception):
    """Somebody else has written the subscription since: a bug, as its process is the only one."""


class Subscriptions:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection, cipher: Cipher, events: Events) -> None:
        self._connection = connection
        self._cipher = cipher
        self._events = events

    async def insert(self, start: SubscriptionStart, subscription: Subscription) -> bool:
        """Write the row and its first event, unless they are there, and the customer at the first
        of theirs; whether they were not."""
        inserted = await self._connection.execute(
            insert(subscriptions)
            .values(
                id=subscription.id,
                application=start.application,
                user_id=subscription.user_id,
                version=1,
                start_document=seal_start(start, self._cipher),
                created_at=subscription.created_at,
                next_at=subscription.created_at,
                **state_of(subscription, None),
            )
            .on_conflict_do_nothing()
            .returning(subscriptions.c.id)
        )
        if inserted.first() is None:
            return False
        await self._connection.execute(
            insert(customers)
            .values(
                application=start.application,
                user_id=subscription.user_id,
                created_at=subscription.created_at,
            )
            .on_conflict_do_nothing()
        )
        await self._events.append(
            subscription.id,
            start.application,
            "subscription.created",
            event_data_of(subscription),
            subscription.created_at,
        )
        return True

    async def take_balances(
        self, application: str, user_id: str, currency: str, to: str, now: datetime
    ) -> int:
        """Leave nothing on the balances of the user's subscriptions that are over, for another of
        theirs to have; what was left there (minor units)."""
        rows = await self._connection.execute(
            select(subscriptions.c.state)
            .where(
                subscriptions.c.application == application,
                subscriptions.c.user_id == user_id,
                subscriptions.c.state["plan"]["currency"].astext == currency,
                subscriptions.c.state["balance"].astext != "0",
                subscriptions.c.status.in_(_ENDED),
                ~subscriptions.c.has_open_charge,
                subscriptions.c.giving_back.is_(None),
            )
            .order_by(subscriptions.c.id)
            .with_for_update()
        )
        left = 0
        for state in rows.scalars().all():
            before = Subscription.model_validate(state)
            after = before.model_copy(update={"balance": 0, "updated_at": now})
            await self._connection.execute(
                update(subscriptions)
                .where(subscriptions.c.id == after.id)
                .values(version=subscriptions.c.version + 1, **state_of(after, None))
            )
            data = event_data_of(after) | {"amount": before.balance, "subscription_id": to}
            await self._events.append(
                after.id, application, "subscription.balance_moved", data, now
            )
            left += before.balance
        return left

    async def find(
        self, subscription_id: str, application: str | None = None
    ) -> SubscriptionRecord | None:
        named = {"of_id": subscription_id, "of_application": application}
        query = FIND_SUBSCRIPTION if application is None else FIND_SUBSCRIPTION_OF_APPLICATION
        row = (await self._connection.execute(query, named)).mappings().first()
        return None if row is None else record_of(row, self._cipher)

    async def write(self, step: WriteSubscription) -> None:
        """Write one step and its event; a repeat changes nothing. A charge is closed in one step,
        and another opened in a later one.

        One statement, all or nothing also outside a transaction. Raises SubscriptionNotFound, and
        WriterLost where another step stands in its place.
        """
        after, is_charged = step.subscription, step.opened is not None
        assert not (is_charged and step.closed), "a charge is closed before another is opened"
        values = state_of(after, step.debt) | {
            "version": step.version + 1,
            "next_at": step.next_at,
            "announced": step.announced and step.announced.model_dump(mode="json"),
            "giving_back": step.giving_back and step.giving_back.model_dump(mode="json"),
        }
        if is_charged or step.closed is not None:
            values["has_open_charge"] = is_charged
        charge: dict[str, Any] = {}
        if step.opened is not None:
            charge = charge_of(after.id, step.opened)
        elif step.closed is not None:
            charge = {"status": step.closed.value, "ended_at": step.now}
        event = event_values(after.id, step.event, event_data_of(after) | step.data, step.now)
        named = {subscriptions: values, subscription_charges: charge, events: event}
        written = await self._connection.execute(
            writing(tuple(values), tuple(charge), tuple(event), closes=step.closed is not None),
            {
                "of_id": after.id,
                "of_version": step.version,
                "before": [status.value for status in {after.status, *sources_of(after.status)}],
                **named_values(named),
            },
        )
        if written.first() is None:
            await self._require_repeat(step)

    async def paid(self, subscription_id: str, *, since_period: int = 0) -> list[str]:
        """The payments that paid for it, from that period on, the newest first."""
        rows = await self._connection.execute(
            select(subscription_charges.c.payment_id)
            .where(
                subscription_charges.c.subscription_id == subscription_id,
                subscription_charges.c.status == ChargeStatus.PAID.value,
                subscription_charges.c.period_number >= since_period,
            )
            .order_by(subscription_charges.c.number.desc())
        )
        return list(rows.scalars())

    async def refunded(
        self, found: Subscription, but_for: Sequence[str] = ()
    ) -> tuple[int, datetime | None]:
        """What has gone back (minor units) of what was paid for its period: refunded, set aside for
        that, or withdrawn by a dispute, without the refunds of those ids; and when that last
        changed."""
        rows = await self._connection.execute(
            REFUNDED_OF_PERIODS,
            {
                "of_id": found.id,
                "since_period": found.paid_since,
                "until_period": found.period.number,
                "but_for": list(but_for),
            },
        )
        minor, changed_at = rows.one()
        return minor, changed_at

    async def page(
        self, *, application: str, user_id: str, limit: int, cursor: str | None
    ) -> Page[SubscriptionRecord]:
        """A user's subscriptions, newest first. Raises InvalidRequest on a cursor that is not
        ours."""
        query = RECORD.where(
            subscriptions.c.application == application, subscriptions.c.user_id == user_id
        )
        if cursor is not None:
            if not is_subscription_id(cursor):
                raise InvalidRequest("cursor is not one that a list gave", param="cursor")
            query = query.where(subscriptions.c.id < cursor)
        rows = await self._connection.execute(
            query.order_by(subscriptions.c.id.desc()).limit(limit + 1)
        )
        found = [record_of(row, self._cipher) for row in rows.mappings()]
        page, has_more = found[:limit], len(found) > limit
        last = page[-1].standing.subscription.id if has_more else None
        return Page(page, has_more, last)

    async def alive_of(self, application: str, user_id: str) -> list[SubscriptionRecord]:
        """The user's subscriptions that have not ended, in no order."""
        rows = await self._connection.execute(
            RECORD.where(
                subscriptions.c.application == application,
                subscriptions.c.user_id == user_id,
                subscriptions.c.status.not_in(_ENDED),
            )
        )
        return [record_of(row, self._cipher) for row in rows.mappings()]

    async def user_of(self, payment_method_id: str, *, but_for: str = "") -> str | None:
        """A subscription that has not ended and is charged to the method, or would be where its own
        declines; another one than `but_for`."""
        charged = subscriptions.c.payment_method_id == payment_method_id
        owner = select(payment_methods.c.application, payment_methods.c.user_id).where(
            payment_methods.c.id == payment_method_id
        )
        backed = and_(
            tuple_(subscriptions.c.application, subscriptions.c.user_id).in_(owner),
            subscriptions.c.state["backup_payment_method_id"].astext == payment_method_id,
        )
        for is_used in (charged, backed):
            rows = await self._connection.execute(
                select(subscriptions.c.id)
                .where(
                    is_used, subscriptions.c.status.not_in(_ENDED), subscriptions.c.id != but_for
                )
                .limit(1)
            )
            user: str | None = rows.scalar()
            if user is not None:
                return user
        return None

    async def unfinished(self, after: str | None, limit: int) -> list[str]:
        """Ids, in order, of those for which something should have happened by now, or is under way:
        a charge or a refund. What only waits is found by who asks for it."""
        is_due = or_(
            subscriptions.c.next_at <= func.now(),
            subscriptions.c.has_open_charge,
            subscriptions.c.giving_back.is_not(None),
        )
        query = select(subscriptions.c.id).where(IS_SUBSCRIPTION_UNFINISHED, is_due)
        if after is not None:
            query = query.where(subscriptions.c.id > after)
        rows = await self._connection.execute(query.order_by(subscriptions.c.id).limit(limit))
        return list(rows.scalars())

    async def _require_repeat(self, step: WriteSubscription) -> None:
        rows = await self._connection.execute(
            select(subscriptions.c.version, subscriptions.c.state).where(
                subscriptions.c.id == step.subscription.id
            )
        )
        row = rows.first()
        if row is None:
            raise SubscriptionNotFound(f"there is no subscription {step.subscription.id}")
        written = [(step.version + 1, dump_of(step.subscription))]
        if step.subscription.status.is_terminal:
            # What it had left may have gone to the user's next one since (`take_balances`).
            left = {"balance": 0, "updated_at": row.state["updated_at"]}
            written.append((step.version + 2, written[0][1] | left))
        if (row.version, row.state) not in written:
            raise WriterLost(
                f"{step.subscription.id} is at version {row.version}: a step after"
                f" {step.version} cannot be written"
            )
