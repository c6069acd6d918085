"""Claims are deleted after 30 days, points written off as they expire, and not a day earlier;
totals are brought up to date."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from activities import housekeeping
from activities.housekeeping import Housekeeping
from storage import stats
from storage.database import Database
from storage.stats_tables import stats_changes
from tests.storage.points_samples import buy, look, make_user
from tests.storage.samples import NOW, take


async def test_only_old_claims_are_purged(database: Database) -> None:
    now = datetime.now(UTC)
    for key, age in (("old", timedelta(days=31)), ("young", timedelta(days=29))):
        async with database.begin() as work:
            await work.claims.claim(
                application="shop",
                key=key,
                fingerprint="f",
                command="create",
                object_id=f"object_{key}",
                request=b"{}",
                now=now - age,
            )
    assert await Housekeeping(database).tidy() == 1
    async with database.begin() as work:
        assert await work.claims.exists_for("object_young")
        assert not await work.claims.exists_for("object_old")


async def test_totals_are_brought_up_to_date_a_little_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "FOLDED_AT_ONCE", 2)
    for _ in range(3):
        await take(database)
    await Housekeeping(database).add_up()
    async with database.begin() as work:
        left = await work.connection.scalar(select(func.count()).select_from(stats_changes))
        totals = await work.stats.read("shop", NOW.date(), NOW.date())
    assert left == 0
    assert [one.taken.count for one in totals.currencies] == [3]


async def test_only_expired_points_are_written_off(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "USERS_AT_ONCE", 2)
    bought = datetime.now(UTC) - timedelta(days=2)
    users = [make_user() for _ in range(5)]
    for user in users:
        await buy(database, user, 10, 2, days=1, now=bought)
    late = make_user()
    await buy(database, late, 10, days=3, now=bought)
    assert await Housekeeping(database).expire_points() == 10
    assert await Housekeeping(database).expire_points() == 0
    assert [(await look(database, user)).balance for user in users] == [0] * 5
    assert (await look(database, late)).balance == 10
