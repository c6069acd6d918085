"""Events: a reader that follows its cursor sees every one once, whenever it was committed."""

import asyncio
from itertools import count, pairwise

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from billing.errors import InvalidRequest
from storage import events as module
from storage.database import Database
from storage.events import EventPage
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW

_numbers = count(1)


async def append(database: Database, application: str, object_id: str | None = None) -> str:
    object_id = object_id or f"object-{next(_numbers)}"
    async with database.begin() as work:
        await work.events.append(object_id, application, "thing.happened", {"n": 1}, NOW)
    return object_id


async def read(
    database: Database, application: str, cursor: str | None = None, limit: int = 100
) -> EventPage:
    async with database.begin() as work:
        return await work.events.after(application=application, cursor=cursor, limit=limit)


def objects(page: EventPage) -> list[str]:
    return [event.object_id for event in page.data]


async def test_an_event_is_read_as_it_was_written(database: Database) -> None:
    object_id = await append(database, "one")
    (event,) = (await read(database, "one")).data
    assert (event.object_id, event.sequence, event.type) == (object_id, 1, "thing.happened")
    assert (event.data, event.created_at) == ({"n": 1}, NOW)
    assert event.id.startswith("evt_")
    assert len(event.id) == 30


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 100])
async def test_pages_show_each_event_once_in_order(database: Database, limit: int) -> None:
    application = f"pages-{limit}"
    expected = [await append(database, application) for _ in range(5)]
    seen: list[str] = []
    page = await read(database, application, None, limit)
    while page.data:
        seen += objects(page)
        assert page.next_cursor == page.data[-1].cursor
        assert page.has_more is (len(seen) < len(expected))
        page = await read(database, application, page.next_cursor, limit)
    assert seen == expected


async def test_the_end_keeps_its_cursor(database: Database) -> None:
    assert await read(database, "nothing") == EventPage([], has_more=False, next_cursor=None)
    await append(database, "end")
    first = await read(database, "end")
    assert await read(database, "end", first.next_cursor) == EventPage(
        [], has_more=False, next_cursor=first.next_cursor
    )
    later = await append(database, "end")
    assert objects(await read(database, "end", first.next_cursor)) == [later]


async def test_applications_see_their_own(database: Database) -> None:
    mine = await append(database, "mine")
    await append(database, "yours")
    assert objects(await read(database, "mine")) == [mine]


async def test_what_commits_late_is_not_skipped(database: Database) -> None:
    """A slow transaction writes first and commits last; the reader is past its neighbours."""
    async with database.begin() as slow:
        await slow.events.append("slow", "late", "thing.happened", {}, NOW)
        quick = [await append(database, "late") for _ in range(3)]
        page = await read(database, "late")
        assert objects(page) == quick
    assert objects(await read(database, "late", page.next_cursor)) == ["slow"]
    assert objects(await read(database, "late")) == [*quick, "slow"]


async def test_an_older_transaction_that_writes_later_is_not_skipped(database: Database) -> None:
    """Order by transaction or by position alone loses one of these two."""
    async with database.begin() as older, database.begin() as younger:
        await older.events.append("a", "crossed", "thing.happened", {}, NOW)
        await younger.events.append("b", "crossed", "thing.happened", {}, NOW)
        await older.events.append("c", "crossed", "thing.happened", {}, NOW)
        third = await append(database, "crossed")
        page = await read(database, "crossed")
        assert objects(page) == [third]
    assert set(objects(await read(database, "crossed", page.next_cursor))) == {"a", "b", "c"}


async def test_what_is_rolled_back_never_happened(database: Database) -> None:
    async def append_and_fail() -> None:
        async with database.begin() as work:
            await work.events.append("undone", "rolled-back", "thing.happened", {}, NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await append_and_fail()
    kept = await append(database, "rolled-back")
    assert objects(await read(database, "rolled-back")) == [kept]


async def test_readers_and_writers_together_lose_and_repeat_nothing(database: Database) -> None:
    writing = True

    async def write(writer: int) -> list[str]:
        written = []
        for number in range(15):
            object_id = f"w{writer}-{number}"
            async with database.begin() as work:
                await work.events.append(object_id, "busy", "thing.happened", {}, NOW)
                await asyncio.sleep((writer * number) % 4 / 1000)
            written.append(object_id)
        return written

    async def follow() -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            is_last = not writing
            page = await read(database, "busy", cursor, 7)
            seen += objects(page)
            cursor = page.next_cursor
            if is_last and not page.has_more:
                return seen

    followers = [asyncio.create_task(follow()) for _ in range(3)]
    written = await asyncio.gather(*(write(writer) for writer in range(5)))
    writing = False
    seen = await asyncio.gather(*followers)
    assert sorted(seen[0]) == sorted(object_id for each in written for object_id in each)
    assert seen[0] == seen[1] == seen[2]
    for each in written:
        places = [seen[0].index(object_id) for object_id in each]
        assert all(earlier < later for earlier, later in pairwise(places))


async def test_a_long_silence_is_caught_up_in_several_goes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACED_AT_ONCE", 4)
    expected = [await append(database, "backlog") for _ in range(10)]
    first = await read(database, "backlog")
    assert objects(first) == expected[:4]
    assert first.has_more
    second = await read(database, "backlog", first.next_cursor)
    third = await read(database, "backlog", second.next_cursor)
    assert objects(second) + objects(third) == expected[4:]
    assert not third.has_more


async def test_cursors_and_order_outlive_a_restore_elsewhere(
    database: Database, database_urls: DatabaseUrls
) -> None:
    """A restored row is written by another transaction, with another id; nothing hangs on it."""
    before = [await append(database, "restored") for _ in range(3)]
    page = await read(database, "restored", limit=2)
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        await superuser.execute("CREATE TEMP TABLE dump AS SELECT * FROM events")
        await superuser.execute("DELETE FROM events")
        await superuser.execute(
            "INSERT INTO events OVERRIDING SYSTEM VALUE SELECT * FROM dump ORDER BY position DESC"
        )
    after = await append(database, "restored")
    assert objects(await read(database, "restored", page.next_cursor)) == [before[2], after]
    assert objects(await read(database, "restored")) == [*before, after]


async def test_an_objects_numbers_are_never_given_twice(database: Database) -> None:
    """Without the lock that callers hold, one fails rather than both succeed."""
    async with database.begin() as work:
        await work.events.append("unlocked", "numbers", "thing.happened", {}, NOW)
        other = asyncio.create_task(append(database, "numbers", "unlocked"))
        await asyncio.sleep(0.2)
    with pytest.raises(IntegrityError, match="events_object_id_sequence_key"):
        await other
    await append(database, "numbers", "unlocked")
    page = await read(database, "numbers")
    assert [event.sequence for event in page.data] == [1, 2]


@pytest.mark.parametrize("cursor", ["", "1", "p", "p-1", "p1.5", "p１", f"p{2**63}", "p1 OR 1=1"])
async def test_a_foreign_cursor_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as problem:
        await read(database, "shop", cursor)
    assert problem.value.param == "after"
