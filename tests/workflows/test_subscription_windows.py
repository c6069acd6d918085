"""A renewal that waits for its mandate's window: what is told of when it is charged."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.testing import WorkflowEnvironment

from billing.payment import GatewayName
from billing.subscription import StepKind
from billing.subscription_messages import (
    Announced,
    CancelSubscription,
    PreparedCharge,
    WriteSubscription,
)
from runtime import attributes
from tests.workflows.subscribing import Bench, open_bench
from workflows import SubscriptionWorkflow


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    async with open_bench(environment) as opened:
        yield opened


async def waiting(bench: Bench, gateway: GatewayName, *, announces: bool = False) -> datetime:
    """It is due, and its mandate is told to be ready that much later."""
    await bench.sign_up(gateway=gateway)
    await bench.until("activated")
    found = bench.script.known.subscription
    at = found.period.end + timedelta(days=3, hours=5)
    ahead = PreparedCharge(is_ready=False, at=found.period.end)
    if gateway is GatewayName.WECHATPAY:
        bench.script.prepared.append(ahead)
    announced = None
    if announces:
        announced = Announced(
            number=2,
            method_id=found.payment_method_id,
            sent_at=found.period.end,
            amount=found.plan.amount,
        )
    bench.script.prepared.append(PreparedCharge(is_ready=False, at=at, announced=announced))
    await bench.until("rescheduled", most=timedelta(days=40))
    return at


def last(bench: Bench, name: str) -> WriteSubscription:
    [*_, found] = [one for one in bench.script.writes if one.event == f"subscription.{name}"]
    return found


async def told_to_operators(bench: Bench) -> tuple[datetime | None, str]:
    description = await bench.handle.describe()
    metadata = await bench.handle.query(
        "__temporal_workflow_metadata", result_type=WorkflowMetadata
    )
    at = description.typed_search_attributes.get(attributes.NEXT_CHARGE_AT)
    return at, metadata.current_details


@pytest.mark.parametrize(
    ("gateway", "announces"),
    [
        (GatewayName.ALIPAY, False),
        (GatewayName.WECHATPAY, False),
        (GatewayName.WECHATPAY, True),
    ],
    ids=["agreement", "contract-at-night", "contract-announced-late"],
)
async def test_it_is_told_when_the_window_opens(
    bench: Bench, gateway: GatewayName, announces: bool
) -> None:
    at = await waiting(bench, gateway, announces=announces)
    told = last(bench, "rescheduled")
    assert (told.next_at, told.data) == (at, {"charge_at": at.isoformat()})
    attribute, details = await told_to_operators(bench)
    assert attribute == at
    assert f"next {at:%Y-%m-%d %H:%M} UTC" in details
    await bench.until("renewed", most=timedelta(days=6))
    assert bench.script.names.count("rescheduled") == 1
    assert bench.script.names.count("renewal_announced") == announces
    assert bench.script.charged[-1].created_at >= at
    asked = [one.now for one in bench.script.preparations if one.kind is StepKind.RENEWAL]
    end = bench.script.known.subscription.period.start
    assert [one >= at for one in asked if one >= end] == [False, True]
    attribute, _ = await told_to_operators(bench)
    assert attribute == bench.script.known.subscription.period.end


async def test_what_is_put_off_once_more_is_told_anew(bench: Bench) -> None:
    at = await waiting(bench, GatewayName.ALIPAY)
    later = at + timedelta(days=3)
    bench.script.prepared.append(PreparedCharge(is_ready=False, at=later))
    await bench.until("rescheduled", 2, most=timedelta(days=6))
    assert last(bench, "rescheduled").next_at == later
    attribute, _ = await told_to_operators(bench)
    assert attribute == later


async def test_an_end_does_not_wait(bench: Bench) -> None:
    await waiting(bench, GatewayName.ALIPAY)
    command = CancelSubscription(at_period_end=False)
    await bench.handle.execute_update(SubscriptionWorkflow.cancel, command)
    assert last(bench, "canceled").next_at is None
