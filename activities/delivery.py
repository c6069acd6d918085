"""From the webhook inbox to the payment's workflow: every stored event is delivered, once or more.

The API delivers at once in the background; the records worker's loop delivers what is left.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from temporalio.client import Client
from temporalio.common import (
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from billing.identifiers import after_workflow_id
from billing.messages import (
    AFTER_WORKFLOW,
    GATEWAY_REPORTED,
    PAYMENT_WORKFLOW,
    REFUND_AFTER_WORKFLOW,
    AfterInput,
    GatewayReport,
    Message,
    RefundAfterInput,
)
from billing.method_messages import METHOD_AFTER_WORKFLOW, MethodAfterInput
from billing.payment import GatewayName, PaymentStatus
from billing.refund import RefundCause
from gateways.gateway import PAID_EVENTS
from runtime import attributes
from runtime.queues import CORE
from storage.database import Database
from storage.inbox import InboxEntry, InboxOutcome
from storage.payment_rows import PaymentRecord

_SIGNAL_TIMEOUT: Final = timedelta(seconds=5)
_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)
_LOOP_INTERVAL_SECONDS: Final = 2.0
_BATCH: Final = 100
_CONCURRENCY: Final = 20

log = structlog.get_logger()


class Delivery:
    """Observes for payments: tells the running workflow, or starts the one for afterwards."""

    def __init__(self, client: Client, database: Database) -> None:
        self._client = client
        self._database = database

    async def deliver(self, entry: InboxEntry) -> None:
        """Deliver one stored event and mark its row; a failure leaves it for the loop."""
        entry = await self._matched(entry)
        try:
            outcome = await self._observe_entry(entry)
        except RPCError as problem:
            log.warning(
                "webhook_delivery_postponed",
                payment_id=entry.payment_id,
                method_id=entry.method_id,
                event_id=entry.event_id,
                reason=problem.status.name,
            )
            return
        if outcome is None:
            return
        async with self._database.single() as work:
            await work.inbox.mark(
                entry.id,
                outcome,
                datetime.now(UTC),
                payment_id=entry.payment_id,
                method_id=entry.method_id,
            )

    async def run(self) -> None:
        """Deliver what is due, every two seconds, until cancelled."""
        while True:
            try:
                while await self.deliver_due() == _BATCH:
                    pass
            except Exception:
                log.exception("webhook_loop_failed")
            await asyncio.sleep(_LOOP_INTERVAL_SECONDS)

    async def deliver_due(self) -> int:
        """Deliver one batch of due rows; how many there were."""
        async with self._database.single() as work:
            entries = await work.inbox.claim_due(datetime.now(UTC), _BATCH)
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def one(entry: InboxEntry) -> None:
            async with slots:
                await self.deliver(entry)

        await asyncio.gather(*(one(entry) for entry in entries))
        return len(entries)

    async def observe(
        self,
        payment_id: str,
        report: GatewayReport,
        reporter: GatewayName | None = None,
        *,
        told_paid: str | None = None,
    ) -> InboxOutcome | None:
        """Have the gateways asked about a payment: by its workflow, or by one for afterwards, which
        begins with the `reporter`, else with the one that the payment is at.

        `told_paid` is the number of the order where the report says no more than that it is paid:
        once the record says the same, nobody is asked. None while the payment is claimed but not
        yet there. Raises RPCError.
        """
        if await self._tell(payment_id, report):
            return InboxOutcome.DELIVERED
        return await self._observe_afterwards(payment_id, report, reporter, told_paid)

    async def _matched(self, entry: InboxEntry) -> InboxEntry:
        """The entry with the payment whose money is disputed, or refunded elsewhere: nobody can do
        that before the gateway's number of the order stands in the record. Or with the saved method
        whose mandate it speaks of by the gateway's number alone."""
        if entry.mandate_reference is not None and entry.method_id is None:
            async with self._database.single() as work:
                method_id = await work.methods.behind(entry.gateway, entry.mandate_reference)
            entry = replace(entry, method_id=method_id)
        reference = entry.disputed_reference or entry.refunded_reference
        if entry.payment_id is not None or reference is None:
            return entry
        async with self._database.single() as work:
            payment_id = await work.receipts.payment_behind(entry.gateway, reference)
        return replace(entry, payment_id=payment_id)

    async def _observe_entry(self, entry: InboxEntry) -> InboxOutcome | None:
        report = GatewayReport(
            event_id=f"{entry.gateway.value}/{entry.event_id}",
            event_type=entry.event_type,
            is_dispute=entry.disputed_reference is not None,
            is_refund=entry.foreign_refund is not None,
        )
        if entry.refund_id is not None:
            told = await self.observe_refund(entry.refund_id, report)
            if told is not InboxOutcome.UNMATCHED:
                return told
            # A number of ours that the record does not have: made elsewhere, as far as it knows.
            report = report.model_copy(update={"is_refund": True})
        if entry.payment_id is not None:
            return await self.observe(
                entry.payment_id, report, entry.gateway, told_paid=_told_paid(entry)
            )
        if entry.method_id is not None:
            return await self.observe_method(entry.method_id, report)
        named = (
            entry.refund_id,
            entry.disputed_reference,
            entry.refunded_reference,
            entry.mandate_reference,
        )
        return InboxOutcome.UNMATCHED if any(named) else InboxOutcome.IGNORED

    async def observe_refund(self, refund_id: str, report: GatewayReport) -> InboxOutcome:
        """As `observe`, about a refund of ours. One that the record lost is UNMATCHED, whatever
        claims it: its row is written before its gateway is asked, and a process that still runs
        has none to write to. So is one recorded as made elsewhere. Raises RPCError."""
        async with self._database.single() as work:
            record = await work.refunds.find(refund_id)
        if record is None or record.refund.cause is RefundCause.ELSEWHERE:
            return InboxOutcome.UNMATCHED
        if await self._tell(refund_id, report):
            return InboxOutcome.DELIVERED
        await self._start_after(
            REFUND_AFTER_WORKFLOW,
            RefundAfterInput(refund_id=refund_id, gateway=record.refund.gateway),
            refund_id,
            report,
            summary=f"after refund {refund_id} of {record.refund.payment_id}",
        )
        return InboxOutcome.DELIVERED

    async def observe_method(self, method_id: str, report: GatewayReport) -> InboxOutcome | None:
        """As `observe`, about a saved method. Raises RPCError."""
        if await self._tell(method_id, report):
            return InboxOutcome.DELIVERED
        async with self._database.single() as work:
            record = await work.methods.find(method_id)
            claimed = record is None and await work.claims.exists_for(method_id)
        if record is None:
            return None if claimed else InboxOutcome.UNMATCHED
        method = record.method
        await self._start_after(
            METHOD_AFTER_WORKFLOW,
            MethodAfterInput(method_id=method_id, gateway=method.gateway),
            method_id,
            report,
            summary=f"after {attributes.method_summary(method.gateway)}",
            shown=attributes.at_method_start(method.user_id, method.gateway, method.status),
        )
        return InboxOutcome.DELIVERED

    async def _observe_afterwards(
        self,
        payment_id: str,
        report: GatewayReport,
        reporter: GatewayName | None,
        told_paid: str | None,
    ) -> InboxOutcome | None:
        async with self._database.single() as work:
            record = await work.payments.find(payment_id)
            claimed = record is None and await work.claims.exists_for(payment_id)
        if record is None:
            return None if claimed else InboxOutcome.UNMATCHED
        if told_paid is not None and _is_paid_by_it_alone(record, told_paid):
            return InboxOutcome.DELIVERED
        await self._start_after(
            AFTER_WORKFLOW,
            AfterInput(payment_id=payment_id, gateway=reporter or record.payment.gateway),
            payment_id,
            report,
            summary=f"after {PAYMENT_WORKFLOW.lower()}: {attributes.summary(record.order)}",
            shown=attributes.at_start(record.order, record.payment.status),
        )
        return InboxOutcome.DELIVERED

    async def _tell(self, workflow_id: str, report: GatewayReport) -> bool:
        """Whether there was a running workflow to be told. Raises RPCError."""
        handle = self._client.get_workflow_handle(workflow_id)
        try:
            await handle.signal(GATEWAY_REPORTED, report, rpc_timeout=_SIGNAL_TIMEOUT)
        except RPCError as problem:
            if problem.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return True

    async def _start_after(
        self,
        workflow: str,
        given: Message,
        object_id: str,
        report: GatewayReport,
        *,
        summary: str,
        shown: TypedSearchAttributes = TypedSearchAttributes.empty,
    ) -> None:
        """Have a short workflow look after something that has ended, or tell the one that does.
        Raises RPCError."""
        await self._client.start_workflow(
            workflow,
            given,
            id=after_workflow_id(object_id),
            task_queue=CORE,
            task_timeout=_WORKFLOW_TASK_TIMEOUT,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=GATEWAY_REPORTED,
            start_signal_args=[report],
            search_attributes=shown,
            static_summary=summary,
            rpc_timeout=_SIGNAL_TIMEOUT,
        )


def _told_paid(entry: InboxEntry) -> str | None:
    is_plain = entry.foreign_refund is None and entry.event_type in PAID_EVENTS[entry.gateway]
    return entry.number if is_plain else None


def _is_paid_by_it_alone(record: PaymentRecord, number: str) -> bool:
    """Whether the order of that number is recorded as paid, and the payment had no other: a second
    one may have been paid too, and its money be still on its way back."""
    is_paid = record.payment.status is PaymentStatus.SUCCEEDED
    return is_paid and [attempt.number for attempt in record.attempts] == [number]
