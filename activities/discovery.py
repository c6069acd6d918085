"""Refunds that were made at a gateway without us: found, recorded, and followed.

A webhook that names one, or anybody who has a payment looked at, leads here. The gateway is asked,
and what it says is recorded as a refund of its own, under an id that its numbers at the gateway
give: however often it is told of, it is one row, and in the ledger once. Nothing is refused, for
the money is gone. A refund that carries a number of ours and is not in the record is one of these:
we write a refund down before it is asked for, so that the record has lost it, or another has made
it. That number is then the id of its row, which stands in the way of whoever would reserve the
refund again.
"""

from datetime import datetime
from typing import Final

from temporalio import activity

from activities.asking import asking
from activities.placing import Placing, order_of
from activities.refund import apply
from billing.errors import AnswerUntrusted
from billing.identifiers import foreign_refund_id, is_refund_id
from billing.messages import DiscoverRefunds, Standing
from billing.payment import AttemptState
from billing.refund import RefundCause
from gateways.gateway import (
    ForeignRefund,
    Gateway,
    RefundObservation,
    RefundState,
    ToldRefunds,
)
from storage.database import UnitOfWork
from storage.payments import AttemptRecord, PaymentRecord
from storage.refunds import RefundRecord

REFUNDED_ELSEWHERE: Final = "refunded_elsewhere"
"""Why a person is called for: money went back without us, and not all about it is known."""

UNNAMED: Final = "unnamed"
"""In place of a number: what a gateway gave back by refunds that it did not name."""


class DiscoveryActivities(Placing):
    """What a payment's workflow has done about refunds made elsewhere."""

    @activity.defn(name="refund.discover")
    async def discover(self, request: DiscoverRefunds) -> Standing:
        """Ask for the refunds of every receipt that the gateway gave, and record what is new."""
        gateway = self.gateway(request.gateway)
        record = await self.record(request.payment_id)
        for attempt in record.attempts:
            if attempt.state is AttemptState.PAID and attempt.gateway is gateway.name:
                await self._discover(gateway, record, attempt, request.now)
        return await self.standing(await self.record(request.payment_id))

    async def _discover(
        self, gateway: Gateway, record: PaymentRecord, attempt: AttemptRecord, now: datetime
    ) -> None:
        payment_id = record.payment.id
        async with self.database.single() as work:
            hints = await hints_of(work, payment_id, attempt)
        try:
            with asking(gateway.name):
                told = await gateway.list_refunds(order_of(record, attempt), hints)
        except AnswerUntrusted as problem:
            async with self.database.single() as work:
                await work.attention.raise_(
                    payment_id, REFUNDED_ELSEWHERE, f"{problem.reason}: {problem.detail}", now
                )
            return
        async with self.database.begin() as work:
            # Held before anything is read: what is known must not change in between.
            await work.payments.hold(payment_id)
            await _Discovery(work, record, attempt, now).take(told)


