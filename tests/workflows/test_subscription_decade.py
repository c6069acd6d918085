"""Ten years of a monthly subscription that began on a 31st, on the time-skipping server."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from billing.identifiers import SUBSCRIPTION, make_id
from billing.payment import GatewayName
from runtime.queues import CORE, gateway_queue
from tests.billing.calendar_reference import boundary
from tests.workflows.scripted_subscription import ScriptedSubscription, subscription_start
from worker import WORKFLOW_RUNNER
from workflows import WORKFLOWS, SubscriptionWorkflow, policies

MONTHS = 120
MOST_EVENTS_IN_A_RUN = 500


@pytest.fixture
async def script(environment: WorkflowEnvironment) -> AsyncIterator[ScriptedSubscription]:
    script = ScriptedSubscription()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                environment.client,
                task_queue=CORE,
                workflows=WORKFLOWS,
                activities=script.core_activities,
                workflow_runner=WORKFLOW_RUNNER,
            )
        )
        await stack.enter_async_context(
            Worker(
                environment.client,
                task_queue=gateway_queue(GatewayName.STRIPE),
                activities=script.gateway_activities,
            )
        )
        yield script


@pytest.mark.parametrize(
    "zone",
    [
        "Australia/Lord_Howe",
        pytest.param("America/New_York", marks=pytest.mark.soak),
        pytest.param("Asia/Shanghai", marks=pytest.mark.soak),
    ],
)
async def test_every_month_on_its_day(
    environment: WorkflowEnvironment, script: ScriptedSubscription, zone: str
) -> None:
    now = await environment.get_current_time()
    begins_at = datetime(now.year + 1, 1, 31, 1, 30, tzinfo=ZoneInfo(zone))
    local = begins_at.replace(tzinfo=None)
    await environment.sleep(begins_at - now)
    subscription_id = make_id(SUBSCRIPTION, 1, b"\x01" * 10)
    handle = await environment.client.start_workflow(
        SubscriptionWorkflow.run,
        subscription_start(subscription_id, begins_at, zone=zone),
        id=subscription_id,
        task_queue=CORE,
    )
    longest = 0
    for _ in range(MONTHS * 4):
        if len(script.charged) >= MONTHS:
            break
        await environment.sleep(timedelta(days=20))
        information = (await handle.describe()).raw_description.workflow_execution_info
        longest = max(longest, information.history_length)
    due = [order.created_at.replace(microsecond=0) for order in script.charged[:MONTHS]]
    expected = [boundary(local, zone, months) for months in range(MONTHS)]
    late = [found - wanted for found, wanted in zip(due[1:], expected[1:], strict=True)]
    assert all(timedelta() <= one < timedelta(minutes=1) for one in late), late
    renewed = [write for write in script.writes if write.event == "subscription.renewed"]
    starts = [write.subscription.period.start for write in renewed[: MONTHS - 1]]
    assert starts == expected[1:]
    assert longest < MOST_EVENTS_IN_A_RUN
    assert policies.CYCLES_IN_A_RUN < MONTHS
