"""Renewals carried out 48 hours late: each is billed once, for the period that had begun, and the
dates of those to come do not move.

Its process is away from before the due time until after it, and goes on from the record: the test
server's clock stands still while a task waits for a worker that is off."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from temporalio import activity
from temporalio.testing import WorkflowEnvironment

from billing.payment import GatewayName, PaymentMethod
from billing.rails import WechatStanding, next_by_day, next_wechat_deduct, wechat_window
from billing.subscription import StepKind, SubscriptionStatus
from billing.subscription_messages import (
    Announced,
    PaymentWay,
    PaySubscription,
    PrepareCharge,
    PreparedCharge,
)
from runtime.queues import CORE
from tests.billing.calendar_reference import boundary
from tests.workflows.scripted_subscription import METHOD_ID, SOFT, ScriptedSubscription
from tests.workflows.subscribing import Bench, open_bench
from workflows import SubscriptionWorkflow

LATE = timedelta(hours=48)
BY_HAND = PaySubscription(
    way=PaymentWay(gateway=GatewayName.ALIPAY, method=PaymentMethod.QR, return_url=None)
)


class ContractRecord(ScriptedSubscription):
    """A contract of WeChat Pay that keeps the windows; Alipay's and cards have none."""

    @activity.defn(name="subscription.prepare")
    async def prepare(self, request: PrepareCharge) -> PreparedCharge:
        self._hear(request)
        if request.gateway is not GatewayName.WECHATPAY or request.kind is StepKind.SIGN_UP:
            return PreparedCharge(is_ready=request.due_at <= request.now, at=request.due_at)
        announced = request.announced
        if announced is not None and announced.number != request.number:
            announced = None
        signed_at = self.known.subscription.created_at
        standing = WechatStanding(
            signed_at=signed_at, notice=announced, deducted_since_signing=True
        )
        at = next_wechat_deduct(standing, request.amount, max(request.now, request.due_at))
        if at is None:
            announced = Announced(number=request.number, sent_at=request.now, amount=request.amount)
            at = next_by_day(max(wechat_window(announced).opens_at, request.due_at))
        return PreparedCharge(is_ready=at <= request.now, at=at, announced=announced)


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    async with open_bench(environment, ContractRecord()) as opened:
        yield opened


async def away(bench: Bench, ahead: timedelta) -> None:
    """The process stops so long before the period's end, and goes on 48 hours after it."""
    end = bench.script.known.subscription.period.end
    start = (await bench.start()).model_copy(update={"resumed": True})
    await bench.environment.sleep(end - ahead - await bench.environment.get_current_time())
    before = bench.script.known
    await bench.handle.terminate("the worker is off")
    await bench.environment.sleep(end + LATE - await bench.environment.get_current_time())
    assert bench.script.known.version == before.version
    await bench.client.start_workflow(
        SubscriptionWorkflow.run, start, id=bench.subscription_id, task_queue=CORE
    )


async def falls_silent(bench: Bench, late: timedelta) -> datetime:
    """The gateway says nothing from an hour before the period's end until so late after it."""
    end = bench.script.known.subscription.period.end
    before = end - timedelta(hours=1) - await bench.environment.get_current_time()
    await bench.environment.sleep(before)
    bench.script.silent_until = end + late
    return end


def holds(bench: Bench, number: int) -> None:
    """So many periods were charged once each, at their price, on the days that a calendar has."""
    found = bench.script.known.subscription
    local, zone = found.schedule.anchor.local, found.zone
    assert found.status is SubscriptionStatus.ACTIVE
    assert found.period.number == number
    assert found.period.start == boundary(local, zone, number - 1)
    assert found.period.end == boundary(local, zone, number)
    assert found.paid is not None
    assert (found.paid.start, found.paid.end) == (found.period.start, found.period.end)
    assert [order.amount_minor for order in bench.script.charged] == [found.plan.amount] * number
    opened = [write.opened for write in bench.script.writes if write.opened is not None]
    assert [charge.period_number for charge in opened] == list(range(1, number + 1))


