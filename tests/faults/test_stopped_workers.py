"""Workers that are off as many subscriptions fall due: each is billed once, for the right period.

All of the subscriptions are on trial, which for each ends in the same minute of wall time: their
own clocks are moved on to shortly before. Every worker is then ended by SIGKILL, and others start
when the due time is past.
"""

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import func, select

from billing.subscription import SubscriptionStatus
from cli.shop import Shop
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from storage.subscription_tables import subscription_charges, subscriptions
from tests.billing.calendar_reference import boundary
from tests.faults.keeping import KeptWorkers
from tests.fixtures.database import DatabaseUrls
from tests.fixtures.house import House, open_house

WORKERS: Final = ("core", "core", "stripe")
COUNT: Final = 500
OFF: Final = timedelta(seconds=60)
PREPARATION: Final = timedelta(seconds=100)
"""In which all of the clocks are moved on; those that come too late fail the test."""
PER_USER: Final = 20
TRIAL_DAYS: Final = 7
_TOGETHER: Final = 8
_CATCHING_UP_SECONDS: Final = 600


@dataclass(frozen=True)
class Trial:
    """A subscription, and the wall time at which its trial ends."""

    subscription: dict[str, Any]
    due_at: datetime

    @property
    def ends_at(self) -> datetime:
        return datetime.fromisoformat(self.subscription["period"]["end"])


class Crowd:
    """Many subscriptions of few users, each with one saved card."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._shop = Shop(house.api, house.sandbox.control)
        self._places = asyncio.Semaphore(_TOGETHER)

    async def sign_up(self, count: int) -> list[dict[str, Any]]:
        users = [f"crowd_{secrets.token_hex(6)}" for _ in range(-(-count // PER_USER))]
        methods = await asyncio.gather(*(self._saved(user) for user in users))
        wanted = [(users[one % len(users)], methods[one % len(users)]) for one in range(count)]
        return await asyncio.gather(*(self._on_trial(user, method) for user, method in wanted))

    async def due(self, found: dict[str, Any], at: datetime) -> Trial:
        """Move its clock on, so that its trial ends at that wall time."""
        ends_at = datetime.fromisoformat(found["period"]["end"])
        seconds = int((ends_at - at).total_seconds())
        async with self._places:
            moved = await self._shop.advance(found, seconds)
        assert moved["subscription"]["status"] == "trialing", moved
        ahead = datetime.fromisoformat(moved["now"]) - datetime.now(UTC)
        return Trial(found, ends_at - ahead)

    async def _saved(self, user_id: str) -> dict[str, Any]:
        async with self._places:
            return await self._shop.save_method(user_id, "stripe")

    async def _on_trial(self, user_id: str, method: dict[str, Any]) -> dict[str, Any]:
        async with self._places:
            found = await self._shop.subscribe(
                user_id=user_id,
                tier="BASIC",
                cycle="monthly",
                currency="USD",
                gateway="stripe",
                payment_method_id=method["id"],
                trial_days=TRIAL_DAYS,
            )
            return await self._shop.until_subscription(
                found["id"], lambda now: now["status"] == "trialing"
            )

    async def renewed(self) -> int:
        async with self._house.database.single() as work:
            count = await work.connection.scalar(
                select(func.count())
                .select_from(subscriptions)
                .where(subscriptions.c.status == SubscriptionStatus.ACTIVE.value)
            )
        return int(count or 0)

    async def count(self, trials: list[Trial]) -> tuple[int, int]:
        """Those billed more than once for the period after their trial, and those not billed."""
        async with self._house.database.single() as work:
            rows = (await work.connection.execute(select(subscription_charges))).mappings().all()
        taken = await self._house.sandbox.charges()
        times = {trial.subscription["id"]: 0 for trial in trials}
        for row in rows:
            assert (row["status"], row["period_number"]) == ("paid", 1)
            of_it = [one for one in taken if one["reference"] == row["payment_id"]]
            assert {one["amount"] for one in of_it} <= {row["amount_minor"]}
            times[row["subscription_id"]] += len(of_it)
        assert sum(times.values()) == len(taken)
        more = [one for one in times.values() if one > 1]
        return len(more), list(times.values()).count(0)

    async def holds(self, trial: Trial) -> None:
        """It stands in the first period after its trial, which has not moved."""
        async with self._places, self._house.database.single() as work:
            record = await work.subscriptions.find(trial.subscription["id"])
        assert record is not None
        found, anchor = record.standing.subscription, record.standing.subscription.schedule.anchor
        assert (found.status, found.period.number) == (SubscriptionStatus.ACTIVE, 1)
        assert found.period.start == trial.ends_at == boundary(anchor.local, anchor.zone, 0)
        assert found.period.end == boundary(anchor.local, anchor.zone, 1)
        assert found.paid is not None
        assert (found.paid.amount, found.paid.start) == (found.plan.amount, trial.ends_at)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_due_while_no_worker_is_there(
    postgres_server: PostgresServer,
    temporal_server: TemporalServer,
    template_urls: DatabaseUrls,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:
    async with (
        open_house(postgres_server, temporal_server, template_urls, "stopped") as house,
        contextlib.AsyncExitStack() as stack,
    ):
        crowd = Crowd(house)
        first = KeptWorkers(tmp_path_factory.mktemp("first"), WORKERS, house.environment)
        stack.push_async_callback(first.stop)
        await first.start()
        signed = await crowd.sign_up(COUNT)
        due_at = datetime.now(UTC) + PREPARATION
        trials = await asyncio.gather(*(crowd.due(one, due_at) for one in signed))
        await _until(due_at - OFF / 4)
        instants = [trial.due_at for trial in trials]
        assert max(instants) - min(instants) < timedelta(minutes=1)
        killed = await first.kill_all()
        off_at = datetime.now(UTC)
        assert len(killed) == len(WORKERS)
        await _until(off_at + OFF)
        assert off_at < min(instants) <= max(instants) < datetime.now(UTC)
        assert await house.sandbox.charges() == [], "billed before it was due"
        second = KeptWorkers(tmp_path_factory.mktemp("second"), WORKERS, house.environment)
        stack.push_async_callback(second.stop)
        await second.start()
        started_at = datetime.now(UTC)
        async with asyncio.timeout(_CATCHING_UP_SECONDS):
            while await crowd.renewed() < COUNT:
                await asyncio.sleep(0.5)
        behind = datetime.now(UTC) - started_at
        more, none = await crowd.count(trials)
        await asyncio.gather(*(crowd.holds(trial) for trial in trials))
        await house.check_promises()
    request.config.get_terminal_writer().line(
        f"\n{COUNT} due while workers were off: {more} billed twice, {none} not billed;"
        f" the last {behind.total_seconds():.0f} s after the workers were back"
    )
    assert (more, none) == (0, 0)


async def _until(at: datetime) -> None:
    await asyncio.sleep(max((at - datetime.now(UTC)).total_seconds(), 0))
