"""One subscription on the time-skipping server, upon a scripted record and scripted gateways."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from billing.identifiers import SUBSCRIPTION, make_id
from billing.messages import Command
from billing.payment import GatewayName
from billing.subscription import SubscriptionStatus
from billing.subscription_messages import (
    CancelSubscription,
    SubscriptionAnswer,
    SubscriptionOver,
    SubscriptionStart,
)
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from tests.workflows.scripted_subscription import (
    ScriptedSubscription,
    subscription_start,
)
from worker import sandboxed
from workflows import WORKFLOWS, SubscriptionWorkflow

COMMAND = Command(application="shop")
NOW = CancelSubscription(at_period_end=False)
_numbers = itertools.count(1)


class Bench:
    """One subscription under test: its client, its scripted record, and its workflow."""

    def __init__(self, environment: WorkflowEnvironment, script: ScriptedSubscription) -> None:
        self.environment = environment
        self.script = script
        self.subscription_id = make_id(SUBSCRIPTION, next(_numbers), b"\x01" * 10)

    @property
    def client(self) -> Client:
        return self.environment.client

    @property
    def handle(self) -> WorkflowHandle[SubscriptionWorkflow, SubscriptionOver]:
        return self.client.get_workflow_handle_for(SubscriptionWorkflow.run, self.subscription_id)

    async def start(self, **wanted: Any) -> SubscriptionStart:
        now = await self.environment.get_current_time()
        return subscription_start(self.subscription_id, now, **wanted)

    async def sign_up(self, **wanted: Any) -> SubscriptionAnswer:
        return await self.begin(await self.start(**wanted))

    async def begin(self, start: SubscriptionStart) -> SubscriptionAnswer:
        operation = WithStartWorkflowOperation(
            SubscriptionWorkflow.run,
            start,
            id=self.subscription_id,
            task_queue=CORE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes.at_subscription_start(start.order),
        )
        return await self.client.execute_update_with_start_workflow(
            SubscriptionWorkflow.create, COMMAND, start_workflow_operation=operation
        )

    async def until(self, name: str, count: int = 1, *, most: timedelta | None = None) -> None:
        """Let the server's clock run until the event was written so many times."""
        passed, step = timedelta(), timedelta(seconds=30)
        while self.script.names.count(name) < count:
            assert passed < (most or timedelta(days=800)), (name, self.script.names)
            await self.environment.sleep(step)
            passed += step
            step = min(step * 2, timedelta(days=1))

    async def ended(self) -> SubscriptionStatus:
        """How it has ended, however long its own clock takes to get there."""
        for _ in range(800):
            description = await self.handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return (await self.handle.result()).status
            await self.environment.sleep(timedelta(hours=2))
        raise AssertionError(f"the workflow never ended: {self.script.names}")

    @property
    def status(self) -> SubscriptionStatus:
        return self.script.known.subscription.status


@asynccontextmanager
async def open_bench(
    environment: WorkflowEnvironment,
    script: ScriptedSubscription | None = None,
    workflows: list[type] = WORKFLOWS,
) -> AsyncIterator[Bench]:
    """Workers for it, and at the end its history replayed by the workflows as they are."""
    script = script or ScriptedSubscription()
    made = Bench(environment, script)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                environment.client,
                task_queue=CORE,
                workflows=workflows,
                activities=script.core_activities,
                workflow_runner=sandboxed(),
            )
        )
        for gateway in GatewayName:
            await stack.enter_async_context(
                Worker(
                    environment.client,
                    task_queue=gateway_queue(gateway),
                    activities=script.gateway_activities,
                )
            )
        yield made
        replayer = Replayer(
            workflows=WORKFLOWS,
            workflow_runner=sandboxed(),
            data_converter=environment.client.data_converter,
        )
        await replayer.replay_workflow(await made.handle.fetch_history())


async def refused(bench: Bench, update: Any, command: Any) -> str | None:
    before = bench.script.known.version
    with pytest.raises(WorkflowUpdateFailedError) as problem:
        await bench.handle.execute_update(update, command)
    assert bench.script.known.version == before
    assert isinstance(problem.value.cause, ApplicationError)
    return problem.value.cause.type
