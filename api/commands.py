"""Commands to a workflow, as Temporal updates with an answer within ten seconds."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, Final, TypeVar

import structlog
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateHandle,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from activities.method import METHOD_REFUSALS
from activities.points import SPEND_REFUSALS
from activities.refund import REFUSALS
from api.problems import too_many_commands, unavailable
from billing.errors import BillingError, SwitchRefused, SwitchUnanswered
from billing.identifiers import update_id
from billing.messages import (
    Command,
    Message,
    PaymentEnded,
    PaymentOrder,
    RefundEnded,
    RefundRequest,
    SpendEnded,
    SpendRequest,
)
from billing.payment import Payment
from billing.points import PointsTransaction
from billing.refund import Refund
from billing.subscription_commands import SUBSCRIPTION_REFUSALS
from runtime import attributes
from runtime.queues import CORE
from workflows.payment import PaymentWorkflow
from workflows.refund import RefundWorkflow
from workflows.spend import PointsSpendWorkflow

ANSWER_WITHIN: Final = timedelta(seconds=10)
_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)
_DESCRIBE_TIMEOUT: Final = timedelta(seconds=2)
_READ_TIMEOUT_SECONDS: Final = 0.1
_MOST_IN_FLIGHT: Final = 10

log = structlog.get_logger()


MessageT = TypeVar("MessageT", bound=Message)
AnswerT = TypeVar("AnswerT")
Update = UpdateMethodMultiParam[[PaymentWorkflow, MessageT], Payment]


class NotRunning(Exception):
    """No workflow of this payment runs: the record has the last word."""


def id_of(command: str, application: str, idempotency_key: str | None) -> str:
    """The update's id: from the key where there is one, else of this request alone."""
    if idempotency_key is None:
        return f"{command}/{secrets.token_hex(16)}"
    return update_id(command, application, idempotency_key)


