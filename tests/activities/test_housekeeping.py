"""Claims are deleted after 30 days, points written off as they expire, and not a day earlier;
totals are brought up to date."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from activities import housekeeping
from activities.housekeeping import Housekeeping
from billing.method import CardFace
from storage import stats
from storage.database import Database
from storage.stats_tables import stats_changes
from storage.tables import events
from tests.storage.method_samples import CARD, activate, make_method
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


def card_until(day: datetime) -> CardFace:
    """One that its holder may use until the end of that month."""
    return CARD.model_copy(update={"expires_month": day.month, "expires_year": day.year})


async def test_a_method_that_expires_soon_is_told_of_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "METHODS_AT_ONCE", 2)
    now = datetime.now(UTC)
    kept = Housekeeping(database)
    await kept.tell_expiries()
    last_month, far = now.replace(day=1) - timedelta(days=1), now + timedelta(days=400)
    cases = (
        ({"card": card_until(last_month)}, 1),
        ({"card": card_until(far)}, 0),
        ({"card": None, "ends_at": now + timedelta(days=29)}, 1),
        ({"card": None, "ends_at": now + timedelta(days=31)}, 0),
        ({"card": None}, 0),
    )
    orders = []
    for changed, _ in cases:
        order = make_method()
        async with database.begin() as work:
            await work.methods.insert(order, NOW)
        await activate(database, order, **changed)
        orders.append(order.method_id)
    assert (await kept.tell_expiries(), await kept.tell_expiries()) == (2, 0)
    assert [await told_of(database, one) for one in orders] == [times for _, times in cases]

    replaced = card_until(last_month - timedelta(days=40))
    async with database.begin() as work:
        await work.methods.renew(
            orders[0], reference=None, card=replaced, most_minor=None, ends_at=None, now=now
        )
    assert await kept.tell_expiries() == 1


async def told_of(database: Database, method_id: str) -> int:
    async with database.single() as work:
        rows = await work.connection.execute(
            select(events.c.data).where(
                events.c.object_id == method_id, events.c.type == "method.expiring"
            )
        )
    return len([data for data in rows.scalars() if data["expires_at"]])
