"""The statements of every subscription's way, built once: see `payment_statements`."""

from datetime import datetime
from functools import cache
from typing import Final

from sqlalchemy import (
    BigInteger,
    Insert,
    Select,
    Text,
    all_,
    any_,
    bindparam,
    case,
    cast,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from billing.refund import RefundStatus
from billing.subscription_messages import ChargeStatus
from storage.columns import named
from storage.dispute_tables import held_of
from storage.refund_basis import OF_RECEIPT
from storage.subscription_rows import RECORD
from storage.subscription_tables import subscription_charges, subscriptions
from storage.tables import events, receipts, refunds

FIND_SUBSCRIPTION: Final = RECORD.where(subscriptions.c.id == bindparam("of_id"))
FIND_SUBSCRIPTION_OF_APPLICATION: Final = FIND_SUBSCRIPTION.where(
    subscriptions.c.application == bindparam("of_application")
)


def _refunded_of_periods() -> Select[int, datetime]:
    """How much, and when that last changed. A payer may dispute what was refunded already: of a
    payment no more goes back than it was."""
    has_failed = refunds.c.status == RefundStatus.FAILED.value
    minor = func.sum(refunds.c.amount_minor).filter(~has_failed)
    changed_at = case((has_failed, refunds.c.updated_at), else_=refunds.c.recorded_at)
    taken = (
        select(func.coalesce(minor, 0).label("minor"), func.max(changed_at).label("changed_at"))
        .where(OF_RECEIPT, refunds.c.id != all_(bindparam("but_for", type_=ARRAY(Text))))
        .lateral("taken")
    )
    held = held_of(receipts)
    gone = func.least(receipts.c.amount_minor, taken.c.minor + held.c.disputed_minor)
    return (
        select(
            cast(func.coalesce(func.sum(gone), 0), BigInteger),
            func.max(func.greatest(taken.c.changed_at, held.c.changed_at)),
        )
        .select_from(subscription_charges)
        .join(receipts, receipts.c.payment_id == subscription_charges.c.payment_id)
        .join(taken, true())
        .join(held, true())
        .where(
            subscription_charges.c.subscription_id == bindparam("of_id"),
            subscription_charges.c.period_number.between(
                bindparam("since_period"), bindparam("until_period")
            ),
            subscription_charges.c.status == ChargeStatus.PAID.value,
            receipts.c.kept,
        )
    )


REFUNDED_OF_PERIODS: Final = _refunded_of_periods()


@cache
def writing(
    row: tuple[str, ...], charge: tuple[str, ...], event: tuple[str, ...], *, closes: bool
) -> Insert:
    """A step that writes those columns of the row, its event, and those of a charge: of the open
    one where it `closes` that, else of a new one, if any. Nothing where another step was written
    since."""
    written = (
        update(subscriptions)
        .where(
            subscriptions.c.id == bindparam("of_id"),
            subscriptions.c.version == bindparam("of_version"),
            subscriptions.c.status == any_(bindparam("before", type_=ARRAY(Text()))),
        )
        .values({column: named(subscriptions, column) for column in row})
        .returning(subscriptions.c.id, subscriptions.c.application)
        .cte("written")
    )
    charged = {column: named(subscription_charges, column) for column in charge}
    sequence = (
        select(func.coalesce(func.max(events.c.sequence), 0) + 1)
        .where(events.c.object_id == bindparam("of_id"))
        .scalar_subquery()
    )
    row_of_event = [*(named(events, column) for column in event), written.c.application, sequence]
    told = (
        insert(events)
        .from_select(
            [*event, "application", "sequence"], select(*row_of_event).select_from(written)
        )
        .returning(events.c.position)
    )
    if closes:
        return told.add_cte(
            update(subscription_charges)
            .where(
                subscription_charges.c.subscription_id == written.c.id,
                subscription_charges.c.status == ChargeStatus.OPEN.value,
            )
            .values(charged)
            .cte("closed")
        )
    if charged:
        return told.add_cte(
            insert(subscription_charges)
            .from_select(list(charged), select(*charged.values()).select_from(written))
            .cte("opened")
        )
    return told