class Commands:
    """Gives commands. An answer of None means: not answered in time, but sure to be carried out.

    Of several commands of one payment in flight, Temporal takes ten; we refuse the rest here at
    once, since its client would repeat a refused one until the caller's time is over.
    """

    def __init__(self, client: Client, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        self._client = client
        self._answer_within = answer_within
        # One command may take several calls, each with its own time-out; this bounds them all.
        self._patience_seconds = answer_within.total_seconds() + 0.5
        self._in_flight: dict[str, Counter[str]] = {}

    async def create(
        self, order: PaymentOrder, message: Command, command_id: str
    ) -> Payment | None:
        """Start the payment's workflow, unless it runs, and await its instructions in one call.

        Raises NotRunning where it has ended, RequestRefused (503) where it was not started,
        RequestRefused (429) and RPCError.
        """
        return await self.start(
            PaymentWorkflow.create, message, _starting(order), order.payment_id, command_id
        )

    async def refund(
        self,
        wanted: RefundRequest,
        message: Command,
        command_id: str,
        *,
        is_lost: bool = False,
    ) -> Refund | None:
        """Start the refund's workflow, unless it runs, and await its reservation. One that
        `is_lost`, without a row, may be started again.

        As `create`, and raises the refusal (`activities.refund.REFUSALS`) where nothing could be
        reserved.
        """
        return await self.start(
            RefundWorkflow.create,
            message,
            _starting_refund(wanted, is_lost=is_lost),
            wanted.refund_id,
            command_id,
        )

    async def refund_ended(self, refund_id: str) -> RefundEnded | None:
        """What an ended refund's workflow left behind; None where it was lost on the way. Raises
        RPCError."""
        handle = self._client.get_workflow_handle_for(RefundWorkflow.run, refund_id)
        try:
            return await handle.result(rpc_timeout=self._answer_within)
        except WorkflowFailureError:
            return None

    async def spend(
        self, wanted: SpendRequest, message: Command, command_id: str
    ) -> PointsTransaction | None:
        """Start the spend's workflow, unless it runs, and await its end.

        As `create`, and raises the refusal (`activities.points.SPEND_REFUSALS`) where nothing was
        spent.
        """
        return await self.start(
            PointsSpendWorkflow.create,
            message,
            _starting_spend(wanted),
            wanted.transaction_id,
            command_id,
        )

    async def spend_ended(self, transaction_id: str) -> SpendEnded | None:
        """What an ended spend's workflow left behind; None where it was lost on the way. Raises
        RPCError."""
        handle = self._client.get_workflow_handle_for(PointsSpendWorkflow.run, transaction_id)
        try:
            return await handle.result(rpc_timeout=self._answer_within)
        except WorkflowFailureError:
            return None

    async def start(
        self,
        update: UpdateMethodMultiParam[[Any, MessageT], AnswerT],
        message: MessageT,
        starting: WithStartWorkflowOperation[Any, Any],
        workflow_id: str,
        command_id: str,
    ) -> AnswerT | None:
        """Start a workflow, unless it runs, and give it a command in one call. Raises as `create`,
        and the refusal that the workflow answers with."""
        with self._taking_part(workflow_id, command_id), _telling_not_running():
            try:
                async with asyncio.timeout(self._patience_seconds):
                    return await self._client.execute_update_with_start_workflow(
                        update,
                        message,
                        start_workflow_operation=starting,
                        id=command_id,
                        rpc_timeout=self._answer_within,
                    )
            except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
                await self._ensure_started(workflow_id)
                return None
            finally:
                await _read(starting)

    async def give(
        self,
        order: PaymentOrder,
        command: Update[MessageT],
        message: MessageT,
        command_id: str,
        *,
        is_recorded: bool,
    ) -> Payment | None:
        """Give the payment's workflow a command; start it for that, if it has no row yet.

        Raises NotRunning, RequestRefused (503) where the workflow has not accepted it in time,
        RequestRefused (429) and RPCError.
        """
        if is_recorded:
            return await self.tell(command, message, order.payment_id, command_id)
        return await self._until_answered(
            order.payment_id,
            command_id,
            lambda: self._start_with(order, command, message, command_id),
        )

    async def tell(
        self,
        update: UpdateMethodMultiParam[[Any, MessageT], AnswerT],
        message: MessageT,
        workflow_id: str,
        command_id: str,
    ) -> AnswerT | None:
        """Give a running workflow a command. Raises as `give`."""
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(workflow_id)
        return await self._until_answered(
            workflow_id,
            command_id,
            lambda: handle.start_update(
                update,
                message,
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                id=command_id,
                rpc_timeout=self._answer_within,
            ),
        )

    async def _until_answered(
        self,
        workflow_id: str,
        command_id: str,
        give: Callable[[], Awaitable[WorkflowUpdateHandle[AnswerT]]],
    ) -> AnswerT | None:
        accepted: WorkflowUpdateHandle[AnswerT] | None = None
        with self._taking_part(workflow_id, command_id), _telling_not_running():
            try:
                async with asyncio.timeout(self._patience_seconds):
                    accepted = await give()
                    return await accepted.result(rpc_timeout=self._answer_within)
            except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
                if accepted is None:
                    raise unavailable("its process") from None
                return None

    async def _start_with(
        self, order: PaymentOrder, command: Update[MessageT], message: MessageT, command_id: str
    ) -> WorkflowUpdateHandle[Payment]:
        starting = _starting(order)
        try:
            return await self._client.start_update_with_start_workflow(
                command,
                message,
                start_workflow_operation=starting,
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                id=command_id,
                rpc_timeout=self._answer_within,
            )
        finally:
            await _read(starting)

    async def _ensure_started(self, workflow_id: str) -> None:
        """A promise that it goes on by itself is made only where Temporal knows the workflow."""
        handle = self._client.get_workflow_handle(workflow_id)
        try:
            async with asyncio.timeout(_DESCRIBE_TIMEOUT.total_seconds()):
                await handle.describe(rpc_timeout=_DESCRIBE_TIMEOUT)
        except (RPCError, TimeoutError) as problem:
            log.warning("start_not_confirmed", error=type(problem).__name__)
            raise unavailable("Temporal") from problem

    @contextlib.contextmanager
    def _taking_part(self, workflow_id: str, command_id: str) -> Iterator[None]:
        """Repeats of one command are one command."""
        flying = self._in_flight.setdefault(workflow_id, Counter())
        if command_id not in flying and len(flying) >= _MOST_IN_FLIGHT:
            raise too_many_commands()
        flying[command_id] += 1
        try:
            yield
        finally:
            flying[command_id] -= 1
            if not flying[command_id]:
                del flying[command_id]
            if not flying:
                self._in_flight.pop(workflow_id, None)


def _starting(order: PaymentOrder) -> WithStartWorkflowOperation[PaymentWorkflow, PaymentEnded]:
    """One that was lost before it had a row may be started again: nothing else can do that."""
    return WithStartWorkflowOperation(
        PaymentWorkflow.run,
        order,
        id=order.payment_id,
        task_queue=CORE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        search_attributes=attributes.at_start(order),
        static_summary=attributes.summary(order),
    )


def _starting_refund(
    wanted: RefundRequest, *, is_lost: bool
) -> WithStartWorkflowOperation[RefundWorkflow, RefundEnded]:
    once = WorkflowIDReusePolicy.REJECT_DUPLICATE
    again = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
    return WithStartWorkflowOperation(
        RefundWorkflow.run,
        wanted,
        id=wanted.refund_id,
        task_queue=CORE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=again if is_lost else once,
        search_attributes=attributes.at_refund_start(wanted),
        static_summary=attributes.refund_summary(wanted),
    )


def _starting_spend(
    wanted: SpendRequest,
) -> WithStartWorkflowOperation[PointsSpendWorkflow, SpendEnded]:
    """One that was lost may be started again: the movement is written once under its id."""
    return WithStartWorkflowOperation(
        PointsSpendWorkflow.run,
        wanted,
        id=wanted.transaction_id,
        task_queue=CORE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        search_attributes=attributes.at_spend_start(wanted),
        static_summary=f"spend of {wanted.points} points",
    )


def refusal_of(code: str | None, detail: str, param: str | None = None) -> BillingError | None:
    """The refusal that a workflow answered with, as it was first raised."""
    refusals = (
        *REFUSALS,
        *SPEND_REFUSALS,
        *METHOD_REFUSALS,
        *SUBSCRIPTION_REFUSALS,
        SwitchRefused,
        SwitchUnanswered,
    )
    return next(
        (refusal(detail, param=param) for refusal in refusals if refusal.code == code), None
    )


@contextlib.contextmanager
def _telling_not_running() -> Iterator[None]:
    """Every way in which Temporal says that the workflow has ended, or never was."""
    try:
        yield
    except (WorkflowAlreadyStartedError, WorkflowUpdateFailedError) as problem:
        cause = problem.cause if isinstance(problem, WorkflowUpdateFailedError) else None
        if isinstance(cause, ApplicationError):
            refusal = refusal_of(cause.type, cause.message, *cause.details[:1])
            if refusal is not None:
                raise refusal from problem
        raise NotRunning from problem
    except RPCError as problem:
        if problem.status is RPCStatusCode.NOT_FOUND:
            raise NotRunning from problem
        raise


async def _read(starting: WithStartWorkflowOperation[Any, Any]) -> None:
    """The start may have failed with its update; unread, that is logged as an exception lost."""
    reading = asyncio.ensure_future(starting.workflow_handle())
    await asyncio.wait([reading], timeout=_READ_TIMEOUT_SECONDS)
    if not reading.done():
        reading.cancel()
    elif not reading.cancelled():
        reading.exception()
