"""Totals over HTTP: an application's own, by days of UTC, and nothing that was not asked for."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from api.app import BASE
from tests.api.conftest import Shop
from tests.api.paper import REFUSED
from tests.api.test_validation import check_problem


def today() -> date:
    return datetime.now(UTC).date()


async def paid(shop: Shop, **changes: Any) -> dict[str, Any]:
    payment = await shop.created(**changes)
    shop.gateway(payment["gateway"]).pay(payment["id"])
    answer = await shop.post(f"/{payment['id']}/refresh")
    assert answer.json()["status"] == "succeeded", answer.text
    return payment


async def test_takings_outcomes_and_times(shop: Shop) -> None:
    for _ in range(2):
        await paid(shop)
    failed = await shop.created(description=REFUSED)
    await shop.created()
    answer = await shop.get("/stats")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert list(body) == ["from", "to", "days", "totals", "methods"]
    nothing = {"count": 0, "amount": 0}
    taken = {
        "currency": "CNY",
        "taken": {"count": 2, "amount": 5800},
        "refunded": nothing,
        "unapplied": nothing,
    }
    assert body["totals"] == [taken]
    assert [{key: day[key] for key in taken} for day in body["days"]] == [taken]
    (method,) = body["methods"]
    times = method.pop("time_to_pay")
    assert 0 < times["median_ms"] <= times["p95_ms"]
    assert method == {
        "gateway": "alipay",
        "method": "qr",
        "ended": 3,
        "succeeded": 2,
        "success_rate": "0.6667",
        "declines": [
            {
                "code": failed["failure"]["code"],
                "decline_code": failed["failure"]["decline_code"],
                "count": 1,
            }
        ],
    }


async def test_the_last_thirty_days_unless_told_otherwise(shop: Shop) -> None:
    before = today()
    body = (await shop.get("/stats")).json()
    assert date.fromisoformat(body["to"]) in (before, today())
    assert date.fromisoformat(body["to"]) - date.fromisoformat(body["from"]) == timedelta(days=29)
    for given, window in (
        ({"to": "2026-03-01"}, ("2026-01-31", "2026-03-01")),
        ({"from": "2025-03-01", "to": "2026-03-01"}, ("2025-03-01", "2026-03-01")),
        ({"from": "2026-03-01", "to": "2026-03-01"}, ("2026-03-01", "2026-03-01")),
        ({"to": "0001-01-02"}, ("0001-01-01", "0001-01-02")),
    ):
        body = (await shop.get("/stats", **given)).json()
        assert (body["from"], body["to"]) == window
        assert body["days"] == body["totals"] == body["methods"] == []


async def test_only_what_was_asked_for(shop: Shop, other_shop: Shop) -> None:
    await paid(shop)
    await paid(shop, gateway="stripe", method="card", currency="USD")
    await paid(other_shop)
    for filters, currencies, gateways in (
        ({}, ["CNY", "USD"], ["alipay", "stripe"]),
        ({"currency": "USD"}, ["USD"], ["stripe"]),
        ({"gateway": "alipay"}, ["CNY"], ["alipay"]),
        ({"gateway": "alipay", "currency": "USD"}, [], []),
        ({"from": "2020-01-01", "to": "2020-01-02"}, [], []),
    ):
        body = (await shop.get("/stats", **filters)).json()
        assert [one["currency"] for one in body["totals"]] == currencies, filters
        assert [one["gateway"] for one in body["methods"]] == gateways, filters
        assert all(one["taken"]["count"] == 1 for one in body["totals"])


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("colour=red", "colour"),
        ("first=2026-01-01", "first"),
        ("from=2026-1-1", "from"),
        ("from=20260101", "from"),
        ("from=1767225600", "from"),
        ("from=", "from"),
        ("from=2026-01-01T00:00:00Z", "from"),
        ("from=2026-02-30", "from"),
        ("to=tomorrow", "to"),
        ("from=2026-01-02&to=2026-01-01", "from"),
        ("from=9999-12-31", "from"),
        ("from=2025-01-01&to=2026-01-02", "from"),
        ("to=2026-01-01&to=2026-01-02", "to"),
        ("currency=usd", "currency"),
        ("gateway=paypal", "gateway"),
    ],
)
async def test_what_is_no_window_is_refused(shop: Shop, query: str, param: str) -> None:
    answer = await shop.http.get(f"{BASE}/stats?{query}")
    assert check_problem(answer, 422)["param"] == param


async def test_the_document_names_what_is_answered(shop: Shop) -> None:
    document = shop.stack.app.openapi()
    operation = document["paths"][f"{BASE}/stats"]["get"]
    assert [one["name"] for one in operation["parameters"]] == ["from", "to", "currency", "gateway"]
    schemas = document["components"]["schemas"]
    assert schemas["StatsAnswer"]["required"] == ["from", "to", "days", "totals", "methods"]
    rate = schemas["MethodTotals"]["properties"]["success_rate"]
    assert re.fullmatch(rate["pattern"], "1.0000")
