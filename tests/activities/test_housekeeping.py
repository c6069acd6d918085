"""Claims are deleted after 30 days, and not a day earlier."""

from datetime import UTC, datetime, timedelta

from activities.housekeeping import Housekeeping
from storage.database import Database


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
