"""Lists of saved methods: a user's, and those that something is to be done about."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import exists, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import InvalidRequest
from billing.identifiers import is_method_id
from billing.method import MethodStatus, SavedMethod
from billing.payment import PaymentStatus
from runtime.cipher import Cipher
from storage.method_rows import method_of
from storage.method_tables import (
    IS_METHOD_ENDING,
    IS_METHOD_EXPIRING,
    IS_METHOD_UNFINISHED,
    payment_methods,
)
from storage.paging import Page
from storage.tables import payment_attempts, payments

_UNPAID: Final = [
    status.value for status in (PaymentStatus.FAILED, PaymentStatus.CANCELED, PaymentStatus.EXPIRED)
]


async def page_of_methods(
    connection: AsyncConnection,
    cipher: Cipher,
    *,
    application: str,
    user_id: str,
    limit: int,
    cursor: str | None = None,
    status: MethodStatus | None = None,
) -> Page[SavedMethod]:
    """A user's methods, newest first. Raises InvalidRequest on a cursor that is not ours."""
    theirs = (
        payment_methods.c.application == application,
        payment_methods.c.user_id == user_id,
    )
    query = select(payment_methods).where(*theirs)
    if status is not None:
        query = query.where(payment_methods.c.status == status.value)
    if cursor is not None:
        created_at = None
        if is_method_id(cursor):
            created_at = await connection.scalar(
                select(payment_methods.c.created_at).where(payment_methods.c.id == cursor, *theirs)
            )
        if created_at is None:
            raise InvalidRequest("cursor is not one that a list gave", param="cursor")
        query = query.where(
            tuple_(payment_methods.c.created_at, payment_methods.c.id)
            < tuple_(
                literal(created_at, payment_methods.c.created_at.type),
                literal(cursor, payment_methods.c.id.type),
            )
        )
    rows = await connection.execute(
        query.order_by(payment_methods.c.created_at.desc(), payment_methods.c.id.desc()).limit(
            limit + 1
        )
    )
    found = [method_of(row, cipher) for row in rows.mappings()]
    has_more = len(found) > limit
    return Page(
        data=found[:limit],
        has_more=has_more,
        next_cursor=found[limit - 1].id if has_more else None,
    )


async def unfinished_methods(
    connection: AsyncConnection, after: str | None, limit: int
) -> list[str]:
    columns = payment_methods.c
    since = func.greatest(columns.ends_at, func.now() - timedelta(days=1))
    waiting = select(columns.id).where(IS_METHOD_UNFINISHED)
    ending = select(columns.id).where(
        IS_METHOD_ENDING, columns.ends_at <= func.now(), columns.asked_at < since
    )
    if after is not None:
        waiting, ending = waiting.where(columns.id > after), ending.where(columns.id > after)
    both = waiting.union(ending).subquery()
    rows = await connection.execute(select(both.c.id).order_by(both.c.id).limit(limit))
    return list(rows.scalars())


async def expiring_methods(connection: AsyncConnection, until: datetime, limit: int) -> list[str]:
    columns = payment_methods.c
    rows = await connection.execute(
        select(columns.id)
        .where(IS_METHOD_EXPIRING, columns.expires_at <= until)
        .order_by(columns.expires_at, columns.id)
        .limit(limit)
    )
    return list(rows.scalars())


async def was_charged(connection: AsyncConnection, method_id: str) -> bool:
    """See `Methods.was_charged`."""
    of_method = select(payment_methods).where(payment_methods.c.id == method_id).subquery()
    found = await connection.scalar(
        select(
            exists().where(
                payments.c.application == of_method.c.application,
                payments.c.user_id == of_method.c.user_id,
                payments.c.created_at >= of_method.c.created_at,
                payments.c.payment_method_id == of_method.c.id,
                payments.c.status.not_in(_UNPAID),
            )
        )
    )
    return bool(found)


async def charges_since(connection: AsyncConnection, method_id: str, since: datetime) -> int:
    """See `Methods.charges_since`."""
    of_method = select(payment_methods).where(payment_methods.c.id == method_id).subquery()
    is_asked = exists().where(
        payment_attempts.c.payment_id == payments.c.id,
        payment_attempts.c.gateway_status.is_not(None),
    )
    counted = await connection.scalar(
        select(func.count()).where(
            payments.c.application == of_method.c.application,
            payments.c.user_id == of_method.c.user_id,
            payments.c.created_at >= since,
            payments.c.payment_method_id == of_method.c.id,
            is_asked,
        )
    )
    return counted or 0
