"""Every list of payments is read from an index that has it, whatever the filters: by its plan."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import psycopg
import pytest

from benchmarks.record_rows import HEAVY_USER, write_record
from billing.payment import GatewayName, PaymentStatus, PaymentType
from storage.database import Database
from tests.fixtures.database import DatabaseUrls
from tests.storage.plans import Plan, plan_of, rows_of, statements

COUNT = 20_000
UNTIL = datetime(2026, 11, 1, tzinfo=UTC)
LIMIT = 20
STATUSES = (None, PaymentStatus.SUCCEEDED, PaymentStatus.NEEDS_REVIEW)
GATEWAYS = (None, GatewayName.STRIPE)
TYPES = (None, PaymentType.SUBSCRIPTION)
HOW_MANY = {"status": len(PaymentStatus), "gateway": len(GatewayName), "type": len(PaymentType)}
WINDOWS: dict[str, dict[str, Any]] = {
    "always": {},
    "after": {"created_after": UNTIL - timedelta(days=1)},
    "before": {"created_before": UNTIL - timedelta(days=200)},
    "between": {
        "created_after": UNTIL - timedelta(days=200),
        "created_before": UNTIL - timedelta(days=100),
    },
}
INDEXES = {
    (False, False): "payments_application_created_at_id_idx",
    (True, False): "payments_application_user_id_created_at_id_idx",
    (False, True): "payments_filtered_idx",
    (True, True): "payments_user_filtered_idx",
}


@pytest.fixture(scope="module")
async def record_urls(database_urls: DatabaseUrls) -> DatabaseUrls:
    await write_record(database_urls.superuser, application="crowd", count=COUNT, until=UNTIL)
    return database_urls


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cursor", [None, f"pay_{COUNT // 2:026d}"], ids=["first", "later"])
@pytest.mark.parametrize("user_id", [None, HEAVY_USER, "user-7"])
async def test_each_list_has_its_index(
    record_urls: DatabaseUrls,
    database: Database,
    user_id: str | None,
    cursor: str | None,
    window: str,
) -> None:
    """Whether the plan is made for the values or, as after some repeats, for any."""
    async with await psycopg.AsyncConnection.connect(record_urls.superuser) as connection:
        for status, gateway, type in product(STATUSES, GATEWAYS, TYPES):
            named = {"status": status, "gateway": gateway, "type": type}
            wanted = {**WINDOWS[window], "user_id": user_id, "cursor": cursor, **named}
            with statements() as sent:
                async with database.begin() as work:
                    await work.payments.page(application="crowd", limit=LIMIT, **wanted)
            for mode in ("force_custom_plan", "force_generic_plan"):
                check(await plan_of(connection, *sent[-1], mode), named, user_id)


def check(plan: Plan, named: dict[str, Any], user_id: str | None) -> None:
    page = LIMIT + 1
    is_filtered = any(named.values())
    assert not plan.of("Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"), plan
    lists, *whole = sorted(
        plan.scans("payments"),
        key=lambda node: node["Index Name"] != index(user_id, is_filtered=is_filtered),
    )
    assert lists["Index Name"] == index(user_id, is_filtered=is_filtered), plan
    count = 1
    for column, word in named.items():
        count *= HOW_MANY[column] if is_filtered and word is None else 1
    assert lists["Actual Loops"] == count, plan
    assert rows_of(lists) <= count * page, plan
    # One descent for each list: an index that only begins with what is asked takes more.
    assert lists["Index Searches"] <= count, plan
    for node in plan.nodes:
        assert node.get("Rows Removed by Filter", 0) == 0, plan
        assert node.get("Rows Removed by Index Recheck", 0) == 0, plan
    if not is_filtered:
        assert not whole
        assert not plan.of("Sort", "Incremental Sort"), plan
        return
    # What is sorted is the newest of each list, never a list.
    assert sum(len(plan.of(kind)) for kind in ("Sort", "Incremental Sort")) <= 1, plan
    (by_id,) = whole
    assert by_id["Index Name"] == "payments_pkey", plan
    assert rows_of(by_id) <= page, plan


def index(user_id: str | None, *, is_filtered: bool) -> str:
    return INDEXES[user_id is not None, is_filtered]
