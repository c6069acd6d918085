"""The decisions of a saved method's workflows, on the time-skipping server."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
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
from temporalio.worker import Worker

from billing.identifiers import METHOD, after_workflow_id, make_id
from billing.messages import Command, GatewayReport
from billing.method import MethodStatus, SavedMethod
from billing.method_messages import DeleteMethod, MethodAfterInput, MethodEnded, MethodOrder
from billing.payment import GatewayName
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from tests.workflows.scripted_method import (
    IN_USE,
    REFUSAL,
    REFUSED,
    SIGN_HERE,
    ScriptedMethodActivities,
    method_order,
)
from worker import sandboxed
from workflows import WORKFLOWS, MethodAfterWorkflow, MethodSetupWorkflow, policies

COMMAND = Command(application="shop")
DELETION = DeleteMethod(application="shop")
_numbers = itertools.count(1)


def a_report(event_id: str = "evt_1") -> GatewayReport:
    return GatewayReport(event_id=event_id, event_type="setup_intent.succeeded")


class Bench:
    """One method under test: its client, its scripted gateway, and its workflows."""

    def __init__(self, environment: WorkflowEnvironment, script: ScriptedMethodActivities) -> None:
        self.environment = environment
        self.script = script
        self.method_id = script.method_id = make_id(METHOD, next(_numbers), b"\x01" * 10)

    @property
    def client(self) -> Client:
        return self.environment.client

    @property
    def handle(self) -> WorkflowHandle[MethodSetupWorkflow, MethodEnded]:
        return self.client.get_workflow_handle_for(MethodSetupWorkflow.run, self.method_id)

    @property
    def after(self) -> WorkflowHandle[MethodAfterWorkflow, MethodEnded]:
        return self.client.get_workflow_handle_for(
            MethodAfterWorkflow.run, after_workflow_id(self.method_id)
        )

    async def order(self) -> MethodOrder:
        return method_order(self.method_id, await self.environment.get_current_time())

    async def create(self, *, time_left: timedelta = policies.METHOD_SETUP_LIFE) -> SavedMethod:
        """`time_left` is that of its set-up: one that is repeated may have begun long ago."""
        order = await self.order()
        begun = order.created_at + time_left - policies.METHOD_SETUP_LIFE
        order = order.model_copy(update={"created_at": begun})
        start = WithStartWorkflowOperation(
            MethodSetupWorkflow.run,
            order,
            id=self.method_id,
            task_queue=CORE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes.at_method_start(order.user_id, order.gateway),
        )
        return await self.client.execute_update_with_start_workflow(
            MethodSetupWorkflow.create, COMMAND, start_workflow_operation=start
        )

    def starting_after(self) -> WithStartWorkflowOperation[MethodAfterWorkflow, MethodEnded]:
        return WithStartWorkflowOperation(
            MethodAfterWorkflow.run,
            MethodAfterInput(method_id=self.method_id, gateway=GatewayName.STRIPE),
            id=after_workflow_id(self.method_id),
            task_queue=CORE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes.at_method_start("user_1", GatewayName.STRIPE),
        )

    async def report(self, event_id: str = "evt_1") -> None:
        await self.handle.signal(MethodSetupWorkflow.gateway_reported, a_report(event_id))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the server's clock run, a second at a time, until the condition holds."""
        for _ in range(600):
            if condition():
                return
            await self.environment.sleep(timedelta(seconds=1))
        raise AssertionError(f"it never came to that; asked so far: {self.script.calls}")

    async def ended(self) -> MethodEnded:
        """What the set-up leaves behind, however long its own clock takes to get there."""
        for _ in range(600):
            description = await self.handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return await self.handle.result()
            await self.environment.sleep(timedelta(minutes=10))
        raise AssertionError("the workflow never ended")

    async def timers_fired(self) -> int:
        return sum(
            [
                event.event_type == EventType.EVENT_TYPE_TIMER_FIRED
                async for event in self.handle.fetch_history_events()
            ]
        )


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    """Nothing is cached: every decision is replayed from the history."""
    script = ScriptedMethodActivities()
    core = Worker(
        environment.client,
        task_queue=CORE,
        workflows=WORKFLOWS,
        activities=[script.make_default],
        workflow_runner=sandboxed(),
        max_cached_workflows=0,
        max_concurrent_workflow_tasks=10,
    )
    gateway = Worker(
        environment.client,
        task_queue=gateway_queue(GatewayName.STRIPE),
        activities=[script.open, script.settle, script.revoke],
    )
    async with contextlib.AsyncExitStack() as running:
        for worker in (core, gateway):
            await running.enter_async_context(worker)
        yield Bench(environment, script)


