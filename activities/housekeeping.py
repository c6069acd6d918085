"""What is kept for a time only: gone when that time is over, a little at a time."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog

from storage.claims import CLAIM_LIFE, PURGED_AT_ONCE
from storage.database import Database

INTERVAL_SECONDS: Final = 3600.0
USERS_AT_ONCE: Final = 100

log = structlog.get_logger()


class Housekeeping:
    """Idempotency claims live 30 days; a later repeat of such a key is a new request. Points that
    have expired can no longer be spent, and are then written off here."""

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

    async def run(self) -> None:
        """Tidy now and every hour, until cancelled."""
        while True:
            try:
                purged = await self.tidy()
                if purged:
                    log.info("claims_purged", claims=purged)
                expired = await self.expire_points()
                if expired:
                    log.info("points_expired", lots=expired)
            except Exception:
                log.exception("housekeeping_failed")
            await asyncio.sleep(INTERVAL_SECONDS)
