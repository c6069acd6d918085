"""Canceled at the end of the period while a renewal waits, is charged, or is paid ahead, on each
rail; as in `test_subscription`."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowUpdateHandle, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from billing.charges import DEFAULT_WAYS
from billing.payment import GatewayName, PaymentStatus
from billing.subscription import Subscription, SubscriptionStatus
from billing.subscription_messages import (
    SUBSCRIPTION_WORKFLOW,
    Announced,
    CancelSubscription,
    PaymentWay,
    PaySubscription,
    PrepareCharge,
    PreparedCharge,
    ResumeSubscription,
    SubscriptionAnswer,
    SubscriptionOver,
    SubscriptionStart,
)
from runtime.queues import CORE
from tests.workflows.scripted_subscription import HARD, METHOD_ID, SOFT, ScriptedSubscription
from tests.workflows.subscribing import Bench, open_bench, refused
from workflows import WORKFLOWS, SubscriptionWorkflow
from workflows.subscription import _Job
from workflows.subscription_patches import was_taken

CODES = (GatewayName.ALIPAY, GatewayName.WECHATPAY)
LEAVE = CancelSubscription()
DAY = timedelta(days=1)
S = SubscriptionStatus
by_code = pytest.mark.parametrize("gateway", CODES)


@workflow.defn(name=SUBSCRIPTION_WORKFLOW)
class RefusesInCharges(SubscriptionWorkflow):
    """As it was before such commands were taken."""

    @workflow.run
    async def run(self, start: SubscriptionStart) -> SubscriptionOver:
        return await super().run(start)

    async def _carry_out(self, job: _Job) -> None:
        if was_taken(self._standing, job.command, workflow.now()):
            await super()._carry_out(job)
        else:
            job.refusal = ApplicationError(
                "under way", type="subscription_not_changeable", non_retryable=True
            )


class SlowToPrepare(ScriptedSubscription):
    """As the mandate is made ready for what is due, the command comes."""

    bench: Bench | None = None
    command: CancelSubscription | None = None
    given: WorkflowUpdateHandle[SubscriptionAnswer] | None = None

    @activity.defn(name="subscription.prepare")
    async def prepare(self, request: PrepareCharge) -> PreparedCharge:
        self.preparations.append(request)
        is_due = request.due_at <= request.now
        if is_due and self.given is None and self.bench is not None and self.command is not None:
            self.given = await self.bench.handle.start_update(
                SubscriptionWorkflow.cancel,
                self.command,
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
            )
        return PreparedCharge(is_ready=is_due, at=request.due_at)


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    async with open_bench(environment) as opened:
        yield opened


def found(bench: Bench) -> Subscription:
    return bench.script.known.subscription


async def leave(bench: Bench) -> SubscriptionAnswer:
    return await bench.handle.execute_update(SubscriptionWorkflow.cancel, LEAVE)


async def stay(bench: Bench) -> SubscriptionAnswer:
    return await bench.handle.execute_update(SubscriptionWorkflow.resume, ResumeSubscription())


async def after_the_end(bench: Bench, by: timedelta = timedelta(hours=1)) -> datetime:
    end = found(bench).period.end
    await bench.environment.sleep(end + by - await bench.environment.get_current_time())
    return end


async def until_left(bench: Bench, at: datetime, charges: int = 1) -> None:
    """It ends with the period that ends then, so many charges having been asked for."""
    assert await bench.ended() is S.CANCELED
    assert found(bench).ended_at == at
    assert len(bench.script.charged) == charges


async def asked_ahead(bench: Bench, gateway: GatewayName) -> SubscriptionAnswer:
    """The customer has asked for the code of the next period, two days ahead."""
    bench.script.outcomes.extend([None, bench.script.waits])
    await bench.sign_up(gateway=gateway, method_id=None)
    await bench.until("payment_requested")
    return await pays(bench, gateway)


async def pays(bench: Bench, gateway: GatewayName) -> SubscriptionAnswer:
    """The code of what is to be paid is shown."""
    way = PaymentWay(gateway=gateway, method=DEFAULT_WAYS[gateway])
    pay = PaySubscription(way=way)
    answer = await bench.handle.execute_update(SubscriptionWorkflow.pay, pay)
    while answer.payment_id not in bench.script.payments:
        await asyncio.sleep(0.01)
    return answer


async def announced_ahead(bench: Bench) -> Announced:
    """WeChat Pay has been told of the deduction to come."""
    await bench.sign_up(gateway=GatewayName.WECHATPAY)
    await bench.until("activated")
    running = found(bench)
    sent_at = running.period.end - 4 * DAY
    announced = Announced(
        number=2, method_id=METHOD_ID, sent_at=sent_at, amount=running.plan.amount
    )
    bench.script.prepared.append(
        PreparedCharge(is_ready=False, at=running.period.end, announced=announced)
    )
    await bench.until("renewal_announced")
    return announced


class TestWaiting:
    async def test_for_alipays_window_it_ends_at_once(self, bench: Bench) -> None:
        await bench.sign_up(gateway=GatewayName.ALIPAY)
        await bench.until("activated")
        opens_at = found(bench).period.end + 9 * DAY
        bench.script.prepared.append(PreparedCharge(is_ready=False, at=opens_at))
        await after_the_end(bench)
        answer = await leave(bench)
        assert (answer.subscription.status, answer.payment_id) == (S.CANCELED, None)
        assert await bench.ended() is S.CANCELED
        assert len(bench.script.charged) == 1

    async def test_for_wechat_pays_days_the_notice_lapses(self, bench: Bench) -> None:
        announced = await announced_ahead(bench)
        bench.script.prepared.append(
            PreparedCharge(is_ready=False, at=found(bench).period.end + 2 * DAY)
        )
        await after_the_end(bench)
        assert bench.script.known.announced == announced
        assert (await leave(bench)).subscription.status is S.CANCELED
        assert await bench.ended() is S.CANCELED
        assert len(bench.script.charged) == 1

    async def test_announced_and_not_due_it_ends_uncharged(self, bench: Bench) -> None:
        await announced_ahead(bench)
        assert (await leave(bench)).subscription.cancel_at_period_end
        await until_left(bench, found(bench).period.end)

    async def test_announced_and_taken_back_the_notice_stands(self, bench: Bench) -> None:
        announced = await announced_ahead(bench)
        await leave(bench)
        await stay(bench)
        await bench.until("renewed")
        assert bench.script.names.count("renewal_announced") == 1
        assert bench.script.preparations[-1].announced == announced

    async def test_for_a_retry_it_ends_at_once(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, SOFT])
        await bench.sign_up()
        await bench.until("past_due")
        assert (await leave(bench)).subscription.status is S.CANCELED
        assert await bench.ended() is S.CANCELED
        assert bench.script.known.debt is None
        assert len(bench.script.charged) == 2


@pytest.mark.parametrize("gateway", list(GatewayName))
class TestCharged:
    """The period is over, and the saved method is charged for the next."""

    async def charged(self, bench: Bench, gateway: GatewayName) -> str:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up(gateway=gateway)
        await bench.until("activated")
        await after_the_end(bench, timedelta(minutes=1))
        answer = await leave(bench)
        assert answer.payment_id is not None
        assert (answer.subscription.status, answer.subscription.cancel_at_period_end) == (
            S.ACTIVE,
            True,
        )
        return answer.payment_id

    async def test_paid_it_ends_with_the_next_period(
        self, bench: Bench, gateway: GatewayName
    ) -> None:
        payment_id = await self.charged(bench, gateway)
        await bench.environment.sleep(timedelta(minutes=1))
        assert bench.script.payments[payment_id].status is PaymentStatus.REQUIRES_ACTION
        bench.script.pays_waiting = True
        await bench.until("renewed")
        assert found(bench).cancel_at_period_end
        await until_left(bench, found(bench).period.end, 2)

    async def test_declined_it_ends(self, bench: Bench, gateway: GatewayName) -> None:
        payment_id = await self.charged(bench, gateway)
        paying = bench.script.payments[payment_id]
        paying.status, paying.failure = PaymentStatus.FAILED, HARD
        assert await bench.ended() is S.CANCELED
        assert found(bench).failure == HARD
        assert "past_due" not in bench.script.names

    async def test_taken_back_it_goes_on(self, bench: Bench, gateway: GatewayName) -> None:
        await self.charged(bench, gateway)
        answer = await stay(bench)
        assert not answer.subscription.cancel_at_period_end
        bench.script.pays_waiting = True
        await bench.until("renewed", 2)


@by_code
class TestByHand:
    async def test_the_code_is_closed(self, bench: Bench, gateway: GatewayName) -> None:
        answer = await asked_ahead(bench, gateway)
        assert answer.payment_id is not None
        answer = await leave(bench)
        assert answer.subscription.cancel_at_period_end
        await bench.until("charge_failed", most=timedelta(minutes=5))
        assert bench.script.payments[str(answer.payment_id)].status.is_terminal
        assert found(bench).failure is None
        await until_left(bench, found(bench).period.end, 2)

    async def test_paid_as_it_is_closed_it_ends_with_the_next_period(
        self, bench: Bench, gateway: GatewayName
    ) -> None:
        answer = await asked_ahead(bench, gateway)
        bench.script.payments[str(answer.payment_id)].status = PaymentStatus.SUCCEEDED
        await leave(bench)
        await bench.until("renewed")
        assert found(bench).period.number == 2
        await until_left(bench, found(bench).period.end, 2)

    async def test_paid_ahead_it_ends_with_what_is_paid(
        self, bench: Bench, gateway: GatewayName
    ) -> None:
        payment_id = (await asked_ahead(bench, gateway)).payment_id
        bench.script.pays_waiting = True
        await bench.environment.sleep(timedelta(hours=2))
        answer = await leave(bench)
        assert (answer.subscription.cancel_at_period_end, answer.payment_id) == (True, None)
        assert bench.script.payments[str(payment_id)].status is PaymentStatus.SUCCEEDED
        assert (found(bench).period.number, bench.script.known.charges) == (1, 2)
        await bench.until("renewed")
        await until_left(bench, found(bench).period.end, 2)

    async def test_paid_ahead_and_taken_back_it_goes_on(
        self, bench: Bench, gateway: GatewayName
    ) -> None:
        await asked_ahead(bench, gateway)
        bench.script.pays_waiting = True
        await bench.environment.sleep(timedelta(hours=2))
        await leave(bench)
        assert not (await stay(bench)).subscription.cancel_at_period_end
        await bench.until("renewed")
        await bench.until("payment_requested", 2)

    async def test_a_debts_code_is_closed_and_it_ends(
        self, bench: Bench, gateway: GatewayName
    ) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up(gateway=gateway, method_id=None)
        await bench.until("past_due")
        payment_id = (await pays(bench, gateway)).payment_id
        assert (await leave(bench)).subscription.cancel_at_period_end
        assert await bench.ended() is S.CANCELED
        assert bench.script.names[-1] == "canceled"
        assert bench.script.payments[str(payment_id)].status is not PaymentStatus.SUCCEEDED

    async def test_the_code_is_closed_by_a_new_run(
        self, bench: Bench, gateway: GatewayName
    ) -> None:
        """The process was lost with the command written, and the payment not told."""
        answer = await asked_ahead(bench, gateway)
        await bench.handle.terminate("lost")
        leaving = found(bench).model_copy(update={"cancel_at_period_end": True})
        bench.script.standing = bench.script.known.model_copy(update={"subscription": leaving})
        start = (await bench.start(gateway=gateway, method_id=None)).model_copy(
            update={"resumed": True}
        )
        await bench.client.start_workflow(
            SubscriptionWorkflow.run, start, id=bench.subscription_id, task_queue=CORE
        )
        # The server's clock stands still meanwhile: it loses a task of one that it skips time for.
        while "charge_failed" not in bench.script.names:
            await asyncio.sleep(0.01)
        assert bench.script.payments[str(answer.payment_id)].status.is_terminal
        assert found(bench).cancel_at_period_end


async def test_runs_that_refused_it_go_on_as_they_began(environment: WorkflowEnvironment) -> None:
    before = [RefusesInCharges, *(one for one in WORKFLOWS if one is not SubscriptionWorkflow)]
    async with open_bench(environment, workflows=before) as bench:
        await asked_ahead(bench, GatewayName.ALIPAY)
        code = "subscription_not_changeable"
        assert await refused(bench, SubscriptionWorkflow.cancel, LEAVE) == code
        assert await refused(bench, SubscriptionWorkflow.resume, ResumeSubscription()) == code
        bench.script.pays_waiting = True
        await bench.until("renewed")
        await leave(bench)
        await until_left(bench, found(bench).period.end, 2)


async def test_nothing_that_has_not_begun_ends_with_its_period(bench: Bench) -> None:
    bench.script.outcomes.append(bench.script.waits)
    await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
    assert await refused(bench, SubscriptionWorkflow.cancel, LEAVE) == (
        "subscription_not_changeable"
    )
    bench.script.pays_waiting = True
    await bench.until("activated")
    assert (await leave(bench)).subscription.cancel_at_period_end


@pytest.mark.parametrize("at_period_end", [True, False])
async def test_nothing_is_charged_after_a_cancel_that_comes_as_the_mandate_is_made_ready(
    environment: WorkflowEnvironment, at_period_end: bool
) -> None:
    script = SlowToPrepare()
    async with open_bench(environment, script) as bench:
        await bench.sign_up(gateway=GatewayName.ALIPAY)
        await bench.until("activated")
        script.bench, script.command = bench, CancelSubscription(at_period_end=at_period_end)
        await after_the_end(bench)
        assert script.given is not None
        assert (await script.given.result()).subscription.status is S.CANCELED
        assert await bench.ended() is S.CANCELED
        assert len(script.charged) == 1
        assert script.names[-2:] == ["activated", "canceled"]
