"""The record rebuilds the process: start the workflow of every open row that has none running."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.delivery import Delivery
from activities.refund import UNANSWERED, UNANSWERED_AFTER, UNPAYABLE
from billing.errors import (
    MethodNotFound,
    NothingToReturn,
    PaymentNotFound,
    RefundNotFound,
    SubscriptionNotFound,
)
from billing.identifiers import return_id
from billing.messages import (
    PAYMENT_WORKFLOW,
    REFUND_WORKFLOW,
    GatewayReport,
    RefundRequest,
    ReviewDecision,
)
from billing.method import MethodStatus
from billing.method_messages import METHOD_WORKFLOW
from billing.refund import LONGEST_REASON, Refund, RefundCause, RefundStatus
from billing.subscription_messages import SUBSCRIPTION_WORKFLOW
from runtime import attributes
from runtime.queues import CORE
from storage.database import Database, UnitOfWork
from storage.inbox import InboxOutcome
from storage.payments import PaymentRecord
from storage.receipts import ReceiptRecord
from storage.refund_rows import RefundRecord, request_of

SWEEP_INTERVAL_SECONDS: Final = 300.0
_PAGE: Final = 200
_CONCURRENCY: Final = 10
_RPC_TIMEOUT: Final = timedelta(seconds=10)
_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)

log = structlog.get_logger()


class Resumption:
    """Asks for each workflow by its id: lists in Temporal lag behind, and must not decide."""

    def __init__(self, client: Client, database: Database) -> None:
        self._client = client
        self._database = database

    async def resume(self, payment_id: str) -> bool:
        """Start the payment's workflow from its row; False if one runs or none is needed.

        Raises PaymentNotFound.
        """
        async with self._database.begin() as work:
            record = await work.payments.find(payment_id)
        if record is None:
            raise PaymentNotFound(f"there is no payment {payment_id}")
        is_over = record.payment.status.is_terminal and not record.open_attempts
        if is_over or await self._is_running(payment_id):
            return False
        try:
            await self._client.start_workflow(
                PAYMENT_WORKFLOW,
                record.order.model_copy(update={"resumed": True}),
                id=payment_id,
                task_queue=CORE,
                task_timeout=_WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                search_attributes=attributes.at_start(record.order, record.payment.status),
                static_summary=attributes.summary(record.order),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        log.info("payment_resumed", payment_id=payment_id, status=record.payment.status.value)
        return True

    async def sweep(self) -> int:
        """Resume every open row that has no workflow running; how many were started."""
        return (
            await self._sweep(lambda work: work.payments.unfinished, self.resume)
            + await self._sweep(lambda work: work.refunds.unfinished, self.resume_refund)
            + await self._sweep(lambda work: work.methods.unfinished, self.resume_method)
            + await self._sweep(
                lambda work: work.subscriptions.unfinished, self.resume_subscription
            )
        )

    async def _sweep(
        self,
        unfinished: Callable[[UnitOfWork], Callable[[str | None, int], Awaitable[list[str]]]],
        resume: Callable[[str], Awaitable[bool]],
    ) -> int:
        started, after = 0, None
        while True:
            async with self._database.single() as work:
                page = await unfinished(work)(after, _PAGE)
            if not page:
                return started
            started += await self._resume_all(page, resume)
            after = page[-1]

    async def _resume_all(self, ids: list[str], resume: Callable[[str], Awaitable[bool]]) -> int:
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def one(object_id: str) -> bool:
            async with slots:
                return await _resume_or_tell(object_id, resume)

        return sum(await asyncio.gather(*(one(object_id) for object_id in ids)))

    async def resume_refund(self, refund_id: str) -> bool:
        """As `resume`, for a refund: its workflow goes on wherever it stood, since its gateway
        knows it by its id. Raises RefundNotFound."""
        async with self._database.single() as work:
            record = await work.refunds.find(refund_id)
            payment = None if record is None else await work.payments.find(record.refund.payment_id)
        if record is None or payment is None:
            raise RefundNotFound(f"there is no refund {refund_id}")
        refund = record.refund
        if refund.cause is RefundCause.ELSEWHERE:
            return await self._look_elsewhere(refund)
        if refund.status.has_ended:
            return False
        await self._call_for_unasked(record)
        if await self._is_running(refund_id):
            return False
        request = request_of(record, payment.payment.user_id)
        if not await self._start_refund(request, refund.status):
            return False
        log.info("refund_resumed", refund_id=refund_id, status=refund.status.value)
        return True

    async def _call_for_unasked(self, record: RefundRecord) -> None:
        """Call for a person where the gateway's answer is not there after as long as that may take,
        and nobody is called for the merchant's balance: its queue may be nobody's."""
        now, refund = datetime.now(UTC), record.refund
        if record.asked_at is not None or now - record.ask_at < UNANSWERED_AFTER:
            return
        async with self._database.single() as work:
            waiting = {one.reason for one in await work.attention.open(refund.payment_id)}
            if UNPAYABLE in waiting:
                return
            await work.attention.raise_(
                refund.payment_id,
                UNANSWERED,
                f"{refund.gateway.value} has not answered for {UNANSWERED_AFTER} to refund"
                f" {refund.id}, or nobody asks it: see that a worker runs that has its keys, and"
                " look the refund up there; it is asked on by itself",
                now,
            )

    async def resume_method(self, method_id: str) -> bool:
        """As `resume`, for a saved method: one that waits for consent, has ended here and is still
        to be revoked at its gateway, or is past its end. Raises MethodNotFound."""
        async with self._database.single() as work:
            record = await work.methods.find(method_id)
        if record is None:
            raise MethodNotFound(f"there is no payment method {method_id}")
        method = record.method
        is_over = method.ends_at is not None and method.ends_at <= datetime.now(UTC)
        is_done = record.is_released or (method.status is MethodStatus.ACTIVE and not is_over)
        if is_done or await self._is_running(method_id):
            return False
        if method.status is not MethodStatus.PENDING:
            report = GatewayReport(
                event_id=f"unfinished/{method_id}/{datetime.now(UTC).isoformat()}",
                event_type="method.unfinished",
            )
            delivery = Delivery(self._client, self._database)
            return await delivery.observe_method(method_id, report) is InboxOutcome.DELIVERED
        try:
            await self._client.start_workflow(
                METHOD_WORKFLOW,
                record.order.model_copy(update={"resumed": True}),
                id=method_id,
                task_queue=CORE,
                task_timeout=_WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                search_attributes=attributes.at_method_start(method.user_id, method.gateway),
                static_summary=attributes.method_summary(method.gateway),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        log.info("method_resumed", method_id=method_id)
        return True

    async def resume_subscription(self, subscription_id: str) -> bool:
        """As `resume`, for a subscription, whose record has all that its process knew. Raises
        SubscriptionNotFound."""
        async with self._database.single() as work:
            record = await work.subscriptions.find(subscription_id)
        if record is None:
            raise SubscriptionNotFound(f"there is no subscription {subscription_id}")
        if record.standing.is_over or await self._is_running(subscription_id):
            return False
        order = record.start.order
        try:
            await self._client.start_workflow(
                SUBSCRIPTION_WORKFLOW,
                record.start.model_copy(update={"resumed": True}),
                id=subscription_id,
                task_queue=CORE,
                task_timeout=_WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                search_attributes=attributes.at_subscription_start(
                    order, record.standing.subscription.status
                ),
                static_summary=attributes.subscription_summary(order),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        log.info("subscription_resumed", subscription_id=subscription_id)
        return True

    async def give_back(self, payment_id: str, decision: ReviewDecision) -> list[str]:
        """Have all money of an ended payment that was not kept returned once more; the refunds'
        ids. Where an answer about an attempt was not believed, the gateway is asked again, and
        what it confirms goes back, whatever was asked for.

        Raises PaymentNotFound, NothingToReturn where none is left or on its way, and RPCError.
        """
        async with self._database.single() as work:
            record = await work.payments.find(payment_id)
            if record is None:
                raise PaymentNotFound(f"there is no payment {payment_id}")
            received = [one for one in await work.receipts.of(payment_id) if not one.kept]
            refunds = await work.refunds.of_payment(payment_id)
        wanted = []
        for receipt in received:
            earlier = [one.refund for one in refunds if one.attempt == receipt.attempt]
            done = sum(one.amount for one in earlier if one.status is RefundStatus.SUCCEEDED)
            is_under_way = any(not one.status.has_ended for one in earlier)
            # A part may have gone back elsewhere, for which the whole could not be returned.
            if done < receipt.amount_minor and not is_under_way:
                wanted.append(_return_of(record, receipt, _free_turn(receipt, earlier), decision))
        is_mistrusted = any(attempt.mistrusted_for for attempt in record.attempts)
        if not wanted and not is_mistrusted:
            raise NothingToReturn(
                f"no money came in for payment {payment_id} that is neither kept nor returned, nor"
                " on its way back"
            )
        for request in wanted:
            await self._start_refund(request, RefundStatus.PENDING)
        if is_mistrusted:
            report = GatewayReport(
                event_id=f"review/{payment_id}/{datetime.now(UTC).isoformat()}",
                event_type="review.return",
                review=decision,
            )
            await Delivery(self._client, self._database).observe(payment_id, report)
        return [request.refund_id for request in wanted]

    async def _look_elsewhere(self, refund: Refund) -> bool:
        """A refund that is not ours is never asked for: the gateway is asked about its payment."""
        if refund.status.has_ended:
            return False
        report = GatewayReport(
            event_id=f"unfinished/{refund.id}/{datetime.now(UTC).isoformat()}",
            event_type="refund.unfinished",
            is_refund=True,
        )
        delivery = Delivery(self._client, self._database)
        return await delivery.observe(refund.payment_id, report) is InboxOutcome.DELIVERED

    async def _start_refund(self, request: RefundRequest, status: RefundStatus) -> bool:
        try:
            await self._client.start_workflow(
                REFUND_WORKFLOW,
                request,
                id=request.refund_id,
                task_queue=CORE,
                task_timeout=_WORKFLOW_TASK_TIMEOUT,
                # One that found nothing to reserve has ended too, and left no row; where there is
                # one, a second run changes nothing.
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                search_attributes=attributes.at_refund_start(request, status),
                static_summary=attributes.refund_summary(request),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def run(self) -> None:
        """Sweep now and every few minutes, until cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception:
                log.exception("sweep_failed")
            await asyncio.sleep(SWEEP_INTERVAL_SECONDS)

    async def _is_running(self, workflow_id: str) -> bool:
        try:
            description = await self._client.get_workflow_handle(workflow_id).describe(
                rpc_timeout=_RPC_TIMEOUT
            )
        except RPCError as problem:
            if problem.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return description.status is WorkflowExecutionStatus.RUNNING


def _free_turn(receipt: ReceiptRecord, earlier: Sequence[Refund]) -> int:
    """The next one: of those that the record lost, a later one may have been found alone."""
    taken = {one.id for one in earlier}
    turns = itertools.count(len(earlier) + 1)
    return next(
        turn for turn in turns if return_id(receipt.payment_id, receipt.attempt, turn) not in taken
    )


def _return_of(
    record: PaymentRecord, receipt: ReceiptRecord, turn: int, decision: ReviewDecision
) -> RefundRequest:
    return RefundRequest(
        refund_id=return_id(record.payment.id, receipt.attempt, turn),
        payment_id=record.payment.id,
        application=record.order.application,
        user_id=record.payment.user_id,
        gateway=receipt.gateway,
        currency=receipt.currency,
        attempt=receipt.attempt,
        cause=RefundCause.RETURNED,
        reason=decision.reason[:LONGEST_REASON],
        created_at=datetime.now(UTC),
        review=decision,
    )


async def _resume_or_tell(object_id: str, resume: Callable[[str], Awaitable[bool]]) -> bool:
    """One that cannot be resumed must not keep others from it."""
    try:
        return await resume(object_id)
    except Exception:
        log.exception("not_resumed", object_id=object_id)
        return False
