"""Pages of payments, newest first, each read from an index that has exactly the list asked for.

Status, gateway and type have few words. A list that names some of them and not others is put
together from the lists of every word of the others, each from `payments_filtered_idx` and no
longer than the page: what is read depends on the page alone, never on how many payments there are.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    Text,
    func,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.errors import InvalidRequest
from billing.identifiers import is_payment_id
from billing.payment import GatewayName, Payment, PaymentStatus, PaymentType
from runtime.cipher import Cipher
from storage.paging import Page
from storage.payment_rows import payment_of
from storage.tables import payments

_WORDS: Final[dict[str, type[StrEnum]]] = {
    "status": PaymentStatus,
    "gateway": GatewayName,
    "type": PaymentType,
}
_NEWEST_FIRST: Final = (payments.c.created_at.desc(), payments.c.id.desc())


async def page_of_payments(
    connection: AsyncConnection,
    cipher: Cipher,
    *,
    application: str,
    limit: int,
    cursor: str | None = None,
    user_id: str | None = None,
    type: PaymentType | None = None,
    status: PaymentStatus | None = None,
    gateway: GatewayName | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> Page[Payment]:
    """By when they were made, and by id within one instant; both times are themselves excluded.

    Raises InvalidRequest on a cursor that no list of this application gave.
    """
    conditions: list[ColumnElement[bool]] = [payments.c.application == application]
    if user_id is not None:
        conditions.append(payments.c.user_id == user_id)
    if created_after is not None:
        conditions.append(payments.c.created_at > created_after)
    if created_before is not None:
        conditions.append(payments.c.created_at < created_before)
    if cursor is not None:
        conditions.append(await _older_than(connection, application, cursor))
    wanted = {"status": status, "gateway": gateway, "type": type}
    rows = await connection.execute(_query(conditions, wanted, limit + 1))
    found = [payment_of(row, cipher) for row in rows.mappings()]
    has_more = len(found) > limit
    return Page(
        data=found[:limit],
        has_more=has_more,
        next_cursor=found[limit - 1].id if has_more else None,
    )


async def _older_than(
    connection: AsyncConnection, application: str, cursor: str
) -> ColumnElement[bool]:
    created_at = None
    if is_payment_id(cursor):
        created_at = await connection.scalar(
            select(payments.c.created_at).where(
                payments.c.id == cursor, payments.c.application == application
            )
        )
    if created_at is None:
        raise InvalidRequest("cursor is not one that a list gave", param="cursor")
    return tuple_(payments.c.created_at, payments.c.id) < tuple_(
        literal(created_at, payments.c.created_at.type), literal(cursor, payments.c.id.type)
    )


def _query(
    conditions: list[ColumnElement[bool]], wanted: Mapping[str, StrEnum | None], count: int
) -> Select[Any]:
    if not any(wanted.values()):
        return select(payments).where(*conditions).order_by(*_NEWEST_FIRST).limit(_inline(count))
    newest = _newest_of_each(conditions, wanted, count)
    return (
        select(payments)
        .join_from(newest, payments, payments.c.id == newest.c.id)
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
    )


def _newest_of_each(
    conditions: list[ColumnElement[bool]], wanted: Mapping[str, StrEnum | None], count: int
) -> Subquery:
    """Ids of the newest `count` of all, from the newest `count` of each triple of words."""
    words = {
        column: func.unnest(
            literal([word.value for word in ([given] if given else _WORDS[column])], ARRAY(Text))
        )
        .table_valued("word", name=f"each_{column}")
        .render_derived()
        for column, given in wanted.items()
    }
    of_triple = (
        select(payments.c.created_at, payments.c.id)
        .where(*conditions, *(payments.c[column] == each.c.word for column, each in words.items()))
        .order_by(*_NEWEST_FIRST)
        .limit(_inline(count))
        .lateral("of_triple")
    )
    status, gateway, type = words.values()
    return (
        select(of_triple)
        .select_from(status.join(gateway, true()).join(type, true()).join(of_triple, true()))
        .order_by(of_triple.c.created_at.desc(), of_triple.c.id.desc())
        .limit(_inline(count))
        .subquery("newest")
    )


def _inline(count: int) -> ColumnElement[int]:
    """In the statement's text: with a parameter the planner expects a tenth of the table."""
    return literal(count, literal_execute=True)
