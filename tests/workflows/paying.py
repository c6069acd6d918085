"""One payment's workflow for tests, on the time-skipping server, with a scripted gateway."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from billing.identifiers import make_id
from billing.messages import Command, GatewayReport, PaymentEnded, PaymentOrder
from billing.payment import GatewayName, Payment, PaymentStatus
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from tests.workflows.scripted import ScriptedActivities, order
from worker import sandboxed
from workflows import WORKFLOWS, PaymentWorkflow

COMMAND = Command(application="shop")
Handle = WorkflowHandle[PaymentWorkflow, PaymentEnded]

_numbers = itertools.count(1)


class Bench:
    """One payment under test: its client, its scripted gateway, and its workflow."""

    def __init__(self, environment: WorkflowEnvironment, script: ScriptedActivities) -> None:
        self.environment = environment
        self.script = script
        self.payment_id = make_id("pay", next(_numbers), b"\x01" * 10)

    @property
    def client(self) -> Client:
        return self.environment.client

    async def create(self, expires_in_seconds: int = 1800, **changes: bool) -> Payment:
        ordered = await self.order(expires_in_seconds)
        start = WithStartWorkflowOperation(
            PaymentWorkflow.run,
            ordered.model_copy(update=changes),
            id=self.payment_id,
            task_queue=CORE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes.at_start(ordered),
        )
        return await self.client.execute_update_with_start_workflow(
            PaymentWorkflow.create, COMMAND, start_workflow_operation=start
        )

    async def order(self, expires_in_seconds: int = 1800) -> PaymentOrder:
        now = await self.environment.get_current_time()
        return order(self.payment_id, now, expires_in_seconds)

    @property
    def handle(self) -> Handle:
        return self.client.get_workflow_handle_for(PaymentWorkflow.run, self.payment_id)

    async def report(self, event_id: str = "evt_1", **told: Any) -> None:
        report = GatewayReport(event_id=event_id, event_type="TRANSACTION.SUCCESS", **told)
        await self.handle.signal(PaymentWorkflow.gateway_reported, report)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the server's clock run, a second at a time, until the condition holds."""
        for _ in range(600):
            if condition():
                return
            await self.environment.sleep(timedelta(seconds=1))
        raise AssertionError(f"it never came to that; asked so far: {self.script.calls}")

    async def ended(self) -> PaymentStatus:
        """The final status, however long the workflow's own clock takes to get there."""
        for _ in range(600):
            description = await self.handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return (await self.handle.result()).status
            await self.environment.sleep(timedelta(minutes=1))
        raise AssertionError("the workflow never ended")


@pytest.fixture(params=[1000, 0], ids=["cached", "uncached"])
async def bench(
    environment: WorkflowEnvironment, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    script = ScriptedActivities()
    async with working(environment.client, script, request.param):
        yield Bench(environment, script)


@contextlib.asynccontextmanager
async def working(client: Client, script: ScriptedActivities, cached: int) -> AsyncIterator[None]:
    core = Worker(
        client,
        task_queue=CORE,
        workflows=WORKFLOWS,
        activities=[script.end, script.flag],
        workflow_runner=sandboxed(),
        max_cached_workflows=cached,
        max_concurrent_workflow_tasks=10,
    )
    gateway = Worker(
        client,
        task_queue=gateway_queue(GatewayName.WECHATPAY),
        activities=[
            script.open,
            script.settle,
            script.switch,
            script.close,
            script.settle_disputes,
        ],
    )
    async with core, gateway:
        yield
