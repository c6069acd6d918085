"""What the payment workflow has done to have a payment paid in another way.

The new order is placed first: only once its instructions are there do they take the place of the
ones that the payer has. Whatever attempt then pays first is kept, any other goes back.
"""

from datetime import datetime
from typing import Final

from temporalio import activity

from activities.placing import Placing, found
from billing.errors import InstructionsLost
from billing.identifiers import MAX_ATTEMPT
from billing.messages import Standing, SwitchOrder, SwitchPayment
from billing.payment import AttemptState, Failure, PaymentStatus
from gateways.gateway import AlreadyOrdered, Opened, Refused
from storage.payment_rows import AttemptDetails, AttemptRecord, PaymentRecord

_TRIES: Final = 3
_EXHAUSTED: Final = Failure(
    code="attempts_exhausted", message=f"a payment has at most {MAX_ATTEMPT} attempts"
)


class SwitchActivities(Placing):
    """What a payment's workflow has done for a switch."""

    @activity.defn(name="payment.switch")
    async def switch(self, request: SwitchPayment) -> Standing:
        """Place an attempt of another way to pay; once open it takes the place of the payment's
        own, which stays as it is where the gateway refuses."""
        record = await self.record(request.payment_id)
        for _ in range(_TRIES):
            if not _waits_for_payer(record, request):
                break
            record, attempt = await self._candidate(record, request)
            if attempt is None:
                return await self.standing(record, refusal=_EXHAUSTED)
            try:
                outcome = await self.place(record, attempt)
            except InstructionsLost:
                outcome = AlreadyOrdered()
            if isinstance(outcome, AlreadyOrdered):
                # Nobody has its instructions: it is watched until it is dead, and never shown.
                record = await self._give_up(record, attempt, outcome.reference, request.now)
                continue
            record = await self._store_switched(record, attempt, outcome, request.now)
            if isinstance(outcome, Refused):
                return await self.standing(record, refusal=outcome.failure)
        return await self.standing(record)

    async def _candidate(
        self, record: PaymentRecord, request: SwitchPayment
    ) -> tuple[PaymentRecord, AttemptRecord | None]:
        """The attempt that a try before this one has written, or the next one; None if there can
        be no more."""
        order, details = request.order, _details_of(request.order)
        for attempt in record.attempts:
            if (
                attempt.attempt > request.replaces
                and attempt.opened_at is None
                and attempt.gateway_status is None
                and attempt.state is AttemptState.OPEN
                and (attempt.gateway, attempt.method, attempt.details)
                == (order.gateway, order.method, details)
            ):
                return record, attempt
        following = record.attempts[-1].attempt + 1
        if following > MAX_ATTEMPT:
            return record, None
        async with self.database.begin() as work:
            await work.attempts.add(
                record.payment.id,
                following,
                order.gateway,
                order.method,
                record.payment.expires_at,
                request.now,
                details=details,
            )
            record = await found(work, record.payment.id)
        return record, record.attempt(following)

    async def _give_up(
        self, record: PaymentRecord, attempt: AttemptRecord, reference: str | None, now: datetime
    ) -> PaymentRecord:
        async with self.database.begin() as work:
            await work.attempts.set(
                record.payment.id,
                attempt.attempt,
                gateway_status="instructions lost",
                reference=reference,
                now=now,
            )
            return await found(work, record.payment.id)

    async def _store_switched(
        self,
        record: PaymentRecord,
        attempt: AttemptRecord,
        outcome: Opened | Refused,
        now: datetime,
    ) -> PaymentRecord:
        payment_id = record.payment.id
        async with self.database.begin() as work:
            if isinstance(outcome, Opened):
                await work.payments.record_switched(
                    payment_id,
                    attempt,
                    reference=outcome.reference,
                    next_action=outcome.next_action,
                    now=now,
                )
            else:
                await work.attempts.set(
                    payment_id, attempt.attempt, state=AttemptState.DEAD, now=now
                )
            return await found(work, payment_id)


def _waits_for_payer(record: PaymentRecord, request: SwitchPayment) -> bool:
    """Whether the payer may still be given other instructions, and was not by this very order."""
    return (
        record.payment.status is PaymentStatus.REQUIRES_ACTION
        and record.payment.attempt == request.replaces
    )


def _details_of(order: SwitchOrder) -> AttemptDetails:
    return AttemptDetails(return_url=order.return_url, payer=order.payer)
