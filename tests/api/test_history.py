"""Lists: keyset pages and filters; events in order, waited for."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from api.app import BASE
from api.feed import Feed
from tests.api.conftest import Shop
from tests.api.paper import REFUSED


async def test_pages_are_complete_and_newest_first(shop: Shop) -> None:
    ids = [(await shop.created())["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    sizes = []
    while True:
        page = (await shop.get("/history", limit=2, **cursor)).json()
        sizes.append(len(page["data"]))
        seen += [payment["id"] for payment in page["data"]]
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ids[::-1]
    assert sizes == [2, 2, 1]


async def test_a_page_that_ends_with_the_list_promises_no_other(shop: Shop) -> None:
    for _ in range(2):
        await shop.created()
    page = (await shop.get("/history", limit=2)).json()
    assert len(page["data"]) == 2
    assert page["has_more"] is False
    assert page["next_cursor"] is None


async def test_payments_made_meanwhile_do_not_shift_pages(shop: Shop) -> None:
    ids = [(await shop.created())["id"] for _ in range(3)]
    first = (await shop.get("/history", limit=2)).json()
    await shop.created()
    second = (await shop.get("/history", limit=2, cursor=first["next_cursor"])).json()
    assert [payment["id"] for payment in second["data"]] == ids[:1]


async def test_filters_are_joined(shop: Shop) -> None:
    qr = await shop.created(user_id="ann")
    card = await shop.created(user_id="ann", gateway="stripe", method="card")
    failed = await shop.created(user_id="ben", description=REFUSED)
    for filters, expected in (
        ({"user_id": "ann"}, [card, qr]),
        ({"gateway": "alipay"}, [failed, qr]),
        ({"gateway": "alipay", "user_id": "ann"}, [qr]),
        ({"status": "failed"}, [failed]),
        ({"status": "succeeded"}, []),
        ({"type": "one_time"}, [failed, card, qr]),
        ({"type": "subscription"}, []),
        ({"created_after": qr["created_at"]}, [failed, card]),
        ({"created_before": failed["created_at"]}, [card, qr]),
        ({"created_after": qr["created_at"], "created_before": failed["created_at"]}, [card]),
    ):
        answer = await shop.get("/history", **filters)
        assert answer.json()["data"] == expected, filters


async def test_times_with_an_offset_are_understood(shop: Shop) -> None:
    payment = await shop.created()
    for moment, count in (("2026-01-01T08:00:00+08:00", 1), ("2999-01-01T00:00:00-05:00", 0)):
        answer = await shop.http.get(f"{BASE}/history?created_after={quote(moment, safe='')}")
        assert len(answer.json()["data"]) == count
    assert payment["status"] == "requires_action"


async def test_events_tell_every_change_in_order(shop: Shop) -> None:
    payment = await shop.created()
    shop.gateway("alipay").pay(payment["id"])
    await shop.post(f"/{payment['id']}/refresh")
    page = (await shop.get("/events")).json()
    assert [(event["type"], event["sequence"]) for event in page["data"]] == [
        ("payment.created", 1),
        ("payment.requires_action", 2),
        ("payment.succeeded", 3),
    ]
    assert {event["object_id"] for event in page["data"]} == {payment["id"]}
    assert page["has_more"] is False
    assert page["next_cursor"] == page["data"][-1]["cursor"]
    assert "code_url" not in str(page)


async def test_events_go_on_from_any_of_them(shop: Shop) -> None:
    for _ in range(2):
        await shop.created()
    whole = (await shop.get("/events", limit=100)).json()["data"]
    assert len(whole) == 4
    for place, event in enumerate(whole):
        rest = (await shop.get("/events", after=event["cursor"], wait_seconds=0)).json()
        assert rest["data"] == whole[place + 1 :]
    first = (await shop.get("/events", limit=3)).json()
    assert first["has_more"] is True
    assert first["next_cursor"] == whole[2]["cursor"]


async def test_without_an_event_the_cursor_stays(shop: Shop) -> None:
    await shop.created()
    last = (await shop.get("/events")).json()["next_cursor"]
    page = (await shop.get("/events", after=last, wait_seconds=0)).json()
    assert page == {"data": [], "has_more": False, "next_cursor": last}


async def test_a_long_poll_ends_with_the_next_event(shop: Shop) -> None:
    waiting = asyncio.create_task(shop.get("/events"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    payment = await shop.created()
    page = (await waiting).json()
    assert page["data"][0]["object_id"] == payment["id"]


async def test_whoever_waits_is_answered_when_the_process_stops(shop: Shop) -> None:
    feed = Feed(shop.stack.database)

    async def is_gone() -> bool:
        return False

    waiting = asyncio.create_task(
        feed.after(shop.name, None, 20, wait_seconds=3600, is_gone=is_gone)
    )
    await asyncio.sleep(0.05)
    feed.close()
    assert (await waiting).data == []
    assert (await feed.after(shop.name, None, 20, wait_seconds=3600, is_gone=is_gone)).data == []


async def test_nobody_waits_for_a_caller_who_has_gone(shop: Shop) -> None:
    async def is_gone() -> bool:
        return True

    feed = Feed(shop.stack.database)
    page = await feed.after(shop.name, None, 20, wait_seconds=3600, is_gone=is_gone)
    assert page.data == []


@pytest.mark.parametrize("path", ["/nothing", "/pay_1/nothing", "/history/"])
async def test_there_is_nothing_else(shop: Shop, path: str) -> None:
    answer = await shop.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
