"""The refund workflow's decisions, on the time-skipping server, cached and uncached."""

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

from billing.identifiers import make_id
from billing.messages import (
    Command,
    GatewayReport,
    RefundAfterInput,
    RefundEnded,
    RefundRequest,
)
from billing.payment import GatewayName
from billing.refund import Refund, RefundStatus
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from tests.workflows.scripted_refund import REFUSAL, ScriptedRefundActivities, refund_request
from worker import sandboxed
from workflows import WORKFLOWS, RefundAfterWorkflow, RefundWorkflow, policies

COMMAND = Command(application="shop")
REPORT = GatewayReport(event_id="evt_1", event_type="REFUND.SUCCESS")

_numbers = itertools.count(1)


class Bench:
    """One refund under test: its client, its scripted gateway, and its workflow."""

    def __init__(self, environment: WorkflowEnvironment, script: ScriptedRefundActivities) -> None:
        self.environment = environment
        self.script = script
        self.refund_id = make_id("ref", next(_numbers), b"\x01" * 10)

    @property
    def client(self) -> Client:
        return self.environment.client

    @property
    def handle(self) -> WorkflowHandle[RefundWorkflow, RefundEnded]:
        return self.client.get_workflow_handle_for(RefundWorkflow.run, self.refund_id)

    async def request(self) -> RefundRequest:
        return refund_request(self.refund_id, await self.environment.get_current_time())

    async def create(self) -> Refund:
        request = await self.request()
        start = WithStartWorkflowOperation(
            RefundWorkflow.run,
            request,
            id=self.refund_id,
            task_queue=CORE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes.at_refund_start(request),
        )
        return await self.client.execute_update_with_start_workflow(
            RefundWorkflow.create, COMMAND, start_workflow_operation=start
        )

    async def report(self, event_id: str = "evt_1") -> None:
        report = GatewayReport(event_id=event_id, event_type="REFUND.SUCCESS")
        await self.handle.signal(RefundWorkflow.gateway_reported, report)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the server's clock run, a second at a time, until the condition holds."""
        for _ in range(600):
            if condition():
                return
            await self.environment.sleep(timedelta(seconds=1))
        raise AssertionError(f"it never came to that; asked so far: {self.script.calls}")

    async def ended(self) -> RefundEnded:
        """What the workflow leaves behind, however long its own clock takes to get there."""
        for _ in range(600):
            description = await self.handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return await self.handle.result()
            await self.environment.sleep(timedelta(minutes=10))
        raise AssertionError("the workflow never ended")

    async def needs_attention(self) -> bool | None:
        description = await self.handle.describe()
        return description.typed_search_attributes.get(attributes.NEEDS_ATTENTION)

    async def timers_fired(self) -> int:
        return sum(
            [
                event.event_type == EventType.EVENT_TYPE_TIMER_FIRED
                async for event in self.handle.fetch_history_events()
            ]
        )


