"""A sandbox inside the test, whose time passes only when told to."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from sandbox import alipay, wechatpay
from sandbox.book import Book
from sandbox.core import Keys, Sandbox
from sandbox.delivery import Delivery
from sandbox.faults import Faults

START = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
"""Noon in Beijing."""


@dataclass(frozen=True)
class ClockedSandbox(Sandbox):
    moments: list[datetime] = field(default_factory=lambda: [START])

    def clock(self) -> datetime:
        return self.moments[-1]

    def wait(self, **span: float) -> None:
        """`wait(seconds=5)`: that much later, as of timedelta."""
        self.moments.append(self.moments[-1] + timedelta(**span))


def clocked_sandbox(folder: Path) -> ClockedSandbox:
    """Nothing leaves it: webhooks stay in the book. Close its book in the end."""
    book = Book(folder / "book.sqlite3")
    faults = Faults(book)
    url = "http://sandbox.example"
    return ClockedSandbox(book, faults, Delivery(book, faults), _keys(), url, url)


@cache
def _keys() -> dict[str, Keys]:
    return {provider.NAME: provider.make_keys() for provider in (alipay, wechatpay)}