async def while_not(condition: Callable[[], bool]) -> None:
    """In real time: the server's own clock stands still while nothing waits for it."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


class TestSetUp:
    async def test_instructions_then_consent_by_report(self, bench: Bench) -> None:
        method = await bench.create()
        assert (method.status, method.next_action) == (MethodStatus.PENDING, SIGN_HERE)
        bench.script.settled = MethodStatus.ACTIVE
        await bench.report()
        await while_not(lambda: bench.script.status is MethodStatus.ACTIVE)
        assert await bench.ended() == MethodEnded(
            method_id=bench.method_id, status=MethodStatus.ACTIVE
        )
        assert bench.script.calls == ["open", "settle"]
        assert await bench.timers_fired() == 0
        found = (await bench.handle.describe()).typed_search_attributes
        assert found[attributes.BILLING_STATUS] == "active"
        assert found[attributes.CUSTOMER_ID] == "user_1"

    async def test_consent_found_by_a_poll(self, bench: Bench) -> None:
        await bench.create()
        await bench.until(lambda: bench.script.calls.count("settle") >= 2)
        bench.script.settled = MethodStatus.ACTIVE
        assert (await bench.ended()).status is MethodStatus.ACTIVE
        assert bench.script.revoked == []

    async def test_the_same_event_is_followed_once(self, bench: Bench) -> None:
        await bench.create()
        for _ in range(3):
            await bench.report()
        await while_not(lambda: "settle" in bench.script.calls)
        bench.script.settled = MethodStatus.ACTIVE
        await bench.report("evt_2")
        await bench.ended()
        assert bench.script.calls == ["open", "settle", "settle"]

    @pytest.mark.parametrize("status", [MethodStatus.FAILED, MethodStatus.ACTIVE])
    async def test_over_at_once(self, bench: Bench, status: MethodStatus) -> None:
        bench.script.opened = status
        method = await bench.create()
        assert method.status is status
        assert method.failure == (REFUSED if status is MethodStatus.FAILED else None)
        assert (await bench.ended()).status is status
        assert bench.script.calls == ["open"]

    async def test_expires_after_a_day_asked_about_revoked_and_failed(self, bench: Bench) -> None:
        began = await bench.environment.get_current_time()
        await bench.create(time_left=timedelta(hours=1))
        assert (await bench.ended()).status is MethodStatus.FAILED
        ((status, failure, _),) = bench.script.revoked
        assert (status, failure and failure.code) == (MethodStatus.FAILED, "setup_expired")
        assert bench.script.calls[-2:] == ["settle", "revoke"]
        life = bench.script.asked_at["revoke"] - began
        assert timedelta(hours=1) <= life < timedelta(hours=1, minutes=1)
        assert timedelta(hours=24) == policies.METHOD_SETUP_LIFE
        assert bench.script.calls.count("settle") == len(policies.METHOD_POLL_DELAYS)

    async def test_consent_in_the_last_moment_counts(self, bench: Bench) -> None:
        await bench.create(time_left=timedelta(minutes=3))
        await bench.environment.sleep(timedelta(seconds=175))
        bench.script.settled = MethodStatus.ACTIVE
        assert (await bench.ended()).status is MethodStatus.ACTIVE
        assert bench.script.revoked == []

    async def test_a_gateway_that_never_answers_ends_it_all_the_same(self, bench: Bench) -> None:
        bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create(time_left=timedelta(minutes=1)))
        await bench.until(lambda: bench.script.calls.count("open") >= 3)
        await bench.environment.sleep(timedelta(minutes=1))
        assert (await creating).status is MethodStatus.FAILED
        ((_, _, order),) = bench.script.revoked
        assert order is not None
        assert order.method_id == bench.method_id

    @pytest.mark.parametrize("opened", [True, False], ids=["waiting", "while it is opened"])
    async def test_deleted_before_consent(self, bench: Bench, opened: bool) -> None:
        if not opened:
            bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create())
        await bench.until(lambda: "open" in bench.script.calls)
        if opened:
            await creating
        method = await bench.handle.execute_update(MethodSetupWorkflow.revoke, DELETION)
        assert method.status is MethodStatus.ENDED
        assert (await creating).status is (MethodStatus.PENDING if opened else MethodStatus.ENDED)
        assert (await bench.ended()).status is MethodStatus.ENDED
        assert [status for status, _, _ in bench.script.revoked] == [MethodStatus.ENDED]

    async def test_deleted_while_the_gateway_is_silent(self, bench: Bench) -> None:
        await bench.create()
        bench.script.silent = {"settle"}
        await bench.report()
        await while_not(lambda: "settle" in bench.script.calls)
        method = await bench.handle.execute_update(MethodSetupWorkflow.revoke, DELETION)
        assert method.status is MethodStatus.ENDED
        bench.script.silent = set()
        assert (await bench.ended()).status is MethodStatus.ENDED

    async def test_started_again_from_its_row_it_asks_first(self, bench: Bench) -> None:
        bench.script.settled = MethodStatus.ACTIVE
        order = (await bench.order()).model_copy(update={"resumed": True})
        await bench.client.start_workflow(
            MethodSetupWorkflow.run, order, id=bench.method_id, task_queue=CORE
        )
        assert (await bench.ended()).status is MethodStatus.ACTIVE
        assert bench.script.calls == ["settle"]


class TestAfter:
    async def test_the_payers_own_end(self, bench: Bench) -> None:
        bench.script.status = MethodStatus.ACTIVE
        bench.script.settled = MethodStatus.ENDED
        await bench.client.start_workflow(
            MethodAfterWorkflow.run,
            MethodAfterInput(method_id=bench.method_id, gateway=GatewayName.STRIPE),
            id=after_workflow_id(bench.method_id),
            task_queue=CORE,
            start_signal="gateway_reported",
            start_signal_args=[a_report()],
        )
        assert (await bench.after.result()).status is MethodStatus.ENDED
        assert "revoke" not in bench.script.calls

    async def test_deleted(self, bench: Bench) -> None:
        bench.script.status = bench.script.settled = MethodStatus.ACTIVE
        method = await bench.client.execute_update_with_start_workflow(
            MethodAfterWorkflow.revoke, DELETION, start_workflow_operation=bench.starting_after()
        )
        assert method.status is MethodStatus.ENDED
        assert (await bench.after.result()).status is MethodStatus.ENDED
        assert [status for status, _, _ in bench.script.revoked] == [MethodStatus.ENDED]

    async def test_in_use_it_is_deleted_only_by_force(self, bench: Bench) -> None:
        bench.script.status = bench.script.settled = MethodStatus.ACTIVE
        bench.script.is_used = True
        for _ in range(2):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await bench.client.execute_update_with_start_workflow(
                    MethodAfterWorkflow.revoke,
                    DeleteMethod(application="shop", is_forced=False),
                    start_workflow_operation=bench.starting_after(),
                )
            assert isinstance(refused.value.cause, ApplicationError)
            assert refused.value.cause.type == IN_USE
            assert (await bench.after.result()).status is MethodStatus.ACTIVE
        method = await bench.client.execute_update_with_start_workflow(
            MethodAfterWorkflow.revoke,
            DeleteMethod(application="shop", is_forced=True),
            start_workflow_operation=bench.starting_after(),
        )
        assert method.status is MethodStatus.ENDED

    async def test_consent_that_came_too_late_is_revoked(self, bench: Bench) -> None:
        bench.script.status = MethodStatus.FAILED
        bench.script.failure = REFUSED
        await bench.client.start_workflow(
            MethodAfterWorkflow.run,
            MethodAfterInput(method_id=bench.method_id, gateway=GatewayName.STRIPE),
            id=after_workflow_id(bench.method_id),
            task_queue=CORE,
        )
        assert (await bench.after.result()).status is MethodStatus.FAILED
        assert bench.script.calls == ["settle", "revoke"]

    async def test_an_answer_that_makes_no_sense_calls_a_person(self, bench: Bench) -> None:
        bench.script.status = bench.script.settled = MethodStatus.ACTIVE
        bench.script.needs_attention = True
        await bench.client.start_workflow(
            MethodAfterWorkflow.run,
            MethodAfterInput(method_id=bench.method_id, gateway=GatewayName.STRIPE),
            id=after_workflow_id(bench.method_id),
            task_queue=CORE,
        )
        await bench.after.result()
        found = (await bench.after.describe()).typed_search_attributes
        assert found[attributes.NEEDS_ATTENTION] is True

    async def test_made_the_default(self, bench: Bench) -> None:
        bench.script.status = bench.script.settled = MethodStatus.ACTIVE
        method = await bench.client.execute_update_with_start_workflow(
            MethodAfterWorkflow.make_default,
            COMMAND,
            start_workflow_operation=bench.starting_after(),
        )
        assert method.is_default
        assert (await bench.after.result()).status is MethodStatus.ACTIVE

    async def test_refused_as_the_default(self, bench: Bench) -> None:
        bench.script.status = bench.script.settled = MethodStatus.ACTIVE
        bench.script.refuses = True
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await bench.client.execute_update_with_start_workflow(
                MethodAfterWorkflow.make_default,
                COMMAND,
                start_workflow_operation=bench.starting_after(),
            )
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == REFUSAL
