"""The book: one commit at a time, found again."""

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.book import Book

_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "book.sqlite3")
    yield book
    book.close()


def test_documents_are_found_by_their_fields_in_order(book: Book) -> None:
    with book.transaction():
        for number in range(4):
            book.put("order", f"o{number}", {"n": number, "state": "open", "who": number % 2})
        book.put("other", "o0", {"state": "open", "who": 0})
    with book.transaction():
        book.put("order", "o0", {"n": 0, "state": "open", "who": 0, "changed": True})

    assert [found["n"] for found in book.find("order", state="open", who=0)] == [0, 2]
    assert book.get("order", "o0") == {"n": 0, "state": "open", "who": 0, "changed": True}
    assert book.get("order", "o9") is None
    assert [found["n"] for found in book.newest("order", 2)] == [3, 2]
    assert [found["n"] for found in book.newest("order", 9, after="o2")] == [1, 0]


def test_an_error_undoes_the_whole_transaction(book: Book) -> None:
    def pay_and_fail() -> None:
        with book.transaction():
            book.put("order", "o1", {})
            with book.transaction():
                book.record_charge("alipay", "pay_1", 1, "pay_1", 100, "CNY", "t1", _NOON)
            raise LookupError

    with pytest.raises(LookupError):
        pay_and_fail()

    assert book.get("order", "o1") is None
    assert book.charges() == []


def test_what_truly_happened_is_recorded_twice_if_it_happened_twice(book: Book) -> None:
    with book.transaction():
        for trade in ("t1", "t2"):
            book.record_charge("alipay", "pay_1", 1, "pay_1", 100, "cny", trade, _NOON)

    assert [charge["gateway_reference"] for charge in book.charges()] == ["t1", "t2"]
    assert book.charges()[0] == {
        "gateway": "alipay",
        "reference": "pay_1",
        "attempt": 1,
        "amount": 100,
        "refunded": 0,
        "disputed": 0,
        "currency": "CNY",
        "paid_at": "2026-11-23T12:00:00+00:00",
        "number": "pay_1",
        "gateway_reference": "t1",
    }


def test_a_book_from_before_disputes_is_read(tmp_path: Path, book: Book) -> None:
    with book.transaction():
        book.record_charge("stripe", "pay_1", 1, "pi_1", 100, "usd", "ch_1", _NOON)
    book.close()
    with sqlite3.connect(tmp_path / "book.sqlite3") as connection:
        connection.execute("ALTER TABLE charges DROP COLUMN disputed")
    connection.close()

    reopened = Book(tmp_path / "book.sqlite3")
    with reopened.transaction():
        reopened.record_dispute("stripe", "ch_1", 40)

    assert [charge["disputed"] for charge in reopened.charges()] == [40]
    reopened.close()


def test_a_write_outside_of_a_transaction_is_a_mistake(book: Book) -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        book.put("order", "o1", {})


async def test_a_transaction_left_open_across_an_await_is_a_mistake(book: Book) -> None:
    entered = asyncio.Event()
    leave = asyncio.Event()

    async def careless() -> None:
        with book.transaction():
            entered.set()
            await leave.wait()

    task = asyncio.create_task(careless())
    await entered.wait()
    with pytest.raises(RuntimeError, match="await"), book.transaction():
        book.put("order", "o1", {})
    leave.set()
    await task

    assert book.get("order", "o1") is None


def test_a_field_is_a_name(book: Book) -> None:
    with pytest.raises(ValueError, match="field"):
        book.find("order", **{"a') --": 1})
