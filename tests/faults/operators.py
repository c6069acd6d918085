"""What a test does to a running workflow by Temporal's own commands, as an operator could."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import TimeSkippingConfig, WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import (
    UpdateActivityOptionsRequest,
    UpdateWorkflowExecutionOptionsRequest,
)
from temporalio.client import Client


async def shorten_budget(
    client: Client, workflow_id: str, activity_type: str, budget: timedelta
) -> None:
    """Give the activity under way another schedule-to-close. Raises RPCError if there is none."""
    schedule_to_close = Duration()
    schedule_to_close.FromTimedelta(budget)
    await client.workflow_service.update_activity_options(
        UpdateActivityOptionsRequest(
            namespace=client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id),
            type=activity_type,
            activity_options=ActivityOptions(schedule_to_close_timeout=schedule_to_close),
            update_mask=FieldMask(paths=["schedule_to_close_timeout"]),
        )
    )


async def skip_time(client: Client, workflow_id: str) -> None:
    """From now on this workflow's timers fire as soon as nothing else is going on in it."""
    await client.workflow_service.update_workflow_execution_options(
        UpdateWorkflowExecutionOptionsRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            workflow_execution_options=WorkflowExecutionOptions(
                time_skipping_config=TimeSkippingConfig(enabled=True)
            ),
            update_mask=FieldMask(paths=["time_skipping_config"]),
        )
    )
