"""Test clocks: one workflow's own time is moved on, by Temporal's time skipping.

The server offers it where `frontend.WorkflowTimeSkippingEnabled` is set, as the embedded one does.
While an activity or a child of the workflow is under way its clock stands still; children are
started at its time, and keep wall rate.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import FastForwardConfig, TimeSkippingConfig, WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    UpdateWorkflowExecutionOptionsRequest,
)
from temporalio.client import Client

LONGEST_STEP: Final = timedelta(days=366)
_LOOK_SECONDS: Final = 0.1
_MOST_SKIPS: Final = 10_000


@dataclass(frozen=True)
class WorkflowClock:
    """A workflow's own time; `is_held` tells that something under way holds it, `is_over` that the
    workflow has ended."""

    now: datetime
    is_held: bool
    is_over: bool = False


async def read_clock(client: Client, workflow_id: str) -> WorkflowClock:
    """Raises RPCError, of NOT_FOUND where there is no such workflow."""
    found = await _describe(client, workflow_id)
    is_held = bool(found.pending_activities or found.pending_children)
    info = found.workflow_extended_info.time_skipping_info
    now = datetime.now(UTC)
    if info.HasField("current_time"):
        now = max(now, info.current_time.ToDatetime(UTC))
    status = found.workflow_execution_info.status
    return WorkflowClock(
        now,
        is_held or found.HasField("pending_workflow_task"),
        is_over=status != WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING,
    )


async def advance_clock(
    client: Client, workflow_id: str, by: timedelta, *, step_id: str, patience: timedelta
) -> WorkflowClock:
    """Move the workflow's time on; its clock once it is there, or as far as it got in that
    patience: it goes on when what holds it is over.

    Raises ValueError for more than a year or less than a second, TimeoutError where it was held all
    along and was not moved at all, and RPCError, of INVALID_ARGUMENT where the server does not
    offer it.
    """
    if not timedelta(seconds=1) <= by <= LONGEST_STEP:
        raise ValueError(f"a step is a second to {LONGEST_STEP.days} days")
    async with asyncio.timeout(patience.total_seconds()):
        clock = await read_clock(client, workflow_id)
        while clock.is_held:
            await asyncio.sleep(_LOOK_SECONDS)
            clock = await read_clock(client, workflow_id)
    target = clock.now + by
    await client.workflow_service.update_workflow_execution_options(
        UpdateWorkflowExecutionOptionsRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            workflow_execution_options=WorkflowExecutionOptions(
                time_skipping_config=TimeSkippingConfig(
                    enabled=True,
                    disable_propagation=True,
                    max_session_skip_count=_MOST_SKIPS,
                    fast_forward_config=FastForwardConfig(id=step_id, duration=_duration(by)),
                )
            ),
            update_mask=FieldMask(paths=["time_skipping_config"]),
        )
    )
    try:
        async with asyncio.timeout(patience.total_seconds()):
            while not clock.is_over and (clock.is_held or clock.now < target):
                await asyncio.sleep(_LOOK_SECONDS)
                clock = await read_clock(client, workflow_id)
    except TimeoutError:
        return clock
    return clock


async def _describe(client: Client, workflow_id: str) -> DescribeWorkflowExecutionResponse:
    return await client.workflow_service.describe_workflow_execution(
        DescribeWorkflowExecutionRequest(
            namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id)
        )
    )


def _duration(by: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(by)
    return duration
