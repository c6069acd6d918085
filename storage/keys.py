"""API keys: they belong to an application, are kept as hashes, and are shown once."""

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import RowMapping, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.identifiers import make_id
from storage.tables import api_keys

SECRET_PREFIX: Final = "ebk_"  # noqa: S105 - how secrets begin, not one
_ID_PREFIX: Final = "key"
_SECRET_BYTES: Final = 32
# Asked at every request: built once.
_FIND: Final = select(api_keys).where(
    api_keys.c.digest == bindparam("of_digest"), api_keys.c.revoked_at.is_(None)
)


class Scope(StrEnum):
    READ = "read"
    WRITE = "write"
    REFUND = "refund"
    OPERATE = "operate"


@dataclass(frozen=True)
class KeyRecord:
    id: str
    application: str
    name: str
    last_four: str
    scopes: frozenset[Scope]
    created_at: datetime
    revoked_at: datetime | None


class ApiKeys:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(
        self, application: str, name: str, scopes: Iterable[str], now: datetime
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which nobody can read again. Raises ValueError on a scope
        that does not exist."""
        secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        inserted = await self._connection.execute(
            insert(api_keys)
            .values(
                id=make_id(_ID_PREFIX, time.time_ns() // 1_000_000, secrets.token_bytes(10)),
                application=application,
                name=name,
                digest=_digest(secret),
                last_four=secret[-4:],
                scopes=sorted(Scope(scope).value for scope in scopes),
                created_at=now,
            )
            .returning(api_keys)
        )
        return _key(inserted.mappings().one()), secret

    async def find(self, secret: str) -> KeyRecord | None:
        """The key behind a secret, unless it was revoked."""
        rows = await self._connection.execute(_FIND, {"of_digest": _digest(secret)})
        row = rows.mappings().first()
        return None if row is None else _key(row)

    async def rotate(self, key_id: str, now: datetime) -> tuple[KeyRecord, str] | None:
        """Revoke a key and make one like it; None if there is no such key in force."""
        old = await self.revoke(key_id, now)
        if old is None:
            return None
        return await self.create(old.application, old.name, sorted(old.scopes), now)

    async def revoke(self, key_id: str, now: datetime) -> KeyRecord | None:
        """Revoke a key; None if there is no such key in force."""
        revoked = await self._connection.execute(
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(api_keys)
        )
        row = revoked.mappings().first()
        return None if row is None else _key(row)

    async def list(self, application: str | None = None) -> Sequence[KeyRecord]:
        query = select(api_keys).order_by(api_keys.c.id)
        if application is not None:
            query = query.where(api_keys.c.application == application)
        rows = await self._connection.execute(query)
        return [_key(row) for row in rows.mappings()]


def _digest(secret: str) -> bytes:
    """256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _key(row: RowMapping) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        application=row["application"],
        name=row["name"],
        last_four=row["last_four"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
