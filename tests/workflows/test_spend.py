"""What the workflow of a spend makes of the record's answer, whenever it is asked for."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from temporalio import activity
from temporalio.client import (
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from billing.errors import InsufficientPoints
from billing.identifiers import POINTS_TRANSACTION, make_id
from billing.messages import Command, SpendEnded, SpendPoints, SpendRequest
from billing.points import PointsMovement, PointsTransaction
from runtime import attributes
from runtime.queues import CORE
from worker import sandboxed
from workflows import WORKFLOWS, PointsSpendWorkflow

COMMAND = Command(application="shop")
_numbers = itertools.count(1)


class Script:
    """The record: `refuses`, or is `silent` for so many tries; `asked` has every one of them."""

    def __init__(self) -> None:
        self.refuses = False
        self.silent = 0
        self.asked: list[SpendPoints] = []

    @activity.defn(name="points.spend")
    async def spend(self, request: SpendPoints) -> PointsTransaction:
        self.asked.append(request)
        if self.silent:
            self.silent -= 1
            raise RuntimeError("no answer")
        if self.refuses:
            raise ApplicationError(
                "3 points can be spent", type=InsufficientPoints.code, non_retryable=True
            )
        return PointsTransaction(
            id=request.request.transaction_id,
            user_id=request.request.user_id,
            kind=PointsMovement.SPEND,
            amount=-request.request.points,
            balance_after=0,
            payment_id=None,
            refund_id=None,
            description=request.request.reason,
            created_at=request.now,
        )


class Counter:
    """One spend under test."""

    def __init__(self, environment: WorkflowEnvironment, script: Script) -> None:
        self.client = environment.client
        self.script = script
        self.id = make_id(POINTS_TRANSACTION, next(_numbers), b"\x01" * 10)

    async def spend(self) -> PointsTransaction:
        request = SpendRequest(
            transaction_id=self.id,
            application="shop",
            user_id="user_1",
            points=30,
            reason="a hint",
            created_at=datetime.now(UTC),
        )
        start = WithStartWorkflowOperation(
            PointsSpendWorkflow.run,
            request,
            id=self.id,
            task_queue=CORE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes.at_spend_start(request),
        )
        return await self.client.execute_update_with_start_workflow(
            PointsSpendWorkflow.create, COMMAND, start_workflow_operation=start
        )

    async def ended(self) -> SpendEnded:
        return await self.client.get_workflow_handle_for(PointsSpendWorkflow.run, self.id).result()


@pytest.fixture(params=[1000, 0], ids=["cached", "uncached"])
async def counter(
    environment: WorkflowEnvironment, request: pytest.FixtureRequest
) -> AsyncIterator[Counter]:
    script = Script()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                environment.client,
                task_queue=CORE,
                workflows=WORKFLOWS,
                activities=[script.spend],
                workflow_runner=sandboxed(),
                max_cached_workflows=request.param,
                max_concurrent_workflow_tasks=10,
            )
        )
        yield Counter(environment, script)


async def test_the_answer_is_the_movement_and_the_end(counter: Counter) -> None:
    spent = await counter.spend()
    assert (spent.id, spent.amount, spent.description) == (counter.id, -30, "a hint")
    ended = await counter.ended()
    assert (ended.transaction, ended.refusal_code) == (spent, None)
    assert len(counter.script.asked) == 1


async def test_a_refusal_is_an_answer_and_leaves_nothing_behind(counter: Counter) -> None:
    counter.script.refuses = True
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await counter.spend()
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == InsufficientPoints.code
    ended = await counter.ended()
    assert ended.transaction is None
    assert (ended.refusal_code, ended.refusal) == (
        InsufficientPoints.code,
        "3 points can be spent",
    )
    assert len(counter.script.asked) == 1
    handle = counter.client.get_workflow_handle(counter.id)
    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_a_record_out_of_reach_is_asked_until_it_answers(counter: Counter) -> None:
    counter.script.silent = 3
    spent = await counter.spend()
    assert len(counter.script.asked) == 4
    # Every try is the same movement at the same moment, whenever it is made.
    assert len({each.model_dump_json() for each in counter.script.asked}) == 1
    assert spent.created_at == counter.script.asked[0].now


async def test_the_users_name_finds_it(counter: Counter) -> None:
    await counter.spend()
    handle = counter.client.get_workflow_handle(counter.id)
    description = await handle.describe()
    assert description.typed_search_attributes[attributes.CUSTOMER_ID] == "user_1"
