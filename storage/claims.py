"""Idempotency claims: whoever inserts a key first decides which object it stands for."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import RowMapping, bindparam, delete, exists, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.cipher import Cipher
from storage.tables import idempotency_claims as claims

CLAIM_LIFE: Final = timedelta(days=30)
PURGED_AT_ONCE: Final = 1000
_REQUEST: Final = "idempotency_claims.request"
_ANSWER: Final = "idempotency_claims.answer_body"

# The statements of every request, built once: to build one takes longer than to send it.
_WANTED: Final = insert(claims)
_CLAIM: Final = _WANTED.on_conflict_do_update(
    index_elements=["application", "key_digest"],
    set_={
        column.name: _WANTED.excluded[column.name] for column in claims.c if not column.primary_key
    },
    where=claims.c.created_at < _WANTED.excluded.created_at - CLAIM_LIFE,
).returning(claims)
_IS_KEY: Final = (claims.c.application == bindparam("of_application")) & (
    claims.c.key_digest == bindparam("of_key")
)
_FIND: Final = select(claims).where(_IS_KEY)
_STORE_ANSWER: Final = update(claims).where(_IS_KEY, claims.c.answer_status.is_(None))


@dataclass(frozen=True)
class Claim:
    """What a key stands for. `request` is the body first sent under it; the answer is there once
    it was given."""

    object_id: str
    fingerprint: str
    command: str
    is_new: bool
    request: bytes
    answer_status: int | None
    answer_body: bytes | None
    created_at: datetime


class Claims:
    def __init__(self, connection: AsyncConnection, cipher: Cipher) -> None:
        self._connection = connection
        self._cipher = cipher

    async def claim(
        self,
        *,
        application: str,
        key: str,
        fingerprint: str,
        command: str,
        object_id: str,
        request: bytes,
        now: datetime,
    ) -> Claim:
        """Claim the key, or read the claim that stands; a claim of over 30 days ago is free."""
        inserted = await self._connection.execute(
            _CLAIM,
            {
                "application": application,
                "key_digest": _digest(key),
                "fingerprint": fingerprint,
                "command": command,
                "object_id": object_id,
                "request": self._cipher.seal(request, _REQUEST),
                "created_at": now,
                "answer_status": None,
                "answer_body": None,
            },
        )
        row = inserted.mappings().first()
        if row is not None:
            return self._claim(row, is_new=True)
        standing = await self.find(application, key)
        assert standing is not None, "the row that was in the way"
        return standing

    async def find(self, application: str, key: str) -> Claim | None:
        """The claim that stands under the key."""
        rows = await self._connection.execute(
            _FIND, {"of_application": application, "of_key": _digest(key)}
        )
        row = rows.mappings().first()
        return None if row is None else self._claim(row, is_new=False)

    async def store_answer(self, *, application: str, key: str, status: int, body: bytes) -> None:
        """Keep the answer for repeats; the first one stored stands."""
        await self._connection.execute(
            _STORE_ANSWER,
            {
                "of_application": application,
                "of_key": _digest(key),
                "answer_status": status,
                "answer_body": self._cipher.seal(body, _ANSWER),
            },
        )

    async def find_by_object(self, object_id: str, application: str) -> Claim | None:
        """The claim under which an object was ordered."""
        rows = await self._connection.execute(
            select(claims)
            .where(claims.c.object_id == object_id, claims.c.application == application)
            .order_by(claims.c.created_at)
            .limit(1)
        )
        row = rows.mappings().first()
        return None if row is None else self._claim(row, is_new=False)

    async def exists_for(self, object_id: str) -> bool:
        """Whether any application has claimed the object's id."""
        found = await self._connection.scalar(
            select(exists().where(claims.c.object_id == object_id))
        )
        return bool(found)

    async def purge(self, before: datetime) -> int:
        """Delete claims made before then, a thousand at most; how many there were."""
        oldest = (
            select(claims.c.application, claims.c.key_digest)
            .where(claims.c.created_at < before)
            .order_by(claims.c.created_at)
            .limit(PURGED_AT_ONCE)
        )
        deleted = await self._connection.execute(
            delete(claims).where(tuple_(claims.c.application, claims.c.key_digest).in_(oldest))
        )
        return deleted.rowcount

    def _claim(self, row: RowMapping, *, is_new: bool) -> Claim:
        answer = row["answer_body"]
        return Claim(
            object_id=row["object_id"],
            fingerprint=row["fingerprint"],
            command=row["command"],
            is_new=is_new,
            request=self._cipher.open(row["request"], _REQUEST),
            answer_status=row["answer_status"],
            answer_body=None if answer is None else self._cipher.open(answer, _ANSWER),
            created_at=row["created_at"],
        )


def _digest(key: str) -> bytes:
    """Keys are the application's words and may say too much to be kept readable."""
    return hashlib.sha256(key.encode()).digest()
