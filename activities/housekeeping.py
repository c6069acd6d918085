"""What is done a little at a time: deleting what is kept for a time only, adding up, and telling
of saved methods that will expire."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from storage.claims import CLAIM_LIFE, PURGED_AT_ONCE
from storage.database import Database

INTERVAL_SECONDS: Final = 60.0
USERS_AT_ONCE: Final = 100
METHODS_AT_ONCE: Final = 100
TOLD_AHEAD: Final = timedelta(days=30)
"""How long before a saved method expires its application is told."""

log = structlog.get_logger()


class Housekeeping:
    """Idempotency claims live 30 days; a later repeat of such a key is a new request. Points that
    have expired can no longer be spent, and are then written off here. Totals are brought up to
    date by whoever asks for them as well, who then finds little to do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tidy(self) -> int:
        """Delete what is over; how many claims that were."""
        purged, before = 0, datetime.now(UTC) - CLAIM_LIFE
        while True:
            async with self._database.begin() as work:
                batch = await work.claims.purge(before)
            purged += batch
            if batch < PURGED_AT_ONCE:
                return purged

    async def add_up(self) -> None:
        """Bring the daily totals up to date."""
        is_done = False
        while not is_done:
            async with self._database.begin() as work:
                is_done = await work.stats.fold()

    async def expire_points(self) -> int:
        """Write off what has expired, a transaction for each user; how many lots that were."""
        expired, now = 0, datetime.now(UTC)
        while True:
            async with self._database.single() as work:
                users = await work.points.due(now, USERS_AT_ONCE)
            for user in users:
                async with self._database.begin() as work:
                    expired += len(await work.points.expire(user, now))
            if len(users) < USERS_AT_ONCE:
                return expired

    async def tell_expiries(self) -> int:
        """An event for each saved method that expires soon; how many."""
        told, now = 0, datetime.now(UTC)
        while True:
            async with self._database.single() as work:
                expiring = await work.methods.expiring(now + TOLD_AHEAD, METHODS_AT_ONCE)
            for method_id in expiring:
                async with self._database.begin() as work:
                    await work.methods.tell_expiry(method_id, now)
            told += len(expiring)
            if len(expiring) < METHODS_AT_ONCE:
                return told

    async def run(self) -> None:
        """Tidy and add up now and every minute, until cancelled."""
        while True:
            try:
                purged = await self.tidy()
                if purged:
                    log.info("claims_purged", claims=purged)
                await self.add_up()
                expired = await self.expire_points()
                if expired:
                    log.info("points_expired", lots=expired)
                told = await self.tell_expiries()
                if told:
                    log.info("expiries_told", methods=told)
            except Exception:
                log.exception("housekeeping_failed")
            await asyncio.sleep(INTERVAL_SECONDS)
