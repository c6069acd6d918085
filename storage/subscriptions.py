"""Subscriptions, written by their own process alone: each write names the version before it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.dunning import Debt
from billing.errors import InvalidRequest, SubscriptionNotFound
from billing.identifiers import is_subscription_id
from billing.payment import Failure, PaymentStatus
from billing.subscription import Subscription, SubscriptionStatus, sources_of
from billing.subscription_messages import (
    Announced,
    Charge,
    ChargeEnd,
    ChargeStatus,
    GivingBack,
    SubscriptionStanding,
    SubscriptionStart,
    WriteSubscription,
)
from runtime.cipher import Cipher
from storage.events import Events
from storage.paging import Page
from storage.subscription_tables import (
    IS_SUBSCRIPTION_UNFINISHED,
    subscription_charges,
    subscriptions,
)
from storage.tables import customers, payments

_PURPOSE: Final = "subscriptions.start_document"
_PREFIX: Final = "charge__"
_CLOCK_MOVED: Final = timedelta(minutes=5)
"""Clocks of machines differ by less: what is further ahead was moved by a test clock."""
_COUNT: Final = (
    select(func.count())
    .where(subscription_charges.c.subscription_id == subscriptions.c.id)
    .correlate(subscriptions)
    .scalar_subquery()
)
_RECORD: Final = (
    select(
        subscriptions,
        _COUNT.label(f"{_PREFIX}count"),
        subscription_charges.c.charge.label(f"{_PREFIX}charge"),
        subscription_charges.c.created_at.label(f"{_PREFIX}created_at"),
        subscription_charges.c.recorded_at.label(f"{_PREFIX}recorded_at"),
        payments.c.status.label(f"{_PREFIX}payment_status"),
        payments.c.failure.label(f"{_PREFIX}payment_failure"),
    )
    .join_from(
        subscriptions,
        subscription_charges,
        and_(
            subscription_charges.c.subscription_id == subscriptions.c.id,
            subscription_charges.c.status == ChargeStatus.OPEN.value,
        ),
        isouter=True,
    )
    .outerjoin(payments, payments.c.id == subscription_charges.c.payment_id)
)


class WriterLost(Exception):
    """Somebody else has written the subscription since: a bug, as its process is the only one."""


@dataclass(frozen=True)
class SubscriptionRecord:
    """All that its process needs to go on; `next_at` is when something happens by itself."""

    start: SubscriptionStart
    standing: SubscriptionStanding
    next_at: datetime | None = None


class Subscriptions:
    """The repository of one unit of work."""

    def __init__(self, connection: AsyncConnection, cipher: Cipher, events: Events) -> None:
        self._connection = connection
        self._cipher = cipher
        self._events = events

    async def insert(self, start: SubscriptionStart, subscription: Subscription) -> None:
        """Write the row and its first event, unless they are there, and the customer at the first
        of theirs."""
        inserted = await self._connection.execute(
            insert(subscriptions)
            .values(
                id=subscription.id,
                application=start.application,
                user_id=subscription.user_id,
                version=1,
                start_document=self._cipher.seal(start.model_dump_json().encode(), _PURPOSE),
                created_at=subscription.created_at,
                next_at=subscription.created_at,
                **_state(subscription, None),
            )
            .on_conflict_do_nothing()
            .returning(subscriptions.c.id)
        )
        if inserted.first() is None:
            return
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

    async def find(
        self, subscription_id: str, application: str | None = None
    ) -> SubscriptionRecord | None:
        query = _RECORD.where(subscriptions.c.id == subscription_id)
        if application is not None:
            query = query.where(subscriptions.c.application == application)
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else self._record_of(row)

    async def write(self, step: WriteSubscription) -> None:
        """Write one step and its event; a repeat changes nothing.

        Raises SubscriptionNotFound, and WriterLost where another step stands in its place.
        """
        after, subscription_id = step.subscription, step.subscription.id
        is_charged = step.opened is not None
        values = _state(after, step.debt) | {
            "version": step.version + 1,
            "next_at": step.next_at,
            "announced": step.announced and step.announced.model_dump(mode="json"),
            "giving_back": step.giving_back and step.giving_back.model_dump(mode="json"),
        }
        if is_charged or step.closed is not None:
            values["has_open_charge"] = is_charged
        changed = await self._connection.execute(
            update(subscriptions)
            .where(
                subscriptions.c.id == subscription_id,
                subscriptions.c.version == step.version,
                subscriptions.c.status.in_(
                    [status.value for status in {after.status, *sources_of(after.status)}]
                ),
            )
            .values(**values)
            .returning(subscriptions.c.application)
        )
        application = changed.scalar()
        if application is None:
            await self._require_repeat(step)
            return
        if step.closed is not None:
            await self._connection.execute(
                update(subscription_charges)
                .where(
                    subscription_charges.c.subscription_id == subscription_id,
                    subscription_charges.c.status == ChargeStatus.OPEN.value,
                )
                .values(status=step.closed.value, ended_at=step.now)
            )
        if step.opened is not None:
            await self._connection.execute(
                insert(subscription_charges).values(**_charge(subscription_id, step.opened))
            )
        await self._events.append(
            subscription_id, application, step.event, event_data_of(after) | step.data, step.now
        )

    async def paid(self, subscription_id: str) -> list[str]:
        """The payments that paid for it, the newest first."""
        rows = await self._connection.execute(
            select(subscription_charges.c.payment_id)
            .where(
                subscription_charges.c.subscription_id == subscription_id,
                subscription_charges.c.status == ChargeStatus.PAID.value,
            )
            .order_by(subscription_charges.c.number.desc())
        )
        return list(rows.scalars())

    async def was_charged(self, subscription_id: str, method_id: str) -> bool:
        """Whether a charge of it was paid by that saved method."""
        rows = await self._connection.execute(
            select(subscription_charges.c.payment_id)
            .where(
                subscription_charges.c.subscription_id == subscription_id,
                subscription_charges.c.status == ChargeStatus.PAID.value,
                subscription_charges.c.charge["method_id"].astext == method_id,
            )
            .limit(1)
        )
        return rows.first() is not None

    async def page(
        self, *, application: str, user_id: str, limit: int, cursor: str | None
    ) -> Page[Subscription]:
        """A user's subscriptions, newest first. Raises InvalidRequest on a cursor that is not
        ours."""
        query = select(subscriptions.c.state).where(
            subscriptions.c.application == application, subscriptions.c.user_id == user_id
        )
        if cursor is not None:
            if not is_subscription_id(cursor):
                raise InvalidRequest("cursor is not one that a list gave", param="cursor")
            query = query.where(subscriptions.c.id < cursor)
        rows = await self._connection.execute(
            query.order_by(subscriptions.c.id.desc()).limit(limit + 1)
        )
        found = [Subscription.model_validate(state) for state in rows.scalars()]
        page, has_more = found[:limit], len(found) > limit
        return Page(page, has_more, page[-1].id if has_more else None)

    async def alive_of(self, application: str, user_id: str) -> list[SubscriptionRecord]:
        """The user's subscriptions that have not ended, in no order."""
        rows = await self._connection.execute(
            _RECORD.where(
                subscriptions.c.application == application,
                subscriptions.c.user_id == user_id,
                subscriptions.c.status.not_in(
                    [status.value for status in SubscriptionStatus if status.is_terminal]
                ),
            )
        )
        return [self._record_of(row) for row in rows.mappings()]

    async def uses(self, payment_method_id: str) -> bool:
        """Whether a subscription that has not ended is charged to the method."""
        rows = await self._connection.execute(
            select(subscriptions.c.id)
            .where(
                subscriptions.c.payment_method_id == payment_method_id,
                subscriptions.c.status.not_in(
                    [status.value for status in SubscriptionStatus if status.is_terminal]
                ),
            )
            .limit(1)
        )
        return rows.first() is not None

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
        if (row.version, row.state) != (step.version + 1, _dump(step.subscription)):
            raise WriterLost(
                f"{step.subscription.id} is at version {row.version}: a step after"
                f" {step.version} cannot be written"
            )

    def _record_of(self, row: RowMapping) -> SubscriptionRecord:
        charge, status = row[f"{_PREFIX}charge"], row[f"{_PREFIX}payment_status"]
        opened = None if charge is None else Charge.model_validate(charge)
        if opened is not None:
            ahead = row[f"{_PREFIX}created_at"] - row[f"{_PREFIX}recorded_at"]
            if ahead >= _CLOCK_MOVED:
                opened = opened.model_copy(update={"clock_ahead": int(ahead.total_seconds())})
        end = None
        if opened is not None and status is not None and PaymentStatus(status).is_terminal:
            failure = row[f"{_PREFIX}payment_failure"]
            end = ChargeEnd(
                payment_id=opened.payment_id,
                status=PaymentStatus(status),
                failure=failure and Failure.model_validate(failure),
            )
        return SubscriptionRecord(
            next_at=row["next_at"],
            start=SubscriptionStart.model_validate_json(
                self._cipher.open(row["start_document"], _PURPOSE)
            ),
            standing=SubscriptionStanding(
                subscription=Subscription.model_validate(row["state"]),
                version=row["version"],
                charges=row[f"{_PREFIX}count"],
                debt=row["debt"] and Debt.model_validate(row["debt"]),
                charge=opened,
                charge_end=end,
                announced=row["announced"] and Announced.model_validate(row["announced"]),
                giving_back=row["giving_back"] and GivingBack.model_validate(row["giving_back"]),
            ),
        )