class _Discovery:
    """What one gateway told of one receipt, on its way into the record."""

    def __init__(
        self, work: UnitOfWork, record: PaymentRecord, attempt: AttemptRecord, now: datetime
    ) -> None:
        self._work = work
        self._payment_id = record.payment.id
        self._attempt = attempt
        self._now = now

    async def take(self, told: ToldRefunds) -> None:
        known = {
            one.refund.gateway_reference: one
            for one in await _made_elsewhere(self._work, self._payment_id, self._attempt.attempt)
        }
        unnamed = known.get(UNNAMED)
        ours = await _ours(self._work, self._payment_id)
        for one in told.refunds:
            if not ours.isdisjoint((one.number, one.our_number)):
                continue
            if one.number in known or unnamed is None:
                await self._record(one, known.get(one.number))
            # Else all that was paid is known to have gone back, this refund's part included.
        doubt = await self._doubt(told)
        if doubt is None:
            await self._work.attention.resolve(self._payment_id, self._now, REFUNDED_ELSEWHERE)
        else:
            await self._work.attention.raise_(
                self._payment_id, REFUNDED_ELSEWHERE, doubt, self._now
            )

    async def _record(self, told: ForeignRefund, known: RefundRecord | None) -> None:
        seen = told.observation
        if known is None and seen.state is RefundState.FAILED:
            return
        attempt = self._attempt
        record = await self._work.refunds.note_elsewhere(
            refund_id=known.refund.id if known is not None else await self._id_of(told),
            payment_id=self._payment_id,
            attempt=attempt.attempt,
            amount_minor=told.amount_minor,
            number=told.number,
            now=self._now,
        )
        if record.refund.amount == told.amount_minor:
            await apply(self._work, record, seen, self._now)
            return
        mismatch = AnswerUntrusted(
            "amount_mismatch",
            f"{attempt.gateway.value} told of {told.number} over {record.refund.amount} in minor"
            f" units, and now over {told.amount_minor}",
        )
        await apply(self._work, record, mismatch, self._now)

    async def _id_of(self, told: ForeignRefund) -> str:
        """The number of ours that it carries, where that is free or its own already; a copy of it,
        as Stripe lets anybody make by the metadata, is another refund."""
        for number in (told.our_number, told.number):
            if number is None or not is_refund_id(number):
                continue
            standing = await self._work.refunds.find(number)
            if standing is None or self._is_of(standing, told.number):
                return number
        gateway, order = self._attempt.gateway.value, self._attempt.number
        return foreign_refund_id(self._payment_id, gateway, order, told.number)

    def _is_of(self, record: RefundRecord, number: str) -> bool:
        refund = record.refund
        return (
            refund.cause is RefundCause.ELSEWHERE
            and (refund.payment_id, record.attempt) == (self._payment_id, self._attempt.attempt)
            and refund.gateway_reference == number
        )

    async def _doubt(self, told: ToldRefunds) -> str | None:
        """Why a person must look, None where everything is known; what a gateway gave back by
        refunds it does not name is recorded as one, once no refund of ours can be part of it."""
        attempt, gateway = self._attempt, self._attempt.gateway.value
        refunds = self._work.refunds
        done, is_under_way = await refunds.given_back(self._payment_id, attempt.attempt)
        receipt = next(
            one
            for one in await self._work.receipts.of(self._payment_id)
            if one.attempt == attempt.attempt
        )
        missing = (told.returned_minor or 0) - done
        if missing > 0 and is_under_way:
            return (
                f"{gateway} has given back all of {attempt.number}, and {missing} of it in minor"
                " units is not known here; once the refunds under way have ended, `refresh` has it"
                " recorded"
            )
        if missing > 0:
            whole = RefundObservation(RefundState.SUCCEEDED, "unnamed", reference=UNNAMED)
            await self._record(ForeignRefund(UNNAMED, missing, whole), None)
        elif done > receipt.amount_minor:
            return (
                f"{done} of {receipt.amount_minor} {receipt.currency} in minor units are refunded"
                f" of {attempt.number} by {gateway}'s own word: compare with its list of refunds"
            )
        if told.is_any and done == 0 and not is_under_way:
            return (
                f"{gateway} says that {attempt.number} was refunded, and not by which refund: look"
                " it up there, and have its notification sent again"
            )
        return None


async def hints_of(work: UnitOfWork, payment_id: str, attempt: AttemptRecord) -> list[str]:
    """The numbers that a gateway which lists no refunds is to be asked about: those that webhooks
    named, and those that are recorded as made elsewhere."""
    named = await work.inbox.foreign_refunds(attempt.gateway, attempt.number, payment_id)
    known = {
        one.refund.gateway_reference or ""
        for one in await _made_elsewhere(work, payment_id, attempt.attempt)
    }
    return sorted((named | known) - {"", UNNAMED})


async def _ours(work: UnitOfWork, payment_id: str) -> set[str]:
    """The numbers of the refunds that we have made or are about to."""
    return {
        one.refund.id
        for one in await work.refunds.of_payment(payment_id)
        if one.refund.cause is not RefundCause.ELSEWHERE
    }


async def _made_elsewhere(work: UnitOfWork, payment_id: str, attempt: int) -> list[RefundRecord]:
    return [
        one
        for one in await work.refunds.of_payment(payment_id)
        if one.refund.cause is RefundCause.ELSEWHERE and one.attempt == attempt
    ]
