"""Commands to a payment's workflow, as Temporal updates with an answer within ten seconds."""

import asyncio
import secrets
from datetime import timedelta
from typing import Final, TypeVar

import structlog
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from api.problems import unavailable
from billing.identifiers import update_id
from billing.messages import Message, PaymentEnded, PaymentOrder
from billing.payment import Payment
from runtime import attributes
from runtime.queues import CORE
from workflows.payment import PaymentWorkflow

ANSWER_WITHIN: Final = timedelta(seconds=10)
_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)
_DESCRIBE_TIMEOUT: Final = timedelta(seconds=2)
_READ_TIMEOUT_SECONDS: Final = 0.1

log = structlog.get_logger()


MessageT = TypeVar("MessageT", bound=Message)
Update = UpdateMethodMultiParam[[PaymentWorkflow, MessageT], Payment]


class NotRunning(Exception):
    """No workflow of this payment runs: the record has the last word."""


def id_of(command: str, application: str, idempotency_key: str | None) -> str:
    """The update's id: from the key where there is one, else of this request alone."""
    if idempotency_key is None:
        return f"{command}/{secrets.token_hex(16)}"
    return update_id(command, application, idempotency_key)


class Commands:
    """Sends commands. An answer of None means: not answered in time, but under way."""

    def __init__(self, client: Client, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        self._client = client
        self._answer_within = answer_within
        # An update may be accepted in one call and awaited in further ones, each with its own
        # time-out; this bounds them all.
        self._patience_seconds = answer_within.total_seconds() + 0.5

    async def start(
        self, order: PaymentOrder, command: Update[MessageT], message: MessageT, command_id: str
    ) -> Payment | None:
        """Start the payment's workflow, unless it runs, and give it the command in one call.

        Raises NotRunning where it has ended, RequestRefused (503) where it was not started, and
        RPCError.
        """
        starting = WithStartWorkflowOperation(
            PaymentWorkflow.run,
            order,
            id=order.payment_id,
            task_queue=CORE,
            task_timeout=_WORKFLOW_TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=attributes.at_start(order),
            static_summary=attributes.summary(order),
        )
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._client.execute_update_with_start_workflow(
                    command,
                    message,
                    start_workflow_operation=starting,
                    id=command_id,
                    rpc_timeout=self._answer_within,
                )
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            await _read(starting)
            await self._ensure_started(order.payment_id)
            return None
        except WorkflowAlreadyStartedError as problem:
            await _read(starting)
            raise NotRunning from problem
        except WorkflowUpdateFailedError as problem:
            raise NotRunning from problem
        except RPCError:
            await _read(starting)
            raise

    async def send(
        self, payment_id: str, command: Update[MessageT], message: MessageT, command_id: str
    ) -> Payment | None:
        """Give a running workflow the command. Raises NotRunning and RPCError."""
        handle = self._client.get_workflow_handle(payment_id)
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await handle.execute_update(
                    command,
                    message,
                    id=command_id,
                    rpc_timeout=self._answer_within,
                )
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            await self._ensure_started(payment_id)
            return None
        except WorkflowUpdateFailedError as problem:
            raise NotRunning from problem
        except RPCError as problem:
            if problem.status is RPCStatusCode.NOT_FOUND:
                raise NotRunning from problem
            raise

    async def _ensure_started(self, payment_id: str) -> None:
        """A promise that it goes on by itself is made only where Temporal knows the workflow."""
        handle = self._client.get_workflow_handle(payment_id)
        try:
            await handle.describe(rpc_timeout=_DESCRIBE_TIMEOUT)
        except RPCError as problem:
            log.warning("temporal_out_of_reach", status=problem.status.name)
            raise unavailable("Temporal") from problem


async def _read(starting: WithStartWorkflowOperation[PaymentWorkflow, PaymentEnded]) -> None:
    """The start failed with its update; unread, that would be logged as an exception lost."""
    reading = asyncio.ensure_future(starting.workflow_handle())
    await asyncio.wait([reading], timeout=_READ_TIMEOUT_SECONDS)
    if not reading.done():
        reading.cancel()
    elif not reading.cancelled():
        reading.exception()
