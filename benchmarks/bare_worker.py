"""The worker of the bare workflows, set up as our own is: `python -m benchmarks.bare_worker`."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks.bare import (
    PLAIN_QUEUE,
    QUEUE,
    BareActivities,
    BareSpend,
    ChargeShape,
    Plain,
    RefundShape,
    RenewalShape,
    SameShape,
    bare_queue,
)
from billing.payment import GatewayName
from runtime.cipher import Cipher
from runtime.logs import configure_logs
from runtime.settings import Settings, load_settings
from runtime.temporal import connect
from worker import CACHED_WORKFLOWS, POLLERS, STICKY_RATIO, STICKY_SCHEDULE_TO_START, sandboxed

READY_FILE: Final = "BENCHMARK_READY_FILE"


def build_workers(client: Client, settings: Settings) -> list[Worker]:
    """One for the workflows, one for each gateway's queue, and one for all that is plain."""
    activities = BareActivities()
    both = [activities.open, activities.settle]
    return [
        Worker(
            client,
            task_queue=QUEUE,
            workflows=[SameShape, RefundShape, BareSpend, RenewalShape, ChargeShape],
            activities=[activities.reserve, activities.spend],
            workflow_runner=sandboxed("benchmarks"),
            workflow_task_poller_behavior=POLLERS,
            nonsticky_to_sticky_poll_ratio=STICKY_RATIO,
            sticky_queue_schedule_to_start_timeout=STICKY_SCHEDULE_TO_START,
            max_cached_workflows=CACHED_WORKFLOWS,
        ),
        *(
            Worker(
                client,
                task_queue=bare_queue(gateway),
                activities=both,
                activity_task_poller_behavior=POLLERS,
                max_task_queue_activities_per_second=settings.gateway_rate_limits.get(gateway),
            )
            for gateway in GatewayName
        ),
        Worker(
            client,
            task_queue=PLAIN_QUEUE,
            workflows=[Plain],
            activities=both,
            workflow_runner=sandboxed("benchmarks"),
            workflow_task_poller_behavior=POLLERS,
            activity_task_poller_behavior=POLLERS,
            nonsticky_to_sticky_poll_ratio=STICKY_RATIO,
            sticky_queue_schedule_to_start_timeout=STICKY_SCHEDULE_TO_START,
            max_cached_workflows=CACHED_WORKFLOWS,
        ),
    ]


async def run(settings: Settings, ready_file: Path) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await connect(Cipher(settings.encryption_keys))
    async with AsyncExitStack() as stack:
        for worker in build_workers(client, settings):
            await stack.enter_async_context(worker)
        await asyncio.to_thread(ready_file.touch)
        await stop.wait()


if __name__ == "__main__":
    loaded = load_settings()
    configure_logs("bare worker", loaded.log_level)
    asyncio.run(run(loaded, Path(os.environ[READY_FILE])))