@pytest.mark.parametrize(
    ("gateway", "ahead"),
    [
        (GatewayName.STRIPE, timedelta(hours=1)),
        (GatewayName.ALIPAY, timedelta(hours=1)),
        (GatewayName.WECHATPAY, timedelta(hours=1)),
        (GatewayName.WECHATPAY, timedelta(days=7)),
    ],
    ids=["card", "agreement", "contract", "contract-not-announced"],
)
async def test_charged_to_a_saved_method(
    bench: Bench, gateway: GatewayName, ahead: timedelta
) -> None:
    await bench.sign_up(gateway=gateway, method_id=METHOD_ID)
    await bench.until("activated")
    end = bench.script.known.subscription.period.end
    await away(bench, ahead)
    await bench.until("renewed")
    holds(bench, 2)
    assert bench.script.charged[-1].created_at >= end + LATE
    await bench.until("renewed", 2)
    holds(bench, 3)
    assert bench.script.charged[
        -1
    ].created_at - bench.script.known.subscription.period.start < timedelta(days=1)


async def test_asked_for_and_paid_by_hand(bench: Bench) -> None:
    bench.script.outcomes.extend([None, bench.script.waits, bench.script.waits])
    await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
    await bench.until("payment_requested")
    end = bench.script.known.subscription.period.end
    await away(bench, timedelta(hours=1))
    await bench.until("past_due", most=timedelta(minutes=5))
    late = bench.script.known
    assert late.debt is not None
    assert (late.debt.due_at, late.subscription.period.start) == (end, end)
    bench.script.pays_waiting = True
    await bench.handle.execute_update(SubscriptionWorkflow.pay, BY_HAND)
    await bench.until("recovered")
    holds(bench, 2)
    # The third period is asked for ahead, as if the second had come in time.
    await bench.until("payment_requested", bench.script.names.count("payment_requested") + 1)
    await bench.handle.execute_update(SubscriptionWorkflow.pay, BY_HAND)
    await bench.until("renewed")
    holds(bench, 3)


async def test_paid_by_hand_ahead(bench: Bench) -> None:
    bench.script.outcomes.extend([None, bench.script.waits])
    await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
    await bench.until("payment_requested")
    await bench.handle.execute_update(SubscriptionWorkflow.pay, BY_HAND)
    bench.script.pays_waiting = True
    await away(bench, timedelta(hours=1))
    await bench.until("renewed", most=timedelta(minutes=5))
    holds(bench, 2)


@pytest.mark.parametrize(
    ("gateway", "latest"),
    [(GatewayName.ALIPAY, timedelta(hours=12)), (GatewayName.WECHATPAY, timedelta(days=1))],
)
async def test_a_gateway_that_is_silent_for_hours_is_asked_again(
    bench: Bench, gateway: GatewayName, latest: timedelta
) -> None:
    await bench.sign_up(gateway=gateway, method_id=METHOD_ID)
    await bench.until("activated")
    end = await falls_silent(bench, timedelta(hours=9))
    await bench.until("renewed")
    holds(bench, 2)
    renewal = bench.script.charged[-1]
    assert renewal.payment_method_id == METHOD_ID
    assert timedelta(hours=9) <= renewal.created_at - end <= latest


async def test_a_gateway_that_is_silent_for_a_day_has_the_customer_asked(bench: Bench) -> None:
    await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=METHOD_ID)
    await bench.until("activated")
    end = await falls_silent(bench, timedelta(days=9))
    await bench.until("past_due")
    [*_, (_, asked_at)] = bench.script.events
    assert timedelta(days=1) <= asked_at - end <= timedelta(days=1, hours=3)
    assert bench.script.known.debt is not None
    assert bench.script.known.debt.method_id is None


async def test_what_is_owed_does_not_wait_for_a_silent_gateway(bench: Bench) -> None:
    """By what is owed the customer is past due already: the next means is taken."""
    bench.script.outcomes.extend([None, SOFT])
    await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=METHOD_ID)
    await bench.until("past_due")
    bench.script.silent_until = bench.script.known.subscription.period.end
    await bench.until("payment_requested")
    assert bench.script.known.debt is not None
    assert bench.script.known.debt.method_id is None
