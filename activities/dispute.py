"""What follows a gateway's report of a dispute: ask what stands, and record it.

A gateway tells every dispute of an order, and of each the whole truth, so that one asking makes
up for any number of reports that were lost. What a change means beyond record and ledger is for
whoever reads the change that `Disputes.record` answers with.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from temporalio import activity

from activities.asking import asking
from activities.payment import order_of, standing_of
from billing.dispute import Dispute
from billing.errors import AnswerUntrusted, GatewayMisconfigured, PaymentNotFound
from billing.messages import SettleDisputes, Standing
from billing.payment import AttemptState, GatewayName
from gateways.gateway import DisputeObservation, Gateway
from storage.database import Database, UnitOfWork
from storage.disputes import DisputeRecord
from storage.payments import AttemptRecord, PaymentRecord

UNTRUSTED: Final = "dispute_untrusted"
"""Why a person is called for: what the gateway says of a dispute makes no sense."""


class DisputeActivities:
    """`gateways` are the ones switched on."""

    def __init__(self, database: Database, gateways: Mapping[GatewayName, Gateway]) -> None:
        self._database = database
        self._gateways = gateways

    @activity.defn(name="dispute.settle")
    async def settle(self, request: SettleDisputes) -> Standing:
        """Ask about the disputes of every receipt that the gateway gave, and record them."""
        gateway = self._gateways.get(request.gateway)
        if gateway is None:
            raise GatewayMisconfigured(
                f"{request.gateway.value} is not configured on this worker: set its keys and"
                " restart it"
            )
        record = await self._record(request.payment_id)
        for attempt in record.attempts:
            if attempt.state is AttemptState.PAID and attempt.gateway is gateway.name:
                await self._settle(gateway, record, attempt, request.now)
        return standing_of(await self._record(request.payment_id), self._gateways)

    async def _settle(
        self, gateway: Gateway, record: PaymentRecord, attempt: AttemptRecord, now: datetime
    ) -> None:
        payment_id = record.payment.id
        try:
            with asking(gateway.name):
                observed = await gateway.list_disputes(order_of(record, attempt))
        except AnswerUntrusted as problem:
            detail = f"{problem.reason}: {problem.detail}"
            async with self._database.single() as work:
                await work.attention.raise_(payment_id, UNTRUSTED, detail, now)
            return
        async with self._database.begin() as work:
            for one in observed:
                await work.disputes.record(_told(record, attempt, one), now)
            await work.attention.resolve(payment_id, now, UNTRUSTED)

    async def _record(self, payment_id: str) -> PaymentRecord:
        async with self._database.single() as work:
            return await _found(work, payment_id)


def _told(
    record: PaymentRecord, attempt: AttemptRecord, observed: DisputeObservation
) -> DisputeRecord:
    """The gateway's word as the record keeps it."""
    return DisputeRecord(
        dispute=Dispute(
            id=observed.reference,
            status=observed.status,
            amount=observed.amount_minor,
            currency=observed.currency,
            reason=observed.reason,
            due_by=observed.due_by,
            opened_at=observed.opened_at,
            closed_at=None,
        ),
        gateway=attempt.gateway,
        payment_id=record.payment.id,
        attempt=attempt.attempt,
        application=record.order.application,
        gateway_status=observed.gateway_status,
        withdrawn_minor=observed.withdrawn_minor,
        reinstated_minor=observed.reinstated_minor,
        written_off_minor=0,
        fee_minor=observed.fee_minor or 0,
    )


async def _found(work: UnitOfWork, payment_id: str) -> PaymentRecord:
    record = await work.payments.find(payment_id)
    if record is None:
        raise PaymentNotFound(f"there is no row of payment {payment_id}")
    return record
