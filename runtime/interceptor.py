"""What every activity does besides its own work: beat, and put its ids into the logs."""

import asyncio
import contextlib
from typing import Any, Final

import structlog
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

HEARTBEAT_INTERVAL_SECONDS: Final = 1.0


class ActivityInterceptor(Interceptor):
    """Heartbeats tell the server within seconds, not a full time-out, that a worker is gone.

    The first one comes after an interval: most activities are over by then, and each beat is a
    write of the server's.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Beating(next)


class _Beating(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        beating = asyncio.create_task(_beat())
        try:
            with structlog.contextvars.bound_contextvars(
                workflow_id=info.workflow_id,
                payment_id=(info.workflow_id or "").partition("/")[0],
                activity=info.activity_type,
                activity_try=info.attempt,
            ):
                return await super().execute_activity(input)
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating


async def _beat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)
        activity.heartbeat()
