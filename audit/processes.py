"""Whether what needs a process has one that runs."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from audit.evidence import Evidence, Finding
from runtime.temporal import describe_namespace


async def without_process(
    evidence: Evidence,
    promise: int,
    that_need_one: Callable[[Evidence], Awaitable[list[str]]],
    what: str,
) -> list[Finding]:
    """An object may end between two looks at it; so whatever has no workflow is looked at again."""
    suspects = [one for one in await that_need_one(evidence) if not await _runs(evidence, one)]
    still = set(await that_need_one(evidence)) if suspects else set()
    return [
        Finding(promise, one, what, f"`everbill resume {one}`") for one in suspects if one in still
    ]


async def was_never_known(evidence: Evidence, workflow_id: str, since: datetime) -> bool:
    """Whether Temporal knows of no run that started `since` or later, ended ones included, and has
    not forgotten one by itself: it keeps runs for longer, and was there before. Not told apart is
    what was deleted in it or lost with a restore of it. False where it cannot be asked."""
    client = evidence.client
    if client is None or await _status(client, workflow_id) is not None:
        return False
    namespace = await describe_namespace(client)
    retention = namespace.config.workflow_execution_retention_ttl.ToTimedelta()
    if since < evidence.now - retention:
        return False
    # It does not say since when it is there; an older run does.
    older = await client.count_workflows(f"StartTime < '{since.isoformat()}'")
    return older.count > 0


async def _runs(evidence: Evidence, workflow_id: str) -> bool:
    assert evidence.client is not None
    return await _status(evidence.client, workflow_id) is WorkflowExecutionStatus.RUNNING


async def _status(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status
    except RPCError as problem:
        if problem.status is not RPCStatusCode.NOT_FOUND:
            raise
        return None
