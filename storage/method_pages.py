"""Pages of one user's saved methods, newest first."""

from sqlalchemy import literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import InvalidRequest
from billing.identifiers import is_method_id
from billing.method import MethodStatus, SavedMethod
from runtime.cipher import Cipher
from storage.method_rows import method_of
from storage.method_tables import payment_methods
from storage.paging import Page


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
