"""What was announced was announced of one contract: another one must be announced by itself."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from billing.payment import GatewayName, PaymentMethod
from billing.plans import Tier
from billing.subscription import StepKind
from billing.subscription_messages import (
    Announced,
    ChangeMethod,
    ChangeSubscription,
    PauseSubscription,
    PaymentWay,
    PrepareCharge,
    PreparedCharge,
    ResumeSubscription,
)
from tests.billing.subscriptions import plan
from tests.workflows.scripted_subscription import HARD, SOFT
from tests.workflows.subscribing import Bench, open_bench
from workflows import SubscriptionWorkflow

OTHER = ChangeMethod(gateway=GatewayName.WECHATPAY, payment_method_id="pm_other")


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    async with open_bench(environment) as opened:
        yield opened


async def asked_of_the_other(bench: Bench) -> list[PrepareCharge]:
    """What the gateway is asked of the contract that is changed to, until the renewal."""
    await bench.handle.execute_update(SubscriptionWorkflow.change_method, OTHER)
    await bench.until("renewed")
    asked = [one for one in bench.script.preparations if one.kind is StepKind.RENEWAL]
    return [one for one in asked if one.method_id == OTHER.payment_method_id]


async def test_asked_by_hand_a_contract_is_not_announced(bench: Bench) -> None:
    await bench.sign_up(gateway=GatewayName.WECHATPAY, method_id=None)
    await bench.until("payment_requested")
    asked = await asked_of_the_other(bench)
    assert asked[0].announced is None


async def test_another_contract_is_not_announced(bench: Bench) -> None:
    await bench.sign_up(gateway=GatewayName.WECHATPAY)
    await bench.until("activated")
    found = bench.script.known.subscription
    sent_at = found.period.end - timedelta(days=4)
    announced = Announced(number=2, sent_at=sent_at, amount=found.plan.amount)
    bench.script.prepared.append(
        PreparedCharge(is_ready=False, at=found.period.end, announced=announced)
    )
    await bench.until("renewal_announced")
    asked = await asked_of_the_other(bench)
    assert asked[0].announced is None


async def test_a_contract_in_place_of_a_dead_one_is_announced_ahead(bench: Bench) -> None:
    await bench.sign_up(gateway=GatewayName.WECHATPAY)
    await bench.until("activated")
    end = bench.script.known.subscription.period.end
    bench.script.prepared.append(PreparedCharge(is_ready=False))
    while len(bench.script.preparations) < 2:
        await bench.environment.sleep(timedelta(hours=6))
    assert bench.script.preparations[-1].now < end - timedelta(days=3)
    asked = await asked_of_the_other(bench)
    assert asked[0].now < end


@pytest.mark.parametrize("ends_by_itself", [True, False])
async def test_the_end_of_a_pause_is_waited_for_unless_it_was_commanded(
    bench: Bench, ends_by_itself: bool
) -> None:
    await bench.sign_up(gateway=GatewayName.WECHATPAY)
    await bench.until("activated")
    end = bench.script.known.subscription.period.end
    until = end + timedelta(days=3) if ends_by_itself else None
    pause = PauseSubscription(at_period_end=True, until=until)
    await bench.handle.execute_update(SubscriptionWorkflow.pause, pause)
    await bench.until("paused")
    if not ends_by_itself:
        await bench.handle.execute_update(SubscriptionWorkflow.resume, ResumeSubscription())
    await bench.until("resumed")
    asked = [one for one in bench.script.preparations if one.kind is StepKind.RESUMPTION]
    assert {one.may_wait for one in asked} == {ends_by_itself}


async def test_a_notice_stands_until_its_charge_is_paid(bench: Bench) -> None:
    """WeChat Pay's window stays open where a deduction failed in it: another notice, and three more
    days, would be in vain."""
    await bench.sign_up(gateway=GatewayName.WECHATPAY)
    await bench.until("activated")
    found = bench.script.known.subscription
    announced = Announced(
        number=2,
        method_id=found.payment_method_id,
        sent_at=found.period.end - timedelta(days=4),
        amount=found.plan.amount,
    )
    end = found.period.end
    bench.script.prepared.append(PreparedCharge(is_ready=False, at=end, announced=announced))
    await bench.until("renewal_announced")
    change = ChangeSubscription(
        plan=plan(Tier.SUPER),
        way=PaymentWay(gateway=GatewayName.WECHATPAY, method=PaymentMethod.NATIVE),
    )
    bench.script.outcomes.extend([HARD, SOFT])
    await bench.handle.execute_update(SubscriptionWorkflow.change, change)
    await bench.until("change_failed")
    await bench.until("recovered")
    assert bench.script.names.count("renewal_announced") == 1
    asked = [one for one in bench.script.preparations if one.now >= end]
    assert [one.kind for one in asked] == [StepKind.RENEWAL, StepKind.PAYMENT]
    assert {one.announced for one in asked} == {announced}
    assert bench.script.known.announced is None
