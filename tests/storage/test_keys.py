"""API keys: shown once, kept as hashes, ended for good."""

import psycopg
import pytest

from storage.database import Database
from storage.keys import SECRET_PREFIX, Scope
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW


async def test_a_key_is_found_by_its_secret(database: Database) -> None:
    async with database.begin() as work:
        key, secret = await work.keys.create("shop", "web", [Scope.WRITE, Scope.READ], NOW)
    assert secret.startswith(SECRET_PREFIX)
    assert len(secret) >= 40
    async with database.begin() as work:
        assert await work.keys.find(secret) == key
        assert await work.keys.find(secret[:-1]) is None
        assert await work.keys.find("") is None
    assert (key.application, key.name) == ("shop", "web")
    assert key.scopes == {Scope.READ, Scope.WRITE}
    assert secret.endswith(key.last_four)


async def test_an_unknown_scope_is_refused(database: Database) -> None:
    async with database.begin() as work:
        with pytest.raises(ValueError, match="admin"):
            await work.keys.create("shop", "web", ["admin"], NOW)


async def test_rotating_replaces_the_key_at_once(database: Database) -> None:
    async with database.begin() as work:
        old, old_secret = await work.keys.create("shop", "till", [Scope.OPERATE], NOW)
        rotated = await work.keys.rotate(old.id, NOW)
    assert rotated is not None
    new, new_secret = rotated
    async with database.begin() as work:
        assert await work.keys.find(old_secret) is None
        assert await work.keys.find(new_secret) == new
        assert await work.keys.rotate(old.id, NOW) is None
    assert (new.application, new.name) == ("shop", "till")
    assert new.scopes == {Scope.OPERATE}
    assert new.id != old.id


async def test_a_revoked_key_ends_and_stays_listed(database: Database) -> None:
    async with database.begin() as work:
        key, secret = await work.keys.create("listed", "web", [Scope.READ], NOW)
        other, _ = await work.keys.create("listed", "app", [Scope.READ], NOW)
        revoked = await work.keys.revoke(key.id, NOW)
        assert revoked is not None
        assert revoked.revoked_at == NOW
        assert await work.keys.revoke(key.id, NOW) is None
        assert await work.keys.revoke("key_unknown", NOW) is None
        assert await work.keys.find(secret) is None
        assert {one.id for one in await work.keys.list("listed")} == {key.id, other.id}
        assert {key.id, other.id} <= {one.id for one in await work.keys.list()}


async def test_the_secret_is_not_kept(database: Database, database_urls: DatabaseUrls) -> None:
    async with database.begin() as work:
        _, secret = await work.keys.create("shop", "web", [Scope.READ], NOW)
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        rows = await superuser.execute("SELECT api_keys::text FROM api_keys")
        assert secret.removeprefix(SECRET_PREFIX) not in str(await rows.fetchall())
