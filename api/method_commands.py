"""Commands about saved methods: to the workflow of the set-up, or to the one for afterwards."""

from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.workflow import UpdateMethodMultiParam

from api.commands import Commands, NotRunning
from billing.identifiers import after_workflow_id
from billing.messages import Command
from billing.method import SavedMethod
from billing.method_messages import DeleteMethod, MethodAfterInput, MethodEnded, MethodOrder
from runtime import attributes
from runtime.queues import CORE
from workflows.method import MethodAfterWorkflow, MethodSetupWorkflow

_Given = TypeVar("_Given", bound=Command)

_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)


async def save(
    commands: Commands, order: MethodOrder, command_id: str, *, is_recorded: bool
) -> SavedMethod | None:
    """The method once the payer has instructions; None while it is under way.

    Update-with-start is for methods without a row only. Raises NotRunning where it has ended.
    """
    message = Command(application=order.application)
    if is_recorded:
        return await commands.tell(MethodSetupWorkflow.create, message, order.method_id, command_id)
    return await commands.start(
        MethodSetupWorkflow.create, message, _starting(order), order.method_id, command_id
    )


async def delete(
    commands: Commands,
    method: SavedMethod,
    application: str,
    command_id: str,
    *,
    is_forced: bool,
    is_recorded: bool,
) -> SavedMethod | None:
    """The method once it has ended here and at its gateway; None while it is under way. Raises
    MethodInUse unless it is forced, and NotRunning where there is neither a row nor a workflow."""
    message = DeleteMethod(application=application, is_forced=is_forced)
    try:
        return await commands.tell(MethodSetupWorkflow.revoke, message, method.id, command_id)
    except NotRunning:
        if not is_recorded:
            raise
    return await _afterwards(commands, MethodAfterWorkflow.revoke, message, method, command_id)


async def make_default(
    commands: Commands, method: SavedMethod, application: str, command_id: str
) -> SavedMethod | None:
    """The method as the default; None while it is under way. Raises MethodNotActive."""
    message = Command(application=application)
    return await _afterwards(
        commands, MethodAfterWorkflow.make_default, message, method, command_id
    )


async def _afterwards(
    commands: Commands,
    update: UpdateMethodMultiParam[[Any, _Given], SavedMethod],
    message: _Given,
    method: SavedMethod,
    command_id: str,
) -> SavedMethod | None:
    workflow_id = after_workflow_id(method.id)
    starting: WithStartWorkflowOperation[MethodAfterWorkflow, MethodEnded] = (
        WithStartWorkflowOperation(
            MethodAfterWorkflow.run,
            MethodAfterInput(method_id=method.id, gateway=method.gateway),
            id=workflow_id,
            task_queue=CORE,
            task_timeout=_WORKFLOW_TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            search_attributes=attributes.at_method_start(
                method.user_id, method.gateway, method.status
            ),
            static_summary=f"after {attributes.method_summary(method.gateway)}",
        )
    )
    return await commands.start(update, message, starting, workflow_id, command_id)


def _starting(order: MethodOrder) -> WithStartWorkflowOperation[MethodSetupWorkflow, MethodEnded]:
    """One that was lost before it had a row may be started again."""
    return WithStartWorkflowOperation(
        MethodSetupWorkflow.run,
        order,
        id=order.method_id,
        task_queue=CORE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        search_attributes=attributes.at_method_start(order.user_id, order.gateway),
        static_summary=attributes.method_summary(order.gateway),
    )
