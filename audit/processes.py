"""Whether what needs a process has one that runs."""

from collections.abc import Awaitable, Callable

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from audit.evidence import Evidence, Finding


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


async def was_never_started(evidence: Evidence, workflow_id: str) -> bool:
    """Whether Temporal knows of no run, ended ones included; False where it cannot be asked."""
    return evidence.client is not None and await _status(evidence.client, workflow_id) is None


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
