"""What was announced was announced of one contract: another one must be announced by itself."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from billing.calendar import Cycle
from billing.payment import GatewayName, PaymentMethod
from billing.plans import Tier
from billing.rails import BEIJING
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


async def announced(bench: Bench) -> Announced:
    """The renewal is announced four days before it is due."""
    await bench.sign_up(gateway=GatewayName.WECHATPAY)
    await bench.until("activated")
    found = bench.script.known.subscription
    told = Announced(
        number=2,
        method_id=found.payment_method_id,
        sent_at=found.period.end - timedelta(days=4),
        amount=found.plan.amount,
    )
    end = found.period.end
    bench.script.prepared.append(PreparedCharge(is_ready=False, at=end, announced=told))
    await bench.until("renewal_announced")
    return told


async def made_dearer(bench: Bench, *, hour: int = 12) -> datetime:
    """At that hour in Beijing."""
    now = (await bench.environment.get_current_time()).astimezone(BEIJING)
    at = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    await bench.environment.sleep((at - now) % timedelta(days=1))
    quarterly = ChangeSubscription(plan=plan(Tier.PREMIUM, Cycle.QUARTERLY))
    await bench.handle.execute_update(SubscriptionWorkflow.change, quarterly)
    [chosen] = [one for one in bench.script.writes if one.event.endswith(".change_scheduled")]
    return chosen.now


@pytest.mark.parametrize("hour", [12, 23])
async def test_a_dearer_plan_is_announced_as_it_is_chosen(bench: Bench, hour: int) -> None:
    """Announced only when due, it would be charged days late: more than was announced is never
    deducted. By night WeChat Pay takes no notices."""
    told = await announced(bench)
    dearer, end = plan(Tier.PREMIUM, Cycle.QUARTERLY), bench.script.known.subscription.period.end
    anew = told.model_copy(update={"amount": dearer.amount})
    bench.script.prepared.append(PreparedCharge(is_ready=False, at=end, announced=anew))
    chosen_at = await made_dearer(bench, hour=hour)
    await bench.until("renewal_announced", 2, most=timedelta(days=1))
    last = bench.script.writes[-1]
    assert (last.announced, last.data, last.next_at) == (anew, {"amount": dearer.amount}, end)
    at = chosen_at if hour == 12 else chosen_at + timedelta(hours=8, minutes=5)
    assert abs(last.now - at) < timedelta(minutes=2)
    await bench.until("renewed")
    assert bench.script.names.count("renewal_announced") == 2
    asked = [one for one in bench.script.preparations if one.kind is StepKind.RENEWAL]
    assert [one.announced for one in asked] == [None, told, anew]
    assert bench.script.charged[-1].amount_minor == dearer.amount


async def test_what_needs_no_other_notice_is_not_asked_for_again(bench: Bench) -> None:
    """As the first deduction after signing."""
    told = await announced(bench)
    end = bench.script.known.subscription.period.end
    bench.script.prepared.append(PreparedCharge(is_ready=False, at=end, announced=told))
    await made_dearer(bench)
    await bench.until("renewed")
    asked = [one for one in bench.script.preparations if one.kind is StepKind.RENEWAL]
    assert [one.now >= end for one in asked] == [False, False, True]


async def test_a_dearer_notice_that_is_refused_leaves_it_to_the_due_date(bench: Bench) -> None:
    await announced(bench)
    end = bench.script.known.subscription.period.end
    bench.script.prepared.extend([PreparedCharge(is_ready=False)] * 2)
    await made_dearer(bench)
    await bench.until("past_due")
    asked = [one for one in bench.script.preparations if one.kind is StepKind.RENEWAL]
    assert [one.now >= end for one in asked] == [False, False, True]
