"""What the workflow of a spend has done: one transaction, under an id that never changes."""

from typing import Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from billing.errors import IdempotencyKeyReused, InsufficientPoints, InvalidRequest
from billing.messages import SpendPoints
from billing.points import PointsTransaction
from storage.database import Database
from storage.points import User

SPEND_REFUSALS: Final = (InsufficientPoints, InvalidRequest, IdempotencyKeyReused)
"""What a spend comes to when it cannot be: nothing was changed."""


class PointsActivities:
    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name="points.spend")
    async def spend(self, request: SpendPoints) -> PointsTransaction:
        """Spend once: a repeat answers with what stands. Raises ApplicationError of the refusal's
        own type, not to be repeated."""
        wanted = request.request
        try:
            async with self._database.begin() as work:
                return await work.points.spend(
                    User(wanted.application, wanted.user_id),
                    wanted.transaction_id,
                    wanted.points,
                    wanted.reason,
                    request.now,
                )
        except SPEND_REFUSALS as refusal:
            raise ApplicationError(
                refusal.detail, refusal.param, type=refusal.code, non_retryable=True
            ) from refusal
