"""What the sandbox knows, on disk: documents by kind and key, and the money that was taken.

SQLite in WAL mode. A transaction is one commit, and a request makes its changes in one, before it
answers: killing the process loses nothing it has acknowledged.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

Document = dict[str, Any]
"""Whatever JSON can hold. Documents handed out are copies: `put` makes a change stick."""

_FIELD = re.compile(r"[a-z][a-z0-9_]*")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (kind, key)
);
CREATE INDEX IF NOT EXISTS documents_in_order ON documents (kind, position);
CREATE TABLE IF NOT EXISTS charges (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    gateway TEXT NOT NULL,
    reference TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    number TEXT NOT NULL,
    amount INTEGER NOT NULL,
    refunded INTEGER NOT NULL DEFAULT 0,
    disputed INTEGER NOT NULL DEFAULT 0,
    currency TEXT NOT NULL,
    gateway_reference TEXT NOT NULL,
    paid_at TEXT NOT NULL
);
"""


class Book:
    """The sandbox's own record. For one event loop; every method returns without waiting.

    Reads need no transaction. Writes outside of one raise RuntimeError, because a request's
    changes are to be committed together.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)
        self._add_disputed()
        self._owner: asyncio.Task[Any] | None = None
        self._indexed: set[tuple[str, ...]] = set()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit at the end, or none of it on an error. A transaction inside one joins it.

        Never await inside: another request's changes would join in, so that raises RuntimeError.
        """
        task = _current_task()
        if self._connection.in_transaction:
            if task is not self._owner:
                raise RuntimeError("a transaction of the book was left open across an await")
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._owner = task
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def get(self, kind: str, key: str) -> Document | None:
        row = self._connection.execute(
            "SELECT document FROM documents WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return None if row is None else json.loads(row["document"])

    def put(self, kind: str, key: str, document: Document) -> None:
        """Insert or replace. A replaced document keeps its place in the order of insertion."""
        self._write(
            "INSERT INTO documents (kind, key, document) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET document = excluded.document",
            (kind, key, json.dumps(document, ensure_ascii=False)),
        )

    def delete(self, kind: str, key: str) -> bool:
        return (
            self._write("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key)).rowcount
            > 0
        )

    def clear(self) -> None:
        """Forget every document and every charge."""
        self._write("DELETE FROM documents", ())
        self._write("DELETE FROM charges", ())

    def find(self, kind: str, **equal: str | int) -> list[Document]:
        """The documents whose top-level fields have these values, in order of insertion.

        The first field named is indexed, so name the most selective one first.
        """
        conditions = "".join(f" AND {_expression(field)} = ?" for field in equal)
        if equal:
            self._index(next(iter(equal)))
        rows = self._connection.execute(
            f"SELECT document FROM documents WHERE kind = ?{conditions} ORDER BY position",  # noqa: S608
            (kind, *equal.values()),
        )
        return [json.loads(row["document"]) for row in rows]

    def newest(self, kind: str, limit: int, *, after: str | None = None) -> list[Document]:
        """At most `limit` documents, newest first, beginning after the one with key `after`."""
        rows = self._connection.execute(
            "SELECT document FROM documents WHERE kind = :kind AND position < coalesce("
            " (SELECT position FROM documents WHERE kind = :kind AND key = :after), 1 << 62)"
            " ORDER BY position DESC LIMIT :limit",
            {"kind": kind, "after": after, "limit": limit},
        )
        return [json.loads(row["document"]) for row in rows]

    def record_charge(
        self,
        gateway: str,
        reference: str,
        attempt: int,
        number: str,
        amount: int,
        currency: str,
        gateway_reference: str,
        paid_at: datetime,
    ) -> None:
        """Money taken: `amount` in minor units of the upper-case ISO 4217 `currency`.

        `reference` is the payment id, `number` the order as the gateway names it (out_trade_no,
        PaymentIntent), `gateway_reference` the gateway's own number of the money (trade_no,
        transaction_id, charge). A second charge of one number is recorded like the first: this is
        what truly happened, and for others to judge.
        """
        self._write(
            "INSERT INTO charges (gateway, reference, attempt, number, amount, currency,"
            " gateway_reference, paid_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                gateway,
                reference,
                attempt,
                number,
                amount,
                currency.upper(),
                gateway_reference,
                paid_at.isoformat(),
            ),
        )

    def record_refund(self, gateway: str, gateway_reference: str, amount: int) -> None:
        """Money given back, in minor units, of the charge with the gateway's own number."""
        self._write(
            "UPDATE charges SET refunded = refunded + ? WHERE gateway = ? AND"
            " gateway_reference = ?",
            (amount, gateway, gateway_reference),
        )

    def record_dispute(self, gateway: str, gateway_reference: str, amount: int) -> None:
        """Money withdrawn for a dispute (below zero: reinstated), in minor units, of the charge
        with the gateway's own number."""
        self._write(
            "UPDATE charges SET disputed = disputed + ? WHERE gateway = ? AND"
            " gateway_reference = ?",
            (amount, gateway, gateway_reference),
        )

    def age_charge(self, gateway: str, gateway_reference: str, paid_at: datetime) -> None:
        """Have the charge with the gateway's own number be paid then instead."""
        self._write(
            "UPDATE charges SET paid_at = ? WHERE gateway = ? AND gateway_reference = ?",
            (paid_at.isoformat(), gateway, gateway_reference),
        )

    def charges(self) -> list[Document]:
        """All money ever taken, oldest first."""
        rows = self._connection.execute(
            "SELECT gateway, reference, attempt, amount, refunded, disputed, currency, paid_at,"
            " number, gateway_reference FROM charges ORDER BY position"
        )
        return [dict(row) for row in rows]

    def _add_disputed(self) -> None:
        """A book from before disputes has no column for them."""
        columns = self._connection.execute("PRAGMA table_info(charges)")
        if "disputed" not in {column["name"] for column in columns}:
            self._connection.execute(
                "ALTER TABLE charges ADD COLUMN disputed INTEGER NOT NULL DEFAULT 0"
            )

    def _write(self, statement: str, parameters: tuple[object, ...]) -> sqlite3.Cursor:
        if not self._connection.in_transaction or _current_task() is not self._owner:
            raise RuntimeError("a write to the book needs book.transaction() around it")
        return self._connection.execute(statement, parameters)

    def _index(self, field: str) -> None:
        if (field,) in self._indexed:
            return
        self._connection.execute(
            f"CREATE INDEX IF NOT EXISTS documents_by_{field}"
            f" ON documents (kind, {_expression(field)})"
        )
        self._indexed.add((field,))


def _expression(field: str) -> str:
    if not _FIELD.fullmatch(field):
        raise ValueError(f"{field!r} is not the name of a document's field")
    return f"json_extract(document, '$.{field}')"


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
