"""The worker: `python -m worker [--role all|core|gateways]`.

`core` runs workflows, the activities that call no gateway, and the loops: webhooks, the sweep of
open payments, housekeeping;
`gateways` runs one activity worker for each configured gateway, on that gateway's own queue.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import structlog
from temporalio.client import Client
from temporalio.worker import Interceptor, PollerBehaviorSimpleMaximum, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.delivery import Delivery
from activities.discovery import DiscoveryActivities
from activities.dispute import DisputeActivities
from activities.housekeeping import Housekeeping
from activities.method import MethodActivities
from activities.payment import PaymentActivities
from activities.points import PointsActivities
from activities.preparing import PreparingActivities
from activities.refund import RefundActivities
from activities.resumption import Resumption
from activities.subscription import SubscriptionActivities
from activities.switch import SwitchActivities
from billing.catalog import load_catalog
from billing.errors import CatalogError, SettingError
from billing.payment import GatewayName
from gateways.gateway import Gateway
from gateways.registry import build_gateways
from runtime.cipher import Cipher
from runtime.ending import run_and_leave
from runtime.interceptor import ActivityInterceptor
from runtime.logs import configure_logs
from runtime.queues import CORE, gateway_queue
from runtime.settings import Settings, load_settings
from runtime.temporal import connect, warn_of_short_retention
from storage.database import Database
from workflows import WORKFLOWS

Role = Literal["all", "core", "gateways"]

GRACEFUL_SHUTDOWN: Final = timedelta(seconds=35)
STICKY_SCHEDULE_TO_START: Final = timedelta(seconds=2)

# A thousand renewals due together are two thousand workflows awake at once; what the cache cannot
# hold is replayed at each wake (docs/decisions/0013).
CACHED_WORKFLOWS: Final = 3000

# Five pollers at the default ratio leave one for new workflows, which then wait seconds for their
# first task; ten with a larger share of fresh ones keep the tail short (docs/decisions/0007).
POLLERS: Final = PollerBehaviorSimpleMaximum(maximum=10)
STICKY_RATIO: Final = 0.6

_PASSED_THROUGH: Final = (
    "activities", "billing", "gateways", "runtime", "storage", "pydantic", "pydantic_core",
    "structlog", "sqlalchemy", "httpx", "stripe", "cryptography",
)  # fmt: skip


def sandboxed(*modules: str) -> SandboxedWorkflowRunner:
    """Runs workflows in Temporal's sandbox, `modules` passed through with all that needs no watch.

    What is passed through is not loaded anew for each workflow, nor kept from clocks and chance.
    """
    restrictions = SandboxRestrictions.default
    return SandboxedWorkflowRunner(
        restrictions=restrictions.with_passthrough_modules(*_PASSED_THROUGH, *modules)
    )


# The workflow tests keep our own workflows in the sandbox (docs/decisions/0010).
WORKFLOW_RUNNER: Final = sandboxed("workflows")

log = structlog.get_logger()


def build_workers(
    client: Client,
    database: Database,
    gateways: Mapping[GatewayName, Gateway],
    settings: Settings,
    role: Role = "all",
    *,
    interceptors: Sequence[Interceptor] = (),
    max_cached_workflows: int = CACHED_WORKFLOWS,
) -> list[Worker]:
    """The workers of one role, wired and not yet running. `interceptors` act within our own.

    Raises CatalogError where the catalog cannot be read.
    """
    payments = PaymentActivities(database, gateways)
    switches = SwitchActivities(database, gateways)
    disputes = DisputeActivities(database, gateways)
    discovery = DiscoveryActivities(database, gateways)
    clawback = load_catalog(settings.catalog_file).points.clawback
    refunds = RefundActivities(database, gateways, clawback)
    points = PointsActivities(database)
    methods = MethodActivities(database, gateways)
    subscriptions = SubscriptionActivities(database)
    preparing = PreparingActivities(database, gateways)
    workers: list[Worker] = []
    if role in ("all", "core"):
        workers.append(
            Worker(
                client,
                task_queue=CORE,
                workflows=WORKFLOWS,
                activities=[
                    payments.end,
                    payments.flag,
                    refunds.reserve,
                    points.spend,
                    methods.make_default,
                    subscriptions.open,
                    subscriptions.read,
                    subscriptions.write,
                    subscriptions.give_back,
                ],
                workflow_runner=WORKFLOW_RUNNER,
                interceptors=[ActivityInterceptor(), *interceptors],
                max_cached_workflows=max_cached_workflows,
                workflow_task_poller_behavior=POLLERS,
                nonsticky_to_sticky_poll_ratio=STICKY_RATIO,
                sticky_queue_schedule_to_start_timeout=STICKY_SCHEDULE_TO_START,
                graceful_shutdown_timeout=GRACEFUL_SHUTDOWN,
            )
        )
    if role in ("all", "gateways"):
        workers += [
            Worker(
                client,
                task_queue=gateway_queue(name),
                activities=[
                    payments.open,
                    payments.settle,
                    payments.close,
                    switches.switch,
                    refunds.ask,
                    refunds.settle,
                    disputes.settle,
                    discovery.discover,
                    methods.open,
                    methods.settle,
                    methods.revoke,
                    preparing.prepare,
                ],
                interceptors=[ActivityInterceptor(), *interceptors],
                activity_task_poller_behavior=POLLERS,
                max_task_queue_activities_per_second=settings.gateway_rate_limits.get(name),
                graceful_shutdown_timeout=GRACEFUL_SHUTDOWN,
            )
            for name in gateways
        ]
    return workers


async def run(
    settings: Settings,
    role: Role = "all",
    *,
    gateways: Mapping[GatewayName, Gateway] | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> None:
    """Work until SIGTERM or SIGINT, then let what is under way finish.

    `gateways` are those the settings switch on, unless given; they are closed at the end.
    """
    cipher = Cipher(settings.encryption_keys)
    if gateways is None:
        gateways = build_gateways(settings)
    database = Database(
        settings.database_url.get_secret_value(), cipher, application_name="everbill worker"
    )
    stop = _stop_signal()
    _withdraw_readiness()
    try:
        client = await connect(cipher, identity=f"worker-{os.getpid()}")
        await warn_of_short_retention(client)
        workers = build_workers(
            client, database, gateways, settings, role, interceptors=interceptors
        )
        async with contextlib.AsyncExitStack() as stack:
            for worker in workers:
                await stack.enter_async_context(worker)
            async with asyncio.TaskGroup() as loops:
                tasks: list[asyncio.Task[None]] = []
                if role in ("all", "core"):
                    tasks += [
                        loops.create_task(Delivery(client, database).run()),
                        loops.create_task(Resumption(client, database).run()),
                        loops.create_task(Housekeeping(database).run()),
                    ]
                log.info(
                    "worker_ready", role=role, gateways=sorted(name.value for name in gateways)
                )
                _announce_ready()
                await stop.wait()
                log.info("worker_stopping", grace_seconds=GRACEFUL_SHUTDOWN.total_seconds())
                _withdraw_readiness()
                for task in tasks:
                    task.cancel()
            # Together, or each would take new work while another finishes its own.
            await asyncio.gather(*(worker.shutdown() for worker in workers))
    finally:
        for gateway in gateways.values():
            await gateway.aclose()
        await database.dispose()


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; from here on neither ends the process by itself."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _announce_ready() -> None:
    if ready_file := os.environ.get("EVERBILL_READY_FILE"):
        Path(ready_file).touch()


def _withdraw_readiness() -> None:
    if ready_file := os.environ.get("EVERBILL_READY_FILE"):
        Path(ready_file).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--role", choices=("all", "core", "gateways"), default="all")
    role: Role = parser.parse_args().role
    try:
        settings = load_settings()
        configure_logs("worker", settings.log_level)
        asyncio.run(run(settings, role))
    except (SettingError, CatalogError) as problem:
        sys.exit(f"everbill worker: {problem}")
    except RuntimeError as problem:
        sys.exit(f"everbill worker: Temporal does not answer: {problem}; see TEMPORAL_ADDRESS")


if __name__ == "__main__":
    run_and_leave(main)