@pytest.fixture(params=[1000, 0], ids=["cached", "uncached"])
async def bench(
    environment: WorkflowEnvironment, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    script = ScriptedRefundActivities()
    async with working(environment.client, script, request.param):
        yield Bench(environment, script)


@contextlib.asynccontextmanager
async def working(
    client: Client, script: ScriptedRefundActivities, cached: int
) -> AsyncIterator[None]:
    core = Worker(
        client,
        task_queue=CORE,
        workflows=WORKFLOWS,
        activities=[script.reserve],
        workflow_runner=sandboxed(),
        max_cached_workflows=cached,
        max_concurrent_workflow_tasks=10,
    )
    gateway = Worker(
        client,
        task_queue=gateway_queue(GatewayName.WECHATPAY),
        activities=[script.ask, script.settle],
    )
    async with core, gateway:
        yield


class TestAsked:
    @pytest.mark.parametrize("status", [RefundStatus.SUCCEEDED, RefundStatus.FAILED])
    async def test_and_done_at_once(self, bench: Bench, status: RefundStatus) -> None:
        bench.script.asked = status
        refund = await bench.create()
        assert (refund.id, refund.status) == (bench.refund_id, status)
        assert await bench.ended() == RefundEnded(refund_id=bench.refund_id, status=status)
        assert bench.script.calls == ["reserve", "ask"]

    async def test_and_polled_to_its_end(self, bench: Bench) -> None:
        refund = await bench.create()
        assert refund.status is RefundStatus.PROCESSING
        await bench.until(lambda: bench.script.calls.count("settle") >= 2)
        bench.script.settled = RefundStatus.SUCCEEDED
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls.count("ask") == 1

    async def test_and_polled_for_as_long_as_a_bank_takes(self, bench: Bench) -> None:
        await bench.create()
        await bench.until(lambda: "settle" in bench.script.calls)
        await bench.environment.sleep(timedelta(days=5))
        polls = bench.script.calls.count("settle")
        assert len(policies.REFUND_POLL_DELAYS) <= polls <= len(policies.REFUND_POLL_DELAYS) + 5
        description = await bench.handle.describe()
        assert description.status is WorkflowExecutionStatus.RUNNING
        bench.script.settled = RefundStatus.SUCCEEDED
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED

    async def test_and_reported_on(self, bench: Bench) -> None:
        """The webhook is followed at once: no timer ends the waiting."""
        await bench.create()
        bench.script.settled = RefundStatus.SUCCEEDED
        await bench.report()
        await _while_not(lambda: bench.script.status is RefundStatus.SUCCEEDED)
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["reserve", "ask", "settle"]
        assert await bench.timers_fired() == 0

    async def test_and_reported_on_before_the_answer(self, bench: Bench) -> None:
        bench.script.answers.clear()
        bench.script.settled = RefundStatus.SUCCEEDED
        creating = asyncio.create_task(bench.create())
        await _while_not(lambda: "ask" in bench.script.calls)
        await bench.report()
        bench.script.answers.set()
        assert (await creating).status is RefundStatus.PROCESSING
        await _while_not(lambda: bench.script.status is RefundStatus.SUCCEEDED)
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["reserve", "ask", "settle"]
        assert await bench.timers_fired() == 0

    async def test_and_reported_on_before_the_answer_that_it_was_done(self, bench: Bench) -> None:
        """The report may be of what became of it since: the bank has sent it back."""
        bench.script.answers.clear()
        bench.script.asked = RefundStatus.SUCCEEDED
        bench.script.settled = RefundStatus.FAILED
        creating = asyncio.create_task(bench.create())
        await _while_not(lambda: "ask" in bench.script.calls)
        await bench.report()
        bench.script.answers.set()
        await creating
        assert (await bench.ended()).status is RefundStatus.FAILED
        assert bench.script.calls == ["reserve", "ask", "settle"]

    async def test_a_repeated_event_asks_once(self, bench: Bench) -> None:
        await bench.create()
        for _ in range(2):
            await bench.report("evt_same")
            await _while_not(lambda: "settle" in bench.script.calls)
        bench.script.settled = RefundStatus.SUCCEEDED
        await bench.report("evt_other")
        await _while_not(lambda: bench.script.status is RefundStatus.SUCCEEDED)
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["reserve", "ask", "settle", "settle"]

    async def test_a_repeated_command_is_one_refund(self, bench: Bench) -> None:
        refunds = await asyncio.gather(*(bench.create() for _ in range(3)))
        assert len({refund.model_dump_json() for refund in refunds}) == 1
        bench.script.settled = RefundStatus.SUCCEEDED
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls.count("reserve") == bench.script.calls.count("ask") == 1


class TestPaused:
    async def test_waits_for_the_gateways_pause_and_then_asks(self, bench: Bench) -> None:
        bench.script.pause = timedelta(minutes=1)
        bench.script.asked = RefundStatus.SUCCEEDED
        began = await bench.environment.get_current_time()
        creating = asyncio.create_task(bench.create())
        await bench.until(creating.done)
        assert (await creating).status is RefundStatus.PENDING
        assert bench.script.calls == ["reserve"]
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["reserve", "ask"]
        assert bench.script.asked_at is not None
        assert bench.script.asked_at >= began + timedelta(minutes=1)


class TestRefused:
    async def test_the_command_is_told_why_and_the_process_ends(self, bench: Bench) -> None:
        bench.script.refuses = True
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await bench.create()
        refusal = failed.value.cause
        assert isinstance(refusal, ApplicationError)
        assert (refusal.type, refusal.message) == (REFUSAL, "900 is more than is left")
        assert await bench.ended() == RefundEnded(
            refund_id=bench.refund_id,
            status=None,
            refusal_code=REFUSAL,
            refusal="900 is more than is left",
        )
        assert bench.script.calls == ["reserve"]

    async def test_a_record_out_of_reach_refuses_nothing(self, bench: Bench) -> None:
        bench.script.silent = {"reserve"}
        bench.script.asked = RefundStatus.SUCCEEDED
        creating = asyncio.create_task(bench.create())
        await bench.until(lambda: bench.script.calls.count("reserve") >= 3)
        bench.script.silent = set()
        await bench.until(creating.done)
        assert (await creating).status is RefundStatus.SUCCEEDED
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED


class TestSilence:
    async def test_the_command_is_answered_and_the_process_goes_on(self, bench: Bench) -> None:
        bench.script.silent = {"ask"}
        creating = asyncio.create_task(bench.create())
        await bench.until(creating.done)
        assert (await creating).status is RefundStatus.PENDING
        bench.script.silent = set()
        bench.script.settled = RefundStatus.SUCCEEDED
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls[-2:] == ["ask", "settle"]

    async def test_the_gateway_is_asked_for_hours(self, bench: Bench) -> None:
        bench.script.silent = {"settle"}
        await bench.create()
        await bench.environment.sleep(timedelta(hours=3))
        bench.script.silent = set()
        bench.script.settled = RefundStatus.FAILED
        assert (await bench.ended()).status is RefundStatus.FAILED


class TestParked:
    @pytest.mark.parametrize("end", [RefundStatus.SUCCEEDED, RefundStatus.FAILED])
    async def test_until_it_is_repaired_at_the_gateway(
        self, bench: Bench, end: RefundStatus
    ) -> None:
        bench.script.settled = RefundStatus.NEEDS_REVIEW
        await bench.create()
        assert await bench.needs_attention() is False
        await bench.until(lambda: bench.script.status is RefundStatus.NEEDS_REVIEW)
        await bench.environment.sleep(timedelta(hours=30))
        assert await bench.needs_attention() is True
        bench.script.settled = end
        await bench.report()
        assert (await bench.ended()).status is end
        assert await bench.needs_attention() is False


class TestResumed:
    """The row is there already: a reservation repeated finds it as it stands."""

    async def test_asks_after_what_was_asked_for(self, bench: Bench) -> None:
        bench.script.status = RefundStatus.PROCESSING
        bench.script.settled = RefundStatus.SUCCEEDED
        assert (await bench.create()).status is RefundStatus.PROCESSING
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["reserve", "settle"]

    async def test_leaves_alone_what_has_ended(self, bench: Bench) -> None:
        bench.script.status = RefundStatus.SUCCEEDED
        assert (await bench.create()).status is RefundStatus.SUCCEEDED
        assert (await bench.ended()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["reserve"]


class TestAfterwards:
    async def start(self, bench: Bench) -> WorkflowHandle[RefundAfterWorkflow, RefundEnded]:
        bench.script.status = RefundStatus.SUCCEEDED
        bench.script.remember(await bench.request())
        return await bench.client.start_workflow(
            RefundAfterWorkflow.run,
            RefundAfterInput(refund_id=bench.refund_id, gateway=GatewayName.WECHATPAY),
            id=f"{bench.refund_id}/after",
            task_queue=CORE,
            start_signal="gateway_reported",
            start_signal_args=[REPORT],
        )

    async def test_a_refund_that_had_succeeded_fails(self, bench: Bench) -> None:
        bench.script.settled = RefundStatus.FAILED
        handle = await self.start(bench)
        assert (await handle.result()).status is RefundStatus.FAILED
        assert bench.script.calls == ["settle"]

    async def test_asks_once_for_each_fact_and_ends(self, bench: Bench) -> None:
        bench.script.answers.clear()
        bench.script.settled = RefundStatus.SUCCEEDED
        handle = await self.start(bench)
        await _while_not(lambda: "settle" in bench.script.calls)
        later = REPORT.model_copy(update={"event_id": "evt_2"})
        for report in (REPORT, later, later):
            await handle.signal(RefundAfterWorkflow.gateway_reported, report)
        bench.script.answers.set()
        assert (await handle.result()).status is RefundStatus.SUCCEEDED
        assert bench.script.calls == ["settle", "settle"]


async def _while_not(condition: Callable[[], bool]) -> None:
    """Wait without letting the server's clock run."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)
