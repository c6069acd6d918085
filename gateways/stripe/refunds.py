"""Refunds by Stripe (API 2026-10-28.endive, through the official SDK).

A refund carries its number and that of the order in its metadata. Stripe is asked for it before
it is asked to make it, so that nothing rests on an idempotency key that it may have forgotten.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final, Literal

import stripe
from stripe.params import RefundCreateParams, RefundListParams

from billing.errors import AnswerUntrusted, BalanceInsufficient, OutcomeUnknown
from billing.identifiers import is_refund_id, refund_key
from billing.payment import Failure
from gateways.clock import Clock
from gateways.gateway import (
    ForeignRefund,
    Order,
    RefundObservation,
    RefundOrder,
    RefundState,
    ToldRefunds,
)
from gateways.meaning import Meaning
from gateways.stripe.amounts import from_stripe, to_stripe
from gateways.stripe.connection import ErrorAnswer, read_error
from gateways.stripe.objects import REFUND_NUMBER, REFUND_PAYMENT, RefundPage, RefundView, read
from gateways.stripe.outcomes import (
    BALANCE_CODES,
    REFUSED_REFUND,
    refund_failure_of,
    refund_refusal_of,
    refund_state_of,
)

_PAGE_SIZE: Final = 100
_MOST_PAGES: Final = 20
_MOST_KEYS: Final = 12
_NO_STATUS: Final = "null"


class StripeRefunds:
    """The refunds of one Stripe account."""

    def __init__(self, client: stripe.StripeClient, clock: Clock) -> None:
        self._refunds = client.v1.refunds
        self._clock = clock

    async def refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.refund`."""
        found = await self._find(order)
        if found is not None:
            return _observe(order, found)
        amount = to_stripe(order.amount_minor, order.currency)
        if amount is None:
            message = f"Stripe gives back whole {order.currency} only."
            return _failed(Failure(code=REFUSED_REFUND, message=message))
        return await self._create(order, amount)

    async def query(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.query_refund`."""
        found = await self._find(order)
        if found is None:
            return RefundObservation(RefundState.ABSENT, RefundState.ABSENT.value)
        return _observe(order, found)

    async def listed(self, order: Order, intent_id: str) -> ToldRefunds:
        """Every refund of the order's PaymentIntent. See `Gateway.list_refunds`."""
        found = []
        wanted: RefundListParams = {"payment_intent": intent_id, "limit": _PAGE_SIZE}
        for _ in range(_MOST_PAGES):
            page = await self._page(wanted)
            for listed in page.data:
                found.append(_foreign(order, intent_id, read(RefundView, listed)))
            if not page.has_more or not page.data:
                return ToldRefunds(tuple(reversed(found)))
            wanted["starting_after"] = str(page.data[-1].get("id"))
        raise OutcomeUnknown(
            f"{intent_id} has more than {_PAGE_SIZE * _MOST_PAGES} refunds at Stripe"
        )

    async def _create(self, order: RefundOrder, amount: int) -> RefundObservation:
        for key in self._keys(order):
            answer = await self._try(order, amount, key)
            if isinstance(answer, RefundView):
                return _observe(order, answer)
            refusal = answer
            if not (refusal.is_replayed and refusal.error.code in BALANCE_CODES):
                break
        return await self._not_created(order, refusal)

    def _keys(self, order: RefundOrder) -> Iterator[str]:
        """The keys to try, each only where Stripe repeats the empty account it had answered the
        one before with, and would for a day however full the account is by now. Twice as much
        time lies between any two, so that they stay few."""
        minutes = (self._clock() - order.created_at) // timedelta(minutes=1)
        count = min(1 + max(minutes, 0).bit_length(), _MOST_KEYS)
        return (refund_key(order.number, turn) for turn in range(1, count + 1))

    async def _try(self, order: RefundOrder, amount: int, key: str) -> RefundView | ErrorAnswer:
        wanted: RefundCreateParams = {
            "amount": amount,
            "metadata": {REFUND_NUMBER: order.number, REFUND_PAYMENT: order.payment_number},
        }
        wanted[_payment_field(order)] = order.payment_reference
        try:
            created = await self._refunds.create_async(wanted, {"idempotency_key": key})
        except stripe.StripeError as problem:
            return read_error(problem)
        return read(RefundView, created)

    async def _not_created(self, order: RefundOrder, answer: ErrorAnswer) -> RefundObservation:
        if answer.error.code in BALANCE_CODES:
            raise BalanceInsufficient(answer.detail)
        if answer.meaning not in (Meaning.REFUSED, Meaning.DECLINED, Meaning.ORDERED):
            return answer.raise_as_error()
        # A refusal gives the money free for another refund: see first that it is not this
        # one, asked for twice at once, which leaves nothing to give back.
        found = await self._find(order)
        if found is not None:
            return _observe(order, found)
        if answer.is_of_key:
            raise OutcomeUnknown(answer.detail)
        return _failed(refund_refusal_of(answer.error))

    async def _find(self, order: RefundOrder) -> RefundView | None:
        """The refund; None where Stripe never made one."""
        if order.reference is None:
            return await self._look_up(order)
        try:
            found = read(RefundView, await self._refunds.retrieve_async(order.reference))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            if found.id != order.reference:
                raise AnswerUntrusted(
                    "refund_mismatch",
                    f"Stripe was asked about {order.reference} and answers with {found.id}",
                )
            return found
        # Including ABSENT: what Stripe once named is not gone, so this is not its account.
        return answer.raise_as_error()

    async def _look_up(self, order: RefundOrder) -> RefundView | None:
        """Go through all refunds of the payment."""
        wanted: RefundListParams = {"limit": _PAGE_SIZE}
        wanted[_payment_field(order)] = order.payment_reference
        for _ in range(_MOST_PAGES):
            page = await self._page(wanted)
            for listed in page.data:
                metadata = listed.get("metadata")
                if isinstance(metadata, dict) and metadata.get(REFUND_NUMBER) == order.number:
                    return read(RefundView, listed)
            if not page.has_more or not page.data:
                return None
            wanted["starting_after"] = str(page.data[-1].get("id"))
        raise OutcomeUnknown(
            f"{order.number} is not among the {_PAGE_SIZE * _MOST_PAGES} refunds looked through,"
            " and there are more"
        )

    async def _page(self, wanted: RefundListParams) -> RefundPage:
        try:
            return read(RefundPage, await self._refunds.list_async(wanted))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        return answer.raise_as_error()


def _observe(order: RefundOrder, refund: RefundView) -> RefundObservation:
    _check_identity(order, refund)
    return _observation(refund)


def _foreign(order: Order, intent_id: str, refund: RefundView) -> ForeignRefund:
    if refund.payment_intent != intent_id:
        raise AnswerUntrusted(
            "order_mismatch", f"{refund.id} is not of {order.number}, {intent_id} at Stripe"
        )
    if refund.currency != order.currency.lower():
        raise AnswerUntrusted(
            "currency_mismatch",
            f"{order.number} was paid in {order.currency}, {refund.id} is in"
            f" {refund.currency.upper()}",
        )
    amount = from_stripe(refund.amount, order.currency)
    if amount is None or amount < 1:
        raise AnswerUntrusted(
            "amount_mismatch",
            f"{refund.id}: Stripe reports {refund.amount} {order.currency} in its own units",
        )
    number = refund.metadata.get(REFUND_NUMBER, "")
    our_number = number if is_refund_id(number) else None
    return ForeignRefund(refund.id, amount, _observation(refund), our_number)


def _observation(refund: RefundView) -> RefundObservation:
    """Stripe does not say when a refund succeeded, only when it was asked for."""
    state = refund_state_of(refund.status)
    status = refund.status or _NO_STATUS
    return RefundObservation(
        state=state,
        status=status,
        reference=refund.id,
        failure=(
            refund_failure_of(status, refund.failure_reason)
            if state is RefundState.FAILED
            else None
        ),
    )


def _check_identity(order: RefundOrder, refund: RefundView) -> None:
    if refund.metadata.get(REFUND_NUMBER) != order.number:
        raise AnswerUntrusted("refund_mismatch", f"{refund.id} was not made for {order.number}")
    is_of_payment = (
        getattr(refund, _payment_field(order)) == order.payment_reference
        and refund.metadata.get(REFUND_PAYMENT) == order.payment_number
    )
    if not is_of_payment:
        raise AnswerUntrusted(
            "order_mismatch",
            f"{refund.id} is not of {order.payment_number}, {order.payment_reference} at Stripe",
        )
    if refund.currency != order.currency.lower():
        raise AnswerUntrusted(
            "currency_mismatch",
            f"{order.number} asks for {order.currency}, {refund.id} for {refund.currency.upper()}",
        )
    if refund.amount != to_stripe(order.amount_minor, order.currency):
        raise AnswerUntrusted(
            "amount_mismatch",
            f"{order.number} asks for {order.amount_minor} {order.currency} in minor units,"
            f" {refund.id} for {refund.amount} in Stripe's",
        )


def _failed(failure: Failure) -> RefundObservation:
    return RefundObservation(
        RefundState.FAILED, failure.decline_code or failure.code, failure=failure
    )


def _payment_field(order: RefundOrder) -> Literal["payment_intent", "charge"]:
    """A receipt names the charge, and the PaymentIntent where Stripe had not told the charge."""
    return "payment_intent" if order.payment_reference.startswith("pi_") else "charge"
