"""A subscription's workflow on the time-skipping server. Each test ends with its history replayed.

Workflows are cached, unlike in the other suites: without a cache a task takes long enough for a
payment to end within that of its subscription, and the test server then loses the task."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
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

from billing.calendar import Cycle
from billing.identifiers import SUBSCRIPTION, make_id
from billing.messages import Command
from billing.payment import GatewayName, PaymentMethod, PaymentStatus
from billing.plans import Tier
from billing.rails import wechat_window
from billing.subscription import Access, StepKind, SubscriptionStatus
from billing.subscription_messages import (
    Announced,
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    PaymentWay,
    PaySubscription,
    PreparedCharge,
    ResumeSubscription,
    SubscriptionAnswer,
    SubscriptionOver,
    SubscriptionStart,
)
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from tests.billing.subscriptions import plan
from tests.workflows.scripted_subscription import (
    HARD,
    METHOD_ID,
    SOFT,
    ScriptedSubscription,
    subscription_start,
)
from worker import sandboxed
from workflows import WORKFLOWS, SubscriptionWorkflow, policies

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
        start = await self.start(**wanted)
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


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    script = ScriptedSubscription()
    made = Bench(environment, script)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                environment.client,
                task_queue=CORE,
                workflows=WORKFLOWS,
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


class TestSigningUp:
    async def test_the_first_payment_makes_it_active(self, bench: Bench) -> None:
        answer = await bench.sign_up()
        assert answer.payment_id is not None
        await bench.until("activated")
        assert bench.status is SubscriptionStatus.ACTIVE
        [order] = bench.script.charged
        assert order.payment_id == answer.payment_id
        assert (order.method, order.payment_method_id) == (PaymentMethod.SAVED, METHOD_ID)
        assert order.subscription_id == bench.subscription_id
        assert order.amount_minor == answer.subscription.plan.amount

    async def test_declined_it_never_begins(self, bench: Bench) -> None:
        bench.script.outcomes.append(HARD)
        await bench.sign_up()
        assert await bench.ended() is SubscriptionStatus.EXPIRED
        assert bench.script.known.subscription.failure == HARD

    async def test_a_code_that_nobody_scans_ends_it(self, bench: Bench) -> None:
        bench.script.outcomes.append(bench.script.waits)
        await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
        assert await bench.ended() is SubscriptionStatus.EXPIRED
        [order] = bench.script.charged
        assert order.expires_at - order.created_at == policies.SUBSCRIPTION_CODE_LIFE

    async def test_a_trial_is_charged_when_it_is_over(self, bench: Bench) -> None:
        answer = await bench.sign_up(trial_days=14)
        assert answer.subscription.status in (
            SubscriptionStatus.INCOMPLETE,
            SubscriptionStatus.TRIALING,
        )
        await bench.until("trial_started")
        assert bench.script.charged == []
        await bench.until("renewed")
        [order] = bench.script.charged
        assert order.created_at >= answer.subscription.period.end
        assert bench.status is SubscriptionStatus.ACTIVE

    async def test_answers_that_are_lost_charge_nothing_twice(self, bench: Bench) -> None:
        bench.script.forgets = {"open", "write"}
        await bench.sign_up()
        await bench.until("activated")
        assert len(bench.script.charged) == 1


class TestRenewing:
    async def test_each_period_once_and_runs_stay_short(self, bench: Bench) -> None:
        await bench.sign_up()
        cycles = policies.CYCLES_IN_A_RUN + 2
        await bench.until("renewed", cycles)
        periods = [write.subscription.period for write in bench.script.writes]
        starts = {one.number: one.start for one in periods}
        assert len(bench.script.charged) == len(set(starts)) == cycles + 1
        information = (await bench.handle.describe()).raw_description.workflow_execution_info
        first = await bench.client.get_workflow_handle(
            bench.subscription_id, run_id=information.first_run_id
        ).describe()
        assert first.status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    async def test_paid_by_hand_it_is_asked_for_ahead(self, bench: Bench) -> None:
        bench.script.outcomes.append(bench.script.waits)
        bench.script.pays_waiting = True
        await bench.sign_up(gateway=GatewayName.WECHATPAY, method_id=None)
        await bench.until("payment_requested")
        asked_at = bench.script.events[-1][1]
        end = bench.script.known.subscription.period.end
        assert end - timedelta(days=4) < asked_at < end
        way = PaymentWay(gateway=GatewayName.WECHATPAY, method=PaymentMethod.NATIVE)
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.pay, PaySubscription(way=way)
        )
        assert answer.payment_id is not None
        await bench.until("renewed")
        assert bench.script.events[-1][1] >= end
        assert bench.script.known.subscription.period.start == end
        assert len(bench.script.charged) == 2

    async def test_by_hand_and_not_paid_it_is_past_due(self, bench: Bench) -> None:
        bench.script.outcomes.append(None)
        await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
        await bench.until("past_due")
        assert bench.status is SubscriptionStatus.PAST_DUE
        await bench.until("expired")
        assert "access_changed" in bench.script.names
        assert len(bench.script.charged) == 1

    async def test_a_contract_is_announced_and_charged_in_its_window(self, bench: Bench) -> None:
        now = await bench.environment.get_current_time()
        ready = PreparedCharge(is_ready=True, at=now)
        bench.script.prepared.append(ready)
        await bench.sign_up(gateway=GatewayName.WECHATPAY)
        await bench.until("activated")
        found = bench.script.known.subscription
        sent_at = found.period.end - timedelta(days=3, hours=12)
        announced = Announced(number=2, sent_at=sent_at, amount=found.plan.amount)
        opens_at = max(wechat_window(announced).opens_at, found.period.end)
        bench.script.prepared.append(
            PreparedCharge(is_ready=False, at=opens_at, announced=announced)
        )
        bench.script.prepared.append(
            PreparedCharge(is_ready=False, at=found.period.end + timedelta(hours=9))
        )
        bench.script.prepared.append(PreparedCharge(is_ready=True, at=opens_at))
        await bench.until("renewed")
        assert bench.script.names.count("renewal_announced") == 1
        asked = [one for one in bench.script.preparations if one.kind is StepKind.RENEWAL]
        assert asked[0].now < found.period.end
        assert asked[-1].now >= found.period.end + timedelta(hours=9)
        assert asked[-1].announced == announced

    async def test_what_a_mandate_cannot_carry_is_asked_for(self, bench: Bench) -> None:
        now = await bench.environment.get_current_time()
        bench.script.prepared.append(PreparedCharge(is_ready=True, at=now))
        bench.script.prepared.append(PreparedCharge(is_ready=False))
        await bench.sign_up(gateway=GatewayName.ALIPAY)
        await bench.until("past_due")
        await bench.until("payment_requested")
        assert len(bench.script.charged) == 1


class TestDunning:
    async def test_a_soft_decline_is_tried_again_and_recovers(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, SOFT, SOFT])
        await bench.sign_up()
        await bench.until("recovered")
        assert bench.status is SubscriptionStatus.ACTIVE
        assert bench.script.known.subscription.access is Access.ACTIVE
        orders = bench.script.charged
        assert len({order.payment_id for order in orders}) == 4
        gap = orders[2].created_at - orders[1].created_at
        assert gap >= timedelta(hours=24)

    async def test_a_hard_decline_waits_for_another_method(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, HARD])
        await bench.sign_up()
        await bench.until("payment_requested")
        assert len(bench.script.charged) == 2
        await bench.handle.execute_update(
            SubscriptionWorkflow.change_method,
            ChangeMethod(gateway=GatewayName.STRIPE, payment_method_id="pm_other"),
        )
        await bench.until("recovered", most=timedelta(minutes=5))
        assert bench.script.charged[-1].payment_method_id == "pm_other"

    async def test_paid_by_hand(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, HARD, bench.script.waits])
        await bench.sign_up()
        await bench.until("past_due")
        way = PaymentWay(gateway=GatewayName.STRIPE, method=PaymentMethod.CARD)
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.pay, PaySubscription(way=way)
        )
        bench.script.pays_waiting = True
        await bench.until("recovered")
        assert bench.script.charged[-1].payment_id == answer.payment_id
        assert bench.status is SubscriptionStatus.ACTIVE

    async def test_never_paid_it_expires(self, bench: Bench) -> None:
        bench.script.outcomes.append(None)
        bench.script.outcomes.extend([SOFT] * 20)
        await bench.sign_up()
        assert await bench.ended() is SubscriptionStatus.EXPIRED
        since = bench.script.names.index("past_due")
        accesses = [write.subscription.access for write in bench.script.writes[since:]]
        assert [one for one, _ in itertools.groupby(accesses) if one is not Access.ACTIVE] == [
            Access.GRACE,
            Access.RESTRICTED,
            Access.ENDED,
        ]

    async def test_operators_retry_and_waive(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, HARD, HARD])
        await bench.sign_up()
        await bench.until("past_due")
        again = OperateSubscription(
            action=OperatorAction.RETRY, reason="asked to", operated_by="key_1"
        )
        await bench.handle.execute_update(SubscriptionWorkflow.operate, again)
        await bench.until("payment_failed")
        waive = again.model_copy(update={"action": OperatorAction.WAIVE})
        answer = await bench.handle.execute_update(SubscriptionWorkflow.operate, waive)
        assert answer.subscription.status is SubscriptionStatus.ACTIVE
        assert bench.script.known.debt is None


class TestCommands:
    async def test_an_upgrade_takes_effect_once_it_is_paid(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up()
        await bench.until("activated")
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        answer = await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        assert answer.payment_id is not None
        assert answer.subscription.plan.tier is Tier.PREMIUM
        assert await refused(bench, SubscriptionWorkflow.change, dearer) == (
            "subscription_not_changeable"
        )
        bench.script.pays_waiting = True
        await bench.until("changed")
        assert bench.script.known.subscription.plan.tier is Tier.SUPER

    async def test_an_upgrade_that_is_declined_changes_nothing(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, SOFT])
        await bench.sign_up()
        await bench.until("activated")
        before = bench.script.known.subscription
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        await bench.until("change_failed")
        after = bench.script.known.subscription
        assert after.failure == SOFT
        assert (after.plan, after.period, after.paid) == (before.plan, before.period, before.paid)

    async def test_paused_and_resumed_it_keeps_what_was_paid(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        length = bench.script.known.subscription.period.seconds
        await bench.handle.execute_update(SubscriptionWorkflow.pause, PauseSubscription())
        await bench.environment.sleep(timedelta(days=90))
        assert bench.status is SubscriptionStatus.PAUSED
        assert len(bench.script.charged) == 1
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.resume, ResumeSubscription()
        )
        assert answer.subscription.status is SubscriptionStatus.ACTIVE
        assert answer.subscription.period.seconds == length
        assert await refused(bench, SubscriptionWorkflow.resume, ResumeSubscription()) == (
            "subscription_not_resumable"
        )

    async def test_a_pause_with_an_end_ends_by_itself(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        until = await bench.environment.get_current_time() + timedelta(days=40)
        await bench.handle.execute_update(
            SubscriptionWorkflow.pause, PauseSubscription(until=until)
        )
        await bench.until("resumed")
        assert bench.status is SubscriptionStatus.ACTIVE

    async def test_canceled_at_the_periods_end_and_undone(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.cancel, CancelSubscription()
        )
        assert answer.subscription.cancel_at_period_end
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.resume, ResumeSubscription()
        )
        assert not answer.subscription.cancel_at_period_end
        await bench.handle.execute_update(SubscriptionWorkflow.cancel, CancelSubscription())
        end = answer.subscription.period.end
        assert await bench.ended() is SubscriptionStatus.CANCELED
        assert bench.script.known.subscription.ended_at == end
        assert len(bench.script.charged) == 1

    async def test_canceled_now_the_rest_is_given_back_or_credited(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        bench.script.covered = 3000
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.cancel, CancelSubscription(at_period_end=False, refund=True)
        )
        assert answer.subscription.status is SubscriptionStatus.CANCELED
        [wanted] = bench.script.given_back
        assert wanted.giving_back.amount is not None
        assert answer.subscription.balance == wanted.giving_back.amount - 3000
        assert await bench.ended() is SubscriptionStatus.CANCELED

    async def test_paid_after_it_was_canceled_it_is_returned(self, bench: Bench) -> None:
        bench.script.outcomes.append(bench.script.waits)
        answer = await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
        bench.script.pays_waiting = True
        assert answer.payment_id is not None
        await bench.handle.execute_update(SubscriptionWorkflow.cancel, NOW)
        await bench.ended()
        paying = bench.script.payments[answer.payment_id]
        if paying.status is PaymentStatus.SUCCEEDED:
            assert bench.script.given_back[-1].giving_back.payment_id == answer.payment_id
        else:
            assert bench.script.given_back == []

    async def test_commands_after_its_end_are_refused(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        cheaper = OperateSubscription(
            action=OperatorAction.MOVE, reason="goodwill", operated_by="key_1"
        )
        assert await refused(bench, SubscriptionWorkflow.operate, cheaper) == "invalid_request"
        until = bench.script.known.subscription.period.end + timedelta(days=9)
        moved = await bench.handle.execute_update(
            SubscriptionWorkflow.operate, cheaper.model_copy(update={"until": until})
        )
        assert moved.subscription.period.end == until.replace(microsecond=0)
        await bench.handle.execute_update(SubscriptionWorkflow.cancel, NOW)
        assert await bench.ended() is SubscriptionStatus.CANCELED

    async def test_resumed_from_the_record_it_goes_on(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up()
        await bench.until("activated")
        await bench.handle.terminate()
        start = (await bench.start()).model_copy(update={"resumed": True})
        await bench.environment.sleep(timedelta(days=33))
        await bench.client.start_workflow(
            SubscriptionWorkflow.run, start, id=bench.subscription_id, task_queue=CORE
        )
        bench.script.pays_waiting = True
        await bench.until("renewed")
        assert len(bench.script.charged) == 2
        assert bench.script.known.subscription.period.number == 2

    async def test_a_cancel_request_from_temporal_ends_it(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        await bench.handle.cancel()
        assert await bench.ended() is SubscriptionStatus.CANCELED
        assert bench.script.writes[-1].data["operated_by"] == "temporal"
