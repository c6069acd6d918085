"""What follows a gateway's report of a dispute: ask what stands, and record it.

A gateway tells every dispute of an order, and of each the whole truth, so that one asking makes
up for any number of reports that were lost. Points that the disputed money bought follow it, in the
same transaction.
"""

from datetime import datetime
from typing import Final

from temporalio import activity

from activities.asking import asking
from activities.placing import Placing, order_of
from billing.dispute import Dispute
from billing.errors import AnswerUntrusted
from billing.messages import SettleDisputes, Standing
from billing.payment import AttemptState
from gateways.gateway import DisputeObservation, Gateway
from storage.disputes import DisputeRecord
from storage.payments import AttemptRecord, PaymentRecord

UNTRUSTED: Final = "dispute_untrusted"
"""Why a person is called for: what the gateway says of a dispute makes no sense."""


class DisputeActivities(Placing):
    """What a payment's workflow has done about disputes."""

    @activity.defn(name="dispute.settle")
    async def settle(self, request: SettleDisputes) -> Standing:
        """Ask about the disputes of every receipt that the gateway gave, and record them."""
        gateway = self.gateway(request.gateway)
        record = await self.record(request.payment_id)
        for attempt in record.attempts:
            if attempt.state is AttemptState.PAID and attempt.gateway is gateway.name:
                await self._settle(gateway, record, attempt, request.now)
        return await self.standing(await self.record(request.payment_id))

    async def _settle(
        self, gateway: Gateway, record: PaymentRecord, attempt: AttemptRecord, now: datetime
    ) -> None:
        payment_id = record.payment.id
        try:
            with asking(gateway.name):
                observed = await gateway.list_disputes(order_of(record, attempt))
        except AnswerUntrusted as problem:
            detail = f"{problem.reason}: {problem.detail}"
            async with self.database.single() as work:
                await work.attention.raise_(payment_id, UNTRUSTED, detail, now)
            return
        async with self.database.begin() as work:
            for one in observed:
                change = await work.disputes.record(_told(record, attempt, one), now)
                if change is not None:
                    await work.clawbacks.follow(change, now)
            await work.attention.resolve(payment_id, now, UNTRUSTED)


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
