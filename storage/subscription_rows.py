"""The rows of subscriptions, as they are read and written."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, and_, func, select

from billing.dunning import Debt
from billing.payment import Failure, PaymentStatus
from billing.subscription import Subscription
from billing.subscription_messages import (
    Announced,
    Charge,
    ChargeEnd,
    ChargeStatus,
    GivingBack,
    SubscriptionStanding,
    SubscriptionStart,
)
from runtime.cipher import Cipher
from storage.subscription_tables import subscription_charges, subscriptions
from storage.tables import payments

_START_PURPOSE: Final = "subscriptions.start_document"

_PREFIX: Final = "charge__"
_CLOCK_MOVED: Final = timedelta(minutes=5)
"""Clocks of machines differ by less: what is further ahead was moved by a test clock."""
_COUNT: Final = (
    select(func.count())
    .where(subscription_charges.c.subscription_id == subscriptions.c.id)
    .correlate(subscriptions)
    .scalar_subquery()
)
RECORD: Final = (
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


@dataclass(frozen=True)
class SubscriptionRecord:
    """All that its process needs to go on; `next_at` is when something happens by itself."""

    start: SubscriptionStart
    standing: SubscriptionStanding
    next_at: datetime | None = None


def record_of(row: RowMapping, cipher: Cipher) -> SubscriptionRecord:
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
            cipher.open(row["start_document"], _START_PURPOSE)
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


def seal_start(start: SubscriptionStart, cipher: Cipher) -> bytes:
    return cipher.seal(start.model_dump_json().encode(), _START_PURPOSE)


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


def state_of(subscription: Subscription, debt: Debt | None) -> dict[str, Any]:
    return {
        "status": subscription.status.value,
        "access": subscription.access.value,
        "gateway": subscription.gateway.value,
        "payment_method_id": subscription.payment_method_id,
        "tier": subscription.plan.tier.value,
        "state": dump_of(subscription),
        "debt": debt and debt.model_dump(mode="json"),
        "updated_at": subscription.updated_at,
        "ended_at": subscription.ended_at,
    }


def dump_of(subscription: Subscription) -> dict[str, Any]:
    return subscription.model_dump(mode="json")


def charge_of(subscription_id: str, charge: Charge) -> dict[str, Any]:
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
