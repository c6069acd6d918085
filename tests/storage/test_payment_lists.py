"""Lists of payments: complete, in order, one application's own, and by index."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from billing.errors import InvalidRequest
from billing.payment import AttemptState, GatewayName, PaymentMethod, PaymentStatus, PaymentType
from storage.database import Database, UnitOfWork
from tests.fixtures.database import DatabaseUrls
from tests.storage.plans import statements
from tests.storage.samples import NOW, make_order


async def walk(database: Database, application: str, limit: int, **filters: Any) -> list[str]:
    """Every id, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        async with database.begin() as work:
            page = await work.payments.page(
                application=application, limit=limit, cursor=cursor, **filters
            )
        ids += [payment.id for payment in page.data]
        assert page.has_more is (page.next_cursor is not None)
        if page.next_cursor is None:
            return ids
        assert len(page.data) == limit
        cursor = page.next_cursor


async def insert(database: Database, **changed: Any) -> str:
    order = make_order(**changed)
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
    return order.payment_id


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 100])
async def test_pages_show_each_payment_once_newest_first(database: Database, limit: int) -> None:
    application = f"pages-{limit}"
    ids = [await insert(database, application=application) for _ in range(6)]
    await insert(database, application="someone-else")
    assert await walk(database, application, limit) == ids[::-1]


async def test_a_payment_made_meanwhile_does_not_shift_the_next_page(database: Database) -> None:
    ids = [await insert(database, application="growing") for _ in range(4)]
    async with database.begin() as work:
        first = await work.payments.page(application="growing", limit=2)
    await insert(database, application="growing")
    async with database.begin() as work:
        second = await work.payments.page(application="growing", limit=2, cursor=first.next_cursor)
    assert [one.id for one in (*first.data, *second.data)] == ids[::-1]


async def test_each_filter_filters(database: Database) -> None:
    one = await insert(database, application="filters", user_id="u1")
    two = await insert(
        database,
        application="filters",
        user_id="u2",
        type=PaymentType.POINTS,
        gateway=GatewayName.STRIPE,
        method=PaymentMethod.CARD,
        created_at=NOW + timedelta(hours=1),
    )
    async with database.begin() as work:
        await work.payments.move(two, PaymentStatus.CANCELED, now=NOW)
    hour = timedelta(hours=1)
    for filters, expected in (
        ({}, [two, one]),
        ({"user_id": "u1"}, [one]),
        ({"user_id": "nobody"}, []),
        ({"type": PaymentType.POINTS}, [two]),
        ({"status": PaymentStatus.CREATED}, [one]),
        ({"gateway": GatewayName.STRIPE}, [two]),
        ({"gateway": GatewayName.STRIPE, "status": PaymentStatus.CREATED}, []),
        ({"created_after": NOW}, [two]),
        ({"created_before": NOW + hour}, [one]),
        ({"created_after": NOW - hour, "created_before": NOW + 2 * hour}, [two, one]),
    ):
        assert await walk(database, "filters", 10, **filters) == expected, filters


async def test_payments_of_one_instant_and_of_many_are_in_one_order(database: Database) -> None:
    """The newest first by when they were made, whatever the order of their ids."""
    ids = [
        await insert(database, application="instants", created_at=NOW + timedelta(hours=hours))
        for hours in (3, 1, 2, 1, 3)
    ]
    expected = [ids[place] for place in (4, 0, 2, 3, 1)]
    for limit in (1, 2, 5):
        for filters in ({}, {"gateway": GatewayName.ALIPAY}, {"user_id": "user-1"}):
            assert await walk(database, "instants", limit, **filters) == expected


async def test_a_cursor_of_another_application_is_refused(database: Database) -> None:
    theirs = await insert(database, application="theirs")
    async with database.begin() as work:
        with pytest.raises(InvalidRequest):
            await work.payments.page(application="ours", limit=1, cursor=theirs)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "pay_",
        "pay_01h455vb4pex5vsknk084sn02Q",
        "' OR 1=1",
        "pay_01h455vb4pex5vsknk084sn02q",
    ],
)
async def test_a_foreign_cursor_is_refused(database: Database, cursor: str) -> None:
    async with database.begin() as work:
        with pytest.raises(InvalidRequest) as problem:
            await work.payments.page(application="shop", limit=1, cursor=cursor)
    assert problem.value.param == "cursor"


