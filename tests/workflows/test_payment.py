"""The payment workflow's decisions, on the time-skipping server, cached and uncached."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from billing.identifiers import make_id
from billing.messages import (
    AfterInput,
    Command,
    GatewayReport,
    PaymentEnded,
    PaymentOrder,
    ReviewAction,
    ReviewDecision,
)
from billing.payment import GatewayName, Payment, PaymentStatus
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from tests.workflows.scripted import ScriptedActivities, order
from worker import sandboxed
from workflows import WORKFLOWS, PaymentAfterWorkflow, PaymentWorkflow, policies

COMMAND = Command(application="shop")
CLOSE = ReviewDecision(action=ReviewAction.CLOSE, reason="lost", reviewed_by="key_1")
RETRY = ReviewDecision(action=ReviewAction.RETRY, reason="checked", reviewed_by="key_1")
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

    async def report(self, event_id: str = "evt_1", *, is_dispute: bool = False) -> None:
        await self.handle.signal(
            PaymentWorkflow.gateway_reported,
            GatewayReport(
                event_id=event_id, event_type="TRANSACTION.SUCCESS", is_dispute=is_dispute
            ),
        )

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


class TestPaid:
    async def test_webhook_settles(self, bench: Bench) -> None:
        payment = await bench.create()
        assert payment.status is PaymentStatus.REQUIRES_ACTION
        assert payment.next_action.type == "qr_code"
        bench.script.paid = True
        await bench.report()
        assert await bench.ended() is PaymentStatus.SUCCEEDED
        assert bench.script.calls == ["open", "settle"]

    async def test_poll_settles_when_no_webhook_comes(self, bench: Bench) -> None:
        await bench.create()
        bench.script.paid = True
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_a_repeated_event_asks_once(self, bench: Bench) -> None:
        await bench.create()
        await bench.report("evt_same")
        await bench.until(lambda: bench.script.calls.count("settle") == 1)
        await bench.report("evt_same")
        bench.script.paid = True
        await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert await bench.ended() is PaymentStatus.SUCCEEDED
        assert bench.script.calls == ["open", "settle", "settle"]

    async def test_refresh_answers_with_what_the_gateway_says(self, bench: Bench) -> None:
        await bench.create()
        waiting = await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert waiting.status is PaymentStatus.REQUIRES_ACTION
        bench.script.paid = True
        paid = await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert paid.status is PaymentStatus.SUCCEEDED
        assert paid.next_action.type == "none"


class TestNotPaid:
    async def test_refused_at_opening(self, bench: Bench) -> None:
        bench.script.refuses = True
        payment = await bench.create()
        assert payment.status is PaymentStatus.FAILED
        assert payment.failure is not None
        assert await bench.ended() is PaymentStatus.FAILED

    async def test_expires_after_eight_polls_at_most(self, bench: Bench) -> None:
        await bench.create(expires_in_seconds=7200)
        assert await bench.ended() is PaymentStatus.EXPIRED
        assert bench.script.calls[-1] == "close"
        assert bench.script.calls.count("settle") <= len(policies.POLL_DELAYS)

    async def test_cancel_closes_at_the_gateway(self, bench: Bench) -> None:
        await bench.create()
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.calls[-1] == "close"

    async def test_cancel_comes_too_late(self, bench: Bench) -> None:
        await bench.create()
        bench.script.pays_at_close = True
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.SUCCEEDED

    async def test_temporal_cancel_is_the_operators_close(self, bench: Bench) -> None:
        await bench.create()
        await bench.handle.cancel()
        assert await bench.ended() is PaymentStatus.FAILED
        assert bench.script.calls[-1] == "close"

    async def test_gateway_silent_at_the_deadline(self, bench: Bench) -> None:
        await bench.create(expires_in_seconds=60)
        bench.script.silent = {"settle", "close"}
        await bench.until(lambda: bench.script.status.is_terminal)
        assert bench.script.status is PaymentStatus.EXPIRED
        assert "end" in bench.script.calls
        bench.script.silent = set()
        assert await bench.ended() is PaymentStatus.EXPIRED
        assert not bench.script.is_alive

    async def test_canceled_while_opening_is_unanswered(self, bench: Bench) -> None:
        bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create())
        await bench.until(lambda: "open" in bench.script.calls)
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        assert (await creating).status is PaymentStatus.CANCELED

    async def test_never_opened_expires(self, bench: Bench) -> None:
        bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create(expires_in_seconds=60))
        await bench.until(creating.done)
        assert (await creating).status is PaymentStatus.EXPIRED


class TestWatching:
    async def test_stays_until_every_attempt_is_dead(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        await bench.until(lambda: bench.script.calls.count("close") >= 2)
        description = await bench.handle.describe()
        assert description.status is WorkflowExecutionStatus.RUNNING
        bench.script.dies = True
        assert await bench.ended() is PaymentStatus.CANCELED

    async def test_late_money_changes_no_status(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        bench.script.paid = True
        await bench.report("evt_late")
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.unapplied
        description = await bench.handle.describe()
        assert description.typed_search_attributes[attributes.NEEDS_ATTENTION] is True

    async def test_calls_for_a_person_when_no_attempt_dies(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        await bench.environment.sleep(timedelta(days=5))
        await bench.until(lambda: "flag" in bench.script.calls)
        bench.script.dies = True
        await bench.report("evt_closed")
        assert await bench.ended() is PaymentStatus.CANCELED


class TestParked:
    async def test_waits_for_a_person_past_its_deadline(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        await bench.environment.sleep(timedelta(hours=5))
        await bench.report("evt_2")
        unchanged = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert unchanged.status is PaymentStatus.NEEDS_REVIEW
        bench.script.untrusted = False
        bench.script.paid = True
        payment = await bench.handle.execute_update(PaymentWorkflow.review, RETRY)
        assert payment.status is PaymentStatus.SUCCEEDED
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_closed_by_a_person(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        payment = await bench.handle.execute_update(PaymentWorkflow.review, CLOSE)
        assert payment.status is PaymentStatus.FAILED
        assert await bench.ended() is PaymentStatus.FAILED

    # The command waits out its patience, with a cache or without.
    @pytest.mark.parametrize("bench", [0], ids=["uncached"], indirect=True)
    async def test_a_decision_recorded_and_never_told_is_learned_from_the_next_report(
        self, bench: Bench
    ) -> None:
        """The record is not parked any more, so that no other decision comes: late money would
        never be heard of."""
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        bench.script.untrusted = False
        bench.script.paid = True
        bench.script.answers.clear()
        deciding = asyncio.create_task(bench.handle.execute_update(PaymentWorkflow.review, RETRY))
        await bench.until(deciding.done)
        assert bench.script.status is PaymentStatus.SUCCEEDED
        assert (await deciding).status is PaymentStatus.NEEDS_REVIEW
        bench.script.answers.set()
        await bench.report("evt_2")
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_decided_upon_before_the_workflow_knows(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        bench.script.answers.clear()
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        deciding = await bench.handle.start_update(
            PaymentWorkflow.review, CLOSE, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        bench.script.answers.set()
        assert (await deciding.result()).status is PaymentStatus.FAILED

    async def test_review_of_a_payment_nobody_parked_changes_nothing(self, bench: Bench) -> None:
        await bench.create()
        payment = await bench.handle.execute_update(PaymentWorkflow.review, CLOSE)
        assert payment.status is PaymentStatus.REQUIRES_ACTION


class TestLong:
    # Without a cache each command replays all before it.
    @pytest.mark.parametrize("bench", [1000], ids=["cached"], indirect=True)
    async def test_goes_on_in_a_new_run(self, bench: Bench) -> None:
        await bench.create()
        first = (await bench.handle.describe()).run_id
        for _ in range(policies.COMMANDS_IN_A_RUN):
            await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        while (await bench.handle.describe()).run_id == first:
            await bench.environment.sleep(timedelta(seconds=1))
        assert bench.script.calls.count("open") == 1
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        assert await bench.ended() is PaymentStatus.CANCELED


class TestResumed:
    async def test_asks_the_gateway_first(self, bench: Bench) -> None:
        bench.script.status = PaymentStatus.REQUIRES_ACTION
        bench.script.is_alive = bench.script.paid = True
        bench.script._order = await bench.order()
        payment = await bench.create(resumed=True)
        assert payment.status is PaymentStatus.SUCCEEDED
        assert bench.script.calls == ["settle"]

    async def test_opens_what_was_never_opened(self, bench: Bench) -> None:
        bench.script._order = await bench.order()
        payment = await bench.create(resumed=True)
        assert payment.status is PaymentStatus.REQUIRES_ACTION
        assert bench.script.calls == ["settle", "open"]


class TestAfterwards:
    async def test_asks_once_for_each_fact_and_ends(self, bench: Bench) -> None:
        bench.script.status = PaymentStatus.CANCELED
        bench.script.is_alive = bench.script.paid = True
        bench.script._order = await bench.order()
        handle = await bench.client.start_workflow(
            PaymentAfterWorkflow.run,
            AfterInput(payment_id=bench.payment_id, gateway=GatewayName.WECHATPAY),
            id=f"{bench.payment_id}/after",
            task_queue=CORE,
            start_signal="gateway_reported",
            start_signal_args=[GatewayReport(event_id="evt_1", event_type="TRANSACTION.SUCCESS")],
        )
        assert (await handle.result()).status is PaymentStatus.CANCELED
        assert bench.script.calls == ["settle"]
        assert bench.script.unapplied
