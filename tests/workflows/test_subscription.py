"""A subscription's workflow on the time-skipping server. Each test ends with its history replayed.

Workflows are cached, unlike in the other suites: without a cache a task takes long enough for a
payment to end within that of its subscription, and the test server then loses the task."""

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.client import (
    WorkflowExecutionStatus,
)
from temporalio.testing import WorkflowEnvironment

from billing.payment import GatewayName, PaymentMethod
from billing.rails import wechat_window
from billing.subscription import Access, StepKind, SubscriptionStatus
from billing.subscription_messages import (
    Announced,
    ChangeMethod,
    OperateSubscription,
    OperatorAction,
    PaymentWay,
    PaySubscription,
    PreparedCharge,
)
from tests.workflows.scripted_subscription import (
    HARD,
    METHOD_ID,
    SOFT,
)
from tests.workflows.subscribing import Bench, open_bench
from workflows import SubscriptionWorkflow, policies

OTHER_ID = "pm_01hf7yat00e00000000000000c"


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    async with open_bench(environment) as opened:
        yield opened


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

    async def test_above_what_a_card_may_be_charged_it_is_paid_by_hand(self, bench: Bench) -> None:
        bench.script.prepared.append(PreparedCharge(is_ready=False))
        await bench.sign_up()
        await bench.until("activated")
        [order] = bench.script.charged
        assert (order.method, order.payment_method_id) == (PaymentMethod.CARD, None)

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

    async def test_another_contract_is_announced_in_time(self, bench: Bench) -> None:
        now = await bench.environment.get_current_time()
        bench.script.prepared.append(PreparedCharge(is_ready=True, at=now))
        bench.script.prepared.append(PreparedCharge(is_ready=False))
        await bench.sign_up(gateway=GatewayName.WECHATPAY)
        await bench.until("activated")
        found = bench.script.known.subscription
        while len(bench.script.preparations) < 2:
            await bench.environment.sleep(timedelta(hours=6))
        other = ChangeMethod(gateway=GatewayName.WECHATPAY, payment_method_id=OTHER_ID)
        now = await bench.environment.get_current_time()
        announced = Announced(number=2, sent_at=now, amount=found.plan.amount)
        bench.script.prepared.append(
            PreparedCharge(is_ready=False, at=found.period.end, announced=announced)
        )
        await bench.handle.execute_update(SubscriptionWorkflow.change_method, other)
        await bench.until("renewal_announced")
        asked = bench.script.preparations[2]
        assert (asked.method_id, asked.now < found.period.end) == (OTHER_ID, True)
        await bench.until("renewed")
        assert bench.script.preparations[-1].announced == announced

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

    async def test_an_operators_retry_waits_for_its_window(self, bench: Bench) -> None:
        now = await bench.environment.get_current_time()
        bench.script.outcomes.extend([None, HARD])
        bench.script.prepared.extend([PreparedCharge(is_ready=True, at=now)])
        await bench.sign_up(gateway=GatewayName.ALIPAY)
        await bench.until("past_due")
        await bench.until("payment_requested")
        at = await bench.environment.get_current_time() + timedelta(days=3)
        bench.script.prepared.append(PreparedCharge(is_ready=False, at=at))
        retry = OperateSubscription(action=OperatorAction.RETRY, reason="r", operated_by="k")
        await bench.handle.execute_update(SubscriptionWorkflow.operate, retry)
        assert "retry_postponed" in bench.script.names
        await bench.until("recovered", most=timedelta(days=6))

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
