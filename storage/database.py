"""The connection to PostgreSQL, and the unit of work: one transaction with every repository."""

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from billing.errors import SettingError
from runtime.cipher import Cipher
from storage.attempts import Attempts
from storage.attention import Attention
from storage.claims import Claims
from storage.clawbacks import Clawbacks
from storage.customers import Customers
from storage.disputes import Disputes
from storage.events import Events
from storage.gateway_customers import GatewayCustomers
from storage.inbox import Inbox
from storage.keys import ApiKeys
from storage.ledger import Ledger
from storage.methods import Methods
from storage.payments import Payments
from storage.points import Points
from storage.points_book import PointsBook
from storage.receipts import Receipts
from storage.refunds import Refunds
from storage.reviews import Reviews
from storage.stats import Stats
from storage.subscriptions import Subscriptions

# A transaction of ours takes milliseconds; whatever takes longer is stuck behind something.
_SESSION_OPTIONS: Final = (
    "-c timezone=UTC -c lock_timeout=5s -c statement_timeout=15s"
    " -c idle_in_transaction_session_timeout=30s"
    # Each statement must see what was committed while it waited for a lock.
    " -c default_transaction_isolation=read\\ committed"
)
_CONNECT_TIMEOUT_SECONDS: Final = 5
_KEEPALIVES: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_POOL_TIMEOUT_SECONDS: Final = 10


def sync_url(url: str) -> URL:
    """The URL with the driver that we use. Raises SettingError where it is not PostgreSQL's."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingError("DATABASE_URL is not a URL: expected postgresql://…") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingError(
            f"DATABASE_URL names {parsed.get_backend_name()}: expected postgresql://…"
        )
    return parsed.set(drivername="postgresql+psycopg")


@dataclass(frozen=True)
class UnitOfWork:
    """One transaction: what the repositories write is committed together, or not at all."""

    connection: AsyncConnection
    cipher: Cipher

    @cached_property
    def payments(self) -> Payments:
        return Payments(self.connection, self.cipher, self.events, self.attempts)

    @cached_property
    def attempts(self) -> Attempts:
        return Attempts(self.connection, self.cipher)

    @cached_property
    def receipts(self) -> Receipts:
        return Receipts(self.connection)

    @cached_property
    def customers(self) -> Customers:
        return Customers(self.connection)

    @cached_property
    def gateway_customers(self) -> GatewayCustomers:
        return GatewayCustomers(self.connection)

    @cached_property
    def subscriptions(self) -> Subscriptions:
        return Subscriptions(self.connection, self.cipher, self.events)

    @cached_property
    def points(self) -> Points:
        return Points(self.connection, self.payments, self._points_book, self.clawbacks)

    @cached_property
    def clawbacks(self) -> Clawbacks:
        return Clawbacks(self.connection, self.payments, self._points_book)

    @cached_property
    def _points_book(self) -> PointsBook:
        return PointsBook(self.connection, self.events, self.ledger)

    @cached_property
    def refunds(self) -> Refunds:
        return Refunds(self.connection, self.payments, self.events, self.clawbacks)

    @cached_property
    def methods(self) -> Methods:
        return Methods(self.connection, self.cipher, self.events)

    @cached_property
    def disputes(self) -> Disputes:
        return Disputes(self.connection, self.payments, self.events, self.ledger, self.attention)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.connection)

    @cached_property
    def events(self) -> Events:
        return Events(self.connection)

    @cached_property
    def claims(self) -> Claims:
        return Claims(self.connection, self.cipher)

    @cached_property
    def inbox(self) -> Inbox:
        return Inbox(self.connection, self.cipher)

    @cached_property
    def keys(self) -> ApiKeys:
        return ApiKeys(self.connection)

    @cached_property
    def attention(self) -> Attention:
        return Attention(self.connection)

    @cached_property
    def reviews(self) -> Reviews:
        return Reviews(self.connection)

    @cached_property
    def stats(self) -> Stats:
        return Stats(self.connection)


def _refuse_closed(connection: DBAPIConnection, _record: object, _proxy: object) -> None:
    """A server that stops says so and closes: what can be read on an idle connection is its end.

    Costs a system call where a ping costs a round trip. All idle connections are made anew.
    """
    socket = connection.driver_connection.fileno()
    readable = select.poll()
    readable.register(socket, select.POLLIN)
    if readable.poll(0):
        raise InvalidatePoolError


class Database:
    """Connections to one database: a pool for transactions, and one of the same size for single
    statements, whose connections need no change at either end of a use. Nothing connects before the
    first use."""

    def __init__(
        self,
        url: str,
        cipher: Cipher,
        *,
        pool_size: int = 5,
        application_name: str = "everbill",
    ) -> None:
        self._cipher = cipher
        pool = partial(_pool, sync_url(url), pool_size, application_name)
        self._engine = pool()
        self._autocommit = pool(isolation_level="AUTOCOMMIT", pool_reset_on_return=None)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """One transaction, committed at the end and rolled back on an error."""
        async with self._engine.begin() as connection:
            yield UnitOfWork(connection, self._cipher)

    @asynccontextmanager
    async def single(self) -> AsyncIterator[UnitOfWork]:
        """For one statement, which PostgreSQL commits by itself: half the time of `begin`, which
        asks it to begin and to commit. Several statements here are not one transaction."""
        async with self._autocommit.connect() as connection:
            yield UnitOfWork(connection, self._cipher)

    async def ping(self) -> None:
        """Raises sqlalchemy.exc.SQLAlchemyError when PostgreSQL is out of reach."""
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def dispose(self) -> None:
        await self._engine.dispose()
        await self._autocommit.dispose()


def _pool(url: URL, size: int, application_name: str, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT_SECONDS,
        # A failing statement's parameters are customers' data, and errors are logged.
        hide_parameters=True,
        connect_args={
            "application_name": application_name,
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            "options": _SESSION_OPTIONS,
            **_KEEPALIVES,
        },
        **options,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine
