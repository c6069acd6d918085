"""Claims: one winner, one object, one answer, for thirty days."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from billing.errors import SettingError
from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from storage.claims import CLAIM_LIFE, Claim
from storage.database import Database
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW


async def claim(database: Database, key: str, **changed: Any) -> Claim:
    values: dict[str, Any] = {
        "application": "shop",
        "fingerprint": "f",
        "command": "create",
        "object_id": f"object of {key}",
        "request": b'{"amount": 2900}',
        "now": NOW,
    }
    async with database.begin() as work:
        return await work.claims.claim(key=key, **(values | changed))


async def answer(database: Database, key: str, body: bytes, status: int = 201) -> None:
    async with database.begin() as work:
        await work.claims.store_answer(application="shop", key=key, status=status, body=body)


async def test_of_a_hundred_at_once_one_wins(database: Database) -> None:
    claims = await asyncio.gather(
        *(claim(database, "contested", object_id=f"pay_{number}") for number in range(100))
    )
    assert sum(one.is_new for one in claims) == 1
    assert {one.object_id for one in claims} == {one.object_id for one in claims if one.is_new}


async def test_a_repeat_reads_what_was_first_sent(database: Database) -> None:
    first = await claim(database, "repeat")
    assert first.is_new
    assert (first.answer_status, first.answer_body) == (None, None)
    again = await claim(
        database, "repeat", fingerprint="other", object_id="pay_other", request=b"other"
    )
    assert not again.is_new
    assert (again.fingerprint, again.object_id, again.request, again.command, again.created_at) == (
        "f", "object of repeat", b'{"amount": 2900}', "create", NOW,
    )  # fmt: skip


async def test_a_key_is_each_applications_own(database: Database) -> None:
    assert (await claim(database, "shared")).is_new
    assert (await claim(database, "shared", application="other")).is_new


async def test_the_first_answer_stands_byte_for_byte(database: Database) -> None:
    await claim(database, "answered")
    body = '{"b":1, "a":"会员"}\n'.encode()
    await answer(database, "answered", body)
    await answer(database, "answered", b"another", status=409)
    repeat = await claim(database, "answered")
    assert (repeat.answer_status, repeat.answer_body) == (201, body)


async def test_a_claim_is_free_again_after_thirty_days(database: Database) -> None:
    await claim(database, "old")
    await answer(database, "old", b"the old answer")
    assert not (await claim(database, "old", now=NOW + CLAIM_LIFE)).is_new
    later = NOW + CLAIM_LIFE + timedelta(seconds=1)
    renewed = await asyncio.gather(
        *(
            claim(database, "old", object_id=f"new {number}", now=later, request=b"new")
            for number in range(10)
        )
    )
    assert sum(one.is_new for one in renewed) == 1
    assert {(one.answer_status, one.request) for one in renewed} == {(None, b"new")}
    assert len({one.object_id for one in renewed}) == 1


async def test_an_object_is_found_by_the_claim_that_made_it(database: Database) -> None:
    await claim(database, "made", object_id="pay_made")
    await claim(
        database,
        "canceled",
        object_id="pay_made",
        command="cancel",
        request=b"cancel",
        now=NOW + timedelta(seconds=1),
    )
    async with database.begin() as work:
        found = await work.claims.find_by_object("pay_made", "shop")
        assert found is not None
        assert (found.command, found.request) == ("create", b'{"amount": 2900}')
        assert await work.claims.find_by_object("pay_made", "other") is None
        assert await work.claims.find_by_object("pay_unknown", "shop") is None
        assert await work.claims.exists_for("pay_made")
        assert not await work.claims.exists_for("pay_unknown")


async def test_keys_requests_and_answers_are_unreadable_at_rest(
    database: Database, database_urls: DatabaseUrls
) -> None:
    await claim(database, "key-with-a-name", object_id="at rest", request=b"a request")
    await answer(database, "key-with-a-name", b"an answer")
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        rows = await superuser.execute(
            "SELECT encode(key_digest, 'escape'), encode(request, 'escape'),"
            " encode(answer_body, 'escape') FROM idempotency_claims WHERE object_id = 'at rest'"
        )
        text = str(await rows.fetchone())
    for readable in ("key-with-a-name", "a request", "an answer"):
        assert readable not in text


async def test_another_key_does_not_open_them(
    database: Database, database_urls: DatabaseUrls
) -> None:
    await claim(database, "sealed")
    stranger = Database(
        database_urls.app, Cipher(EncryptionKeys(keys={"test": bytes(32)})), pool_size=1
    )
    try:
        with pytest.raises(SettingError, match=r"test does not open idempotency_claims\.request"):
            await claim(stranger, "sealed")
    finally:
        await stranger.dispose()


async def test_old_claims_are_purged(database: Database) -> None:
    long_ago = NOW - timedelta(days=400)
    await claim(database, "purged", now=long_ago)
    await claim(database, "stays", now=NOW)
    async with database.begin() as work:
        assert await work.claims.purge(long_ago + timedelta(seconds=1)) == 1
        assert await work.claims.exists_for("object of stays")
        assert not await work.claims.exists_for("object of purged")
