"""`everbill keys`, as an operator types it."""

import asyncio
import base64
import secrets

import pytest
from typer.testing import CliRunner, Result

from cli.__main__ import app
from storage.database import Database
from storage.keys import KeyRecord, Scope
from tests.fixtures.database import DatabaseUrls

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def environment(database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_urls.app)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    monkeypatch.setenv("EVERBILL_ENCRYPTION_KEYS", f"a:{key}")
    monkeypatch.setenv("COLUMNS", "200")


async def everbill(*arguments: str) -> Result:
    """The command runs an event loop of its own, so not in this one."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["keys", *arguments])


async def find(database: Database, secret: str) -> KeyRecord | None:
    async with database.begin() as work:
        return await work.keys.find(secret)


async def test_a_new_key_is_printed_once_and_works(database: Database) -> None:
    result = await everbill("create", "shop", "--scope", "read", "--scope", "operate")
    assert result.exit_code == 0, result.output
    secret = result.stdout.strip()
    key = await find(database, secret)
    assert key is not None
    assert (key.application, key.scopes) == ("shop", frozenset({Scope.READ, Scope.OPERATE}))
    assert key.id in result.stderr
    listed = await everbill("list")
    assert key.id in listed.stdout
    assert secret not in listed.stdout


async def test_a_key_may_read_and_write_unless_told_otherwise(database: Database) -> None:
    key = await find(database, (await everbill("create", "shop")).stdout.strip())
    assert key is not None
    assert key.scopes == {Scope.READ, Scope.WRITE}


async def test_rotation_ends_the_old_key_and_keeps_its_rights(database: Database) -> None:
    old = (await everbill("create", "shop", "--name", "till", "--scope", "refund")).stdout.strip()
    before = await find(database, old)
    assert before is not None
    new = (await everbill("rotate", before.id)).stdout.strip()
    assert await find(database, old) is None
    after = await find(database, new)
    assert after is not None
    assert (after.application, after.name, after.scopes) == (
        "shop",
        "till",
        frozenset({Scope.REFUND}),
    )


async def test_a_revoked_key_ends_and_stays_on_the_list(database: Database) -> None:
    secret = (await everbill("create", "shop")).stdout.strip()
    key = await find(database, secret)
    assert key is not None
    assert (await everbill("revoke", key.id)).exit_code == 0
    assert await find(database, secret) is None
    assert key.id in (await everbill("list", "--application", "shop")).stdout
    assert key.id not in (await everbill("list", "--application", "other")).stdout


async def test_the_list_shows_whole_ids_however_narrow_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what `rotate` and `revoke` ask for."""
    monkeypatch.setenv("COLUMNS", "80")
    secret = (await everbill("create", "a-shop-of-some-length", "--scope", "read")).stdout.strip()
    key = await find(database, secret)
    assert key is not None
    listed = (await everbill("list")).stdout
    assert key.id in listed
    assert "a-shop-of-some-length" in listed


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
async def test_a_key_that_is_none_is_named(verb: str) -> None:
    result = await everbill(verb, "key_unknown")
    assert result.exit_code == 1
    assert "key_unknown is no key in force" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("application", ["", "a b", "-a", "a" * 65])
async def test_an_application_has_a_plain_name(application: str) -> None:
    result = await everbill("create", "--", application)
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none", "DATABASE_URL"),
        ("DATABASE_URL", "mysql://nobody@127.0.0.1:1/none", "expected postgresql://"),
        ("EVERBILL_ENCRYPTION_KEYS", "", "EVERBILL_ENCRYPTION_KEYS is not set"),
    ],
)
async def test_what_is_wrong_with_the_settings_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    result = await everbill("list")
    assert result.exit_code == 1
    assert told in result.stderr
