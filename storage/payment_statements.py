"""The statements of every payment's way, built once: to build one takes longer than to send it."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    CTE,
    DateTime,
    Insert,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from storage.columns import named
from storage.method_rows import MANDATE_COLUMNS
from storage.method_tables import payment_methods
from storage.payment_rows import ATTEMPT_PREFIX, MANDATE_PREFIX, NEEDS_ATTENTION
from storage.tables import attention, customers, events, payment_attempts, payments

_RECORD: Final = (
    select(
        payments,
        exists()
        .where(attention.c.payment_id == payments.c.id, attention.c.resolved_at.is_(None))
        .label(NEEDS_ATTENTION),
        *(column.label(f"{ATTEMPT_PREFIX}{column.name}") for column in payment_attempts.c),
        *(payment_methods.c[name].label(f"{MANDATE_PREFIX}{name}") for name in MANDATE_COLUMNS),
    )
    .join_from(payments, payment_attempts, payment_attempts.c.payment_id == payments.c.id)
    .outerjoin(payment_methods, payment_methods.c.id == payments.c.payment_method_id)
    .order_by(payment_attempts.c.attempt)
)

FIND_PAYMENT: Final = _RECORD.where(payments.c.id == bindparam("of_id"))
FIND_PAYMENT_OF_APPLICATION: Final = FIND_PAYMENT.where(
    payments.c.application == bindparam("of_application")
)
WRITE_PAYMENT: Final = (
    update(payments)
    .where(
        payments.c.id == bindparam("of_id"),
        payments.c.status == any_(bindparam("before", type_=postgresql.ARRAY(Text()))),
    )
    .values(
        updated_at=func.greatest(
            payments.c.updated_at, bindparam("now", type_=DateTime(timezone=True))
        )
    )
    .returning(payments)
)


@cache
def inserting(
    row: tuple[str, ...],
    attempt: tuple[str, ...],
    customer: tuple[str, ...],
    event: tuple[str, ...],
) -> Insert:
    """A payment with those columns, and what belongs to a new one: nothing where it is there."""
    inserted = (
        postgresql.insert(payments)
        .values({column: named(payments, column) for column in row})
        .on_conflict_do_nothing()
        .returning(payments.c.id)
        .cte("inserted")
    )
    with_attempt = (
        insert(payment_attempts).from_select(attempt, _if_any(inserted, payment_attempts, attempt))
    ).cte("with_attempt")
    with_customer = (
        postgresql.insert(customers)
        .from_select(customer, _if_any(inserted, customers, customer))
        .on_conflict_do_nothing()
    ).cte("with_customer")
    return (
        insert(events)
        .from_select(event, _if_any(inserted, events, event))
        .add_cte(with_attempt, with_customer)
    )


def _if_any(rows: CTE, table: Table, columns: Iterable[str]) -> Select[Any]:
    """One row of values for each of `rows`: of none there, nothing is inserted."""
    return select(*(named(table, column) for column in columns)).select_from(rows)
