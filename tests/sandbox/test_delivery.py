"""Delivery by itself: schedules, and addresses that lead nowhere."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from embedded.launch import free_port
from sandbox.book import Book, Document
from sandbox.delivery import Delivery, Message, WebhookRules
from sandbox.faults import Faults

_PATIENCE_SECONDS = 30


def sign(payload: dict[str, Any], forged: bool) -> Message:
    return Message({}, b"forged" if forged else b"genuine")


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    book = Book(tmp_path / "book.sqlite3")
    yield book
    book.close()


def make_delivery(book: Book, *delays: float) -> Delivery:
    delivery = Delivery(book, Faults(book))
    delivery.rules["wechatpay"] = WebhookRules(sign, lambda status, body: status == 204, delays)
    return delivery


def enqueue(book: Book, delivery: Delivery, url: str) -> str:
    with book.transaction():
        return delivery.enqueue(
            "wechatpay",
            url=url,
            number="pay_01",
            reference="pay_01",
            event_type="TRANSACTION.SUCCESS",
            payload={},
        )


async def ended(book: Book, delivery_id: str) -> Document:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            document = book.get("delivery", delivery_id)
            assert document is not None
            if document["state"] != "waiting":
                return document
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("url", ["not an address", "http://[::1", "http://127.0.0.1:{free}/"])
async def test_an_address_that_leads_nowhere_is_given_up_after_its_tries(
    book: Book, url: str
) -> None:
    delivery = make_delivery(book, 0.01, 0.01)
    async with delivery.running():
        webhook = await ended(
            book, enqueue(book, delivery, url.replace("{free}", str(free_port())))
        )

    assert webhook["state"] == "given_up"
    assert [bool(attempt["error"]) for attempt in webhook["tries"]] == [True, True, True]


async def test_what_a_request_undid_is_never_sent(book: Book) -> None:
    delivery = make_delivery(book)

    def undone() -> None:
        with book.transaction():
            enqueue(book, delivery, "http://127.0.0.1:9/")
            raise LookupError

    async with delivery.running():
        with pytest.raises(LookupError):
            undone()
        kept = enqueue(book, delivery, f"http://127.0.0.1:{free_port()}/")
        await ended(book, kept)

    assert [webhook["id"] for webhook in delivery.newest(10)] == [kept]


async def test_open_ones_continue_when_delivery_starts_again(book: Book) -> None:
    enqueued = enqueue(book, make_delivery(book), f"http://127.0.0.1:{free_port()}/")

    again = make_delivery(book)
    async with again.running():
        webhook = await ended(book, enqueued)

    assert len(webhook["tries"]) == 1
