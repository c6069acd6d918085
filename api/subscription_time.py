"""What a subscription is now, by its own time."""

from datetime import UTC, datetime

from fastapi import Request
from temporalio.service import RPCError

from api.context import context
from billing.membership import with_access_at
from billing.payment import GatewayName
from billing.subscription import Subscription
from runtime.skipping import read_clock
from storage.subscriptions import SubscriptionRecord


async def now_of(request: Request, subscription_id: str, gateway: GatewayName) -> datetime:
    """The subscription's own time: wall time, except for one whose clock was moved."""
    if not context(request).settings.is_sandbox(gateway):
        return datetime.now(UTC)
    try:
        return (await read_clock(context(request).client, subscription_id)).now
    except RPCError:
        return datetime.now(UTC)


async def as_of_now(request: Request, record: SubscriptionRecord) -> Subscription:
    """The subscription with its access now. Nobody is asked for the time of one that owes nothing,
    whose access no time changes."""
    found = record.standing.subscription
    if record.standing.debt is None:
        return found
    now = await now_of(request, found.id, found.gateway)
    return with_access_at(record.standing, record.start.terms.schedule, now)
