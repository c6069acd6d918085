"""Lists and totals over a small record and a large one: the time must not grow with it."""

import asyncio
import contextlib
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.record_rows import HEAVY_USER, write_record
from billing.payment import GatewayName, PaymentStatus, PaymentType
from embedded.options import StackOptions
from embedded.postgres import PostgresServer
from embedded.stack import Stack, interruptible
from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from storage.database import Database, UnitOfWork
from storage.migrate import migrate
from storage.provision import provision

SMALL: Final = 10_000
LARGE: Final = 1_000_000
MOST: Final = 1.5
"""How many times the small record's time the large one's may be."""

_APPLICATION: Final = "shop"
_REPEATS: Final = 60
_WARM_UPS: Final = 10

Read = Callable[[UnitOfWork], Awaitable[object]]


@dataclass(frozen=True)
class Grown:
    """Median milliseconds of one read over either record, in one transaction of its own."""

    read: str
    small_ms: float
    large_ms: float
    ratio: float
    is_met: bool


async def measured(
    folder: Path, announce: Callable[[str], None], *, large: int = LARGE
) -> list[Grown] | None:
    """On a PostgreSQL of its own in `folder`; None where it was interrupted. Raises
    StackRefused."""
    options = replace(StackOptions.isolated(folder), components=frozenset({"postgresql"}))
    stack = Stack(options, announce)
    return await interruptible(_measure(stack, announce, large), stack)


async def _measure(stack: Stack, announce: Callable[[str], None], large: int) -> list[Grown]:
    until = datetime.now(UTC)
    async with stack:
        password = stack.folder.secrets().postgres_password
        server = PostgresServer(stack.folder.postgres, stack.options.ports.postgres, password)
        async with (
            _record(server, SMALL, until, announce) as small,
            _record(server, large, until, announce) as big,
        ):
            return [
                await _compare(name, reads, small, big)
                for name, reads in _reads(until.date(), SMALL, large).items()
            ]


@contextlib.asynccontextmanager
async def _record(
    server: PostgresServer, count: int, until: datetime, announce: Callable[[str], None]
) -> AsyncIterator[Database]:
    announce(f"writing a record of {count} payments")
    name = f"record_{count}"
    owner, application = await provision(
        server.url(), database=name, owner_password=server.password, app_password=server.password
    )
    await asyncio.to_thread(migrate, owner)
    await write_record(server.url(name), application=_APPLICATION, count=count, until=until)
    cipher = Cipher(EncryptionKeys(keys={"record": secrets.token_bytes(32)}))
    database = Database(application, cipher, pool_size=1)
    try:
        yield database
    finally:
        await database.dispose()


def _reads(today: date, small: int, large: int) -> dict[str, tuple[Read, Read]]:
    """Each over the small record and the large one; a page begins in the middle of its own."""
    a_month_ago = datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=30)
    month = {"created_after": a_month_ago - timedelta(days=30), "created_before": a_month_ago}
    lists: dict[str, dict[str, Any]] = {
        "all": {},
        "of a user": {"user_id": "user-7"},
        "of a status": {"status": PaymentStatus.SUCCEEDED},
        "of a rare status": {"status": PaymentStatus.NEEDS_REVIEW},
        "of a type": {"type": PaymentType.POINTS},
        "of a gateway and a type": {"gateway": GatewayName.STRIPE, "type": PaymentType.POINTS},
        "of a busy user and a rare status": {
            "user_id": HEAVY_USER,
            "status": PaymentStatus.REQUIRES_ACTION,
        },
        "of a month": month,
        "of a month and a rare status": {**month, "status": PaymentStatus.REQUIRES_ACTION},
    }
    same = {f"history {name}": (read := _page(**filters), read) for name, filters in lists.items()}
    middle = _page(cursor=_payment(small // 2)), _page(cursor=_payment(large // 2))
    totals = {
        "stats of 30 days": _stats(today, 30),
        "stats of 30 days in a currency": _stats(today, 30, currency="CNY"),
        "stats of a year": _stats(today, 365),
    }
    return {
        **same,
        "history from the middle": middle,
        **{name: (read, read) for name, read in totals.items()},
    }


def _payment(number: int) -> str:
    return f"pay_{number:026d}"


def _page(**filters: Any) -> Read:
    return lambda work: work.payments.page(application=_APPLICATION, limit=20, **filters)


def _stats(today: date, days: int, **filters: Any) -> Read:
    async def read(work: UnitOfWork) -> object:
        await work.stats.fold()
        first = today - timedelta(days=days - 1)
        return await work.stats.read(_APPLICATION, first, today, **filters)

    return read


async def _compare(name: str, reads: tuple[Read, Read], small: Database, large: Database) -> Grown:
    """In turns, so that whatever else the machine does hits both alike."""
    times: tuple[list[float], list[float]] = [], []
    for turn in range(_WARM_UPS + _REPEATS):
        for database, read, measured in zip((small, large), reads, times, strict=True):
            began = time.perf_counter()
            async with database.begin() as work:
                await read(work)
            if turn >= _WARM_UPS:
                measured.append(1000 * (time.perf_counter() - began))
    small_ms, large_ms = (statistics.median(each) for each in times)
    ratio = large_ms / small_ms
    return Grown(name, round(small_ms, 2), round(large_ms, 2), round(ratio, 2), ratio <= MOST)


def document(found: list[Grown], *, large: int = LARGE) -> dict[str, Any]:
    """As it stands in `results.json`."""
    return {
        "payments": [SMALL, large],
        "required": f"at most {MOST}",
        "reads": [asdict(each) for each in found],
    }


def show(found: list[Grown], console: Console, *, large: int = LARGE) -> None:
    title = f"\nMilliseconds of a read, medians, by payments (required: at most {MOST} times)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("read", no_wrap=True)
    for heading in (f"{SMALL:,}", f"{large:,}", "ratio", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        table.add_row(
            each.read,
            f"{each.small_ms:.1f}",
            f"{each.large_ms:.1f}",
            f"{each.ratio:.2f}",
            "[green]met[/green]" if each.is_met else "[red]missed[/red]",
        )
    console.print(table)
