"""Starts the refunds by which money that no payment waited for goes back."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from billing.messages import RefundRequest
from runtime import attributes
from runtime.queues import CORE
from workflows.refund import RefundWorkflow

_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)


async def start_returns(returns: Sequence[RefundRequest]) -> None:
    """Have each refund's workflow running, which outlives the one that started it.

    They are reserved in the record: one that cannot be started here is found by the sweep.
    """
    for refund in returns:
        try:
            await workflow.start_child_workflow(
                RefundWorkflow.run,
                refund,
                id=refund.refund_id,
                task_queue=CORE,
                task_timeout=_WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                search_attributes=attributes.at_refund_start(refund),
                static_summary=attributes.refund_summary(refund),
            )
        except WorkflowAlreadyStartedError:
            workflow.logger.info("the return is under way already")