async def test_the_sweep_finds_what_has_not_ended_or_may_still_be_paid(database: Database) -> None:
    waiting = await insert(database, application="sweep")
    watched = await insert(database, application="sweep")
    over = await insert(database, application="sweep")
    parked_dead = await insert(database, application="sweep")
    for payment_id in (watched, over):
        async with database.begin() as work:
            await work.payments.move(payment_id, PaymentStatus.CANCELED, now=NOW)
    for payment_id in (over, parked_dead):
        async with database.begin() as work:
            await work.attempts.set(payment_id, 1, state=AttemptState.DEAD, now=NOW)
    found: list[str] = []
    while True:
        async with database.begin() as work:
            page = await work.payments.unfinished(found[-1] if found else None, 2)
        if not page:
            break
        assert len(page) <= 2
        found += page
    assert found == sorted(set(found))
    assert {waiting, watched, parked_dead} <= set(found)
    assert over not in found


@pytest.fixture(scope="module")
async def crowded_urls(database_urls: DatabaseUrls) -> AsyncIterator[DatabaseUrls]:
    """Enough rows that PostgreSQL prefers an index where there is one that fits."""
    async with await psycopg.AsyncConnection.connect(
        database_urls.superuser, autocommit=True
    ) as superuser:
        await superuser.execute(
            "INSERT INTO payments (id, application, type, status, user_id, amount_minor, currency,"
            " gateway, method, description, metadata, attempt, order_document, created_at,"
            " updated_at, expires_at, paid_at)"
            " SELECT 'pay_' || lpad(n::text, 26, '0'), 'crowd', 'one_time',"
            " CASE WHEN n % 1000 = 0 THEN 'processing' ELSE 'succeeded' END, 'u' || n % 2000, 1,"
            " 'CNY', 'alipay', 'qr', 'd', '{}', 1, '', now() - n * interval '1 second', now(),"
            " now(), CASE WHEN n % 1000 = 0 THEN NULL ELSE now() END"
            " FROM generate_series(1, 20000) AS n"
        )
        await superuser.execute(
            "INSERT INTO payment_attempts (payment_id, attempt, number, gateway, method, state,"
            " expires_at, updated_at) SELECT id, 1, id, 'alipay', 'qr',"
            " CASE WHEN status = 'succeeded' THEN 'paid' ELSE 'open' END, now(), now()"
            " FROM payments WHERE application = 'crowd'"
        )
        await superuser.execute(
            "INSERT INTO webhook_inbox (gateway, event_id, event_type, body, outcome, received_at,"
            " next_try_at) SELECT 'stripe', 'crowd' || n, 't', '', 'delivered', now(), now()"
            " FROM generate_series(1, 20000) AS n"
        )
        await superuser.execute("ANALYZE")
        yield database_urls


@pytest.mark.parametrize(
    ("read", "table"),
    [
        (lambda work: work.payments.unfinished(None, 200), "payments"),
        (lambda work: work.inbox.claim_due(NOW, 100), "webhook_inbox"),
    ],
    ids=["unfinished", "claim_due"],
)
async def test_large_lists_are_read_by_index(
    crowded_urls: DatabaseUrls,
    database: Database,
    read: Callable[[UnitOfWork], Awaitable[object]],
    table: str,
) -> None:
    """Whether the plan is made for the values or, as after some repeats, for any."""
    with statements() as sent:
        async with database.begin() as work:
            await read(work)
    statement, parameters = next(one for one in sent if table in one[0])
    async with await psycopg.AsyncConnection.connect(crowded_urls.superuser) as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}".encode())
            rows = await connection.execute(
                f"EXPLAIN ANALYZE {statement}".encode(), parameters, prepare=True
            )
            plan = "\n".join(row[0] for row in await rows.fetchall())
            assert "Seq Scan" not in plan, f"{mode}\n{plan}"
            passed_over = map(int, re.findall(r"Rows Removed by Filter: (\d+)", plan))
            assert sum(passed_over) < 200, f"{mode}\n{plan}"