def event_data_of(subscription: Subscription) -> dict[str, Any]:
    """What a subscriber to events needs to know of a change."""
    ended_at, failure = subscription.ended_at, subscription.failure
    return {
        "status": subscription.status.value,
        "access": subscription.access.value,
        "user_id": subscription.user_id,
        "tier": subscription.plan.tier.value,
        "cycle": subscription.plan.cycle.value,
        "currency": subscription.plan.currency,
        "gateway": subscription.gateway.value,
        "period_start": subscription.period.start.isoformat(),
        "period_end": subscription.period.end.isoformat(),
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "latest_payment_id": subscription.latest_payment_id,
        "failure": failure and failure.model_dump(mode="json"),
        "ended_at": ended_at and ended_at.isoformat(),
    }


def _state(subscription: Subscription, debt: Debt | None) -> dict[str, Any]:
    return {
        "status": subscription.status.value,
        "access": subscription.access.value,
        "gateway": subscription.gateway.value,
        "payment_method_id": subscription.payment_method_id,
        "tier": subscription.plan.tier.value,
        "state": _dump(subscription),
        "debt": debt and debt.model_dump(mode="json"),
        "updated_at": subscription.updated_at,
        "ended_at": subscription.ended_at,
    }


def _dump(subscription: Subscription) -> dict[str, Any]:
    return subscription.model_dump(mode="json")


def _charge(subscription_id: str, charge: Charge) -> dict[str, Any]:
    return {
        "payment_id": charge.payment_id,
        "subscription_id": subscription_id,
        "number": charge.number,
        "kind": charge.kind.value,
        "period_number": charge.period_number,
        "status": ChargeStatus.OPEN.value,
        "amount_minor": charge.decision.preview.total,
        "currency": charge.decision.preview.currency,
        "charge": charge.model_dump(mode="json"),
        "created_at": charge.opened_at,
    }
