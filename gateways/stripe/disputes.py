"""Disputes at Stripe (API 2026-10-28.endive, through the official SDK).

What a dispute has taken and given back is read from its balance transactions: a status alone
does not say where the money is.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import stripe
from stripe.params import DisputeListParams

from billing.dispute import DisputeStatus
from billing.errors import AnswerUntrusted, OutcomeUnknown
from gateways.gateway import DisputeObservation, Order
from gateways.stripe.amounts import from_stripe
from gateways.stripe.connection import read_error
from gateways.stripe.objects import DisputeMoneyView, DisputePage, DisputeView, read

STATUSES: Final[Mapping[str, DisputeStatus]] = {
    "warning_needs_response": DisputeStatus.WARNING,
    "warning_under_review": DisputeStatus.WARNING,
    # The bank has let its inquiry drop: nothing was taken.
    "warning_closed": DisputeStatus.WON,
    "needs_response": DisputeStatus.OPEN,
    "under_review": DisputeStatus.UNDER_REVIEW,
    "won": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}
_PREVENTED: Final = "prevented"
"""Over before the bank decided: lost if it has the money, won if not."""

_PAGE_SIZE: Final = 100
_MOST_PAGES: Final = 5


class StripeDisputes:
    """The disputes of one Stripe account; `is_live` is the mode its key belongs to."""

    def __init__(self, client: stripe.StripeClient, *, is_live: bool) -> None:
        self._disputes = client.v1.disputes
        self._is_live = is_live

    async def of(self, order: Order, intent_id: str) -> list[DisputeObservation]:
        """Every dispute of the order's PaymentIntent, oldest first. See `Gateway.list_disputes`."""
        found: list[DisputeObservation] = []
        wanted: DisputeListParams = {"payment_intent": intent_id, "limit": _PAGE_SIZE}
        for _ in range(_MOST_PAGES):
            page = await self._page(wanted)
            views = [read(DisputeView, listed) for listed in page.data]
            found += [self._observe(order, intent_id, view) for view in views]
            if not page.has_more or not views:
                return found[::-1]
            wanted["starting_after"] = views[-1].id
        raise OutcomeUnknown(
            f"{intent_id} has more than {_PAGE_SIZE * _MOST_PAGES} disputes at Stripe"
        )

    async def _page(self, wanted: DisputeListParams) -> DisputePage:
        try:
            return read(DisputePage, await self._disputes.list_async(wanted))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        return answer.raise_as_error()

    def _observe(self, order: Order, intent_id: str, dispute: DisputeView) -> DisputeObservation:
        self._check_identity(order, intent_id, dispute)
        moved = [
            _amount(order, dispute, _in_currency_of(dispute, one))
            for one in dispute.balance_transactions
        ]
        withdrawn = -sum(amount for amount in moved if amount < 0)
        reinstated = sum(amount for amount in moved if amount > 0)
        due_by = dispute.evidence_details.due_by if dispute.evidence_details else None
        return DisputeObservation(
            reference=dispute.id,
            status=_status(dispute.status, held_minor=withdrawn - reinstated),
            gateway_status=dispute.status,
            amount_minor=_amount(order, dispute, dispute.amount),
            currency=order.currency,
            reason=dispute.reason,
            withdrawn_minor=withdrawn,
            reinstated_minor=reinstated,
            fee_minor=_fee(order, dispute),
            due_by=datetime.fromtimestamp(due_by, UTC) if due_by is not None else None,
            opened_at=datetime.fromtimestamp(dispute.created, UTC),
        )

    def _check_identity(self, order: Order, intent_id: str, dispute: DisputeView) -> None:
        """The amount may be another than was paid: parts are disputed, and rates change."""
        if dispute.payment_intent != intent_id:
            raise AnswerUntrusted(
                "order_mismatch", f"{dispute.id} is not of {order.number}, {intent_id} at Stripe"
            )
        if dispute.livemode is not self._is_live:
            raise AnswerUntrusted(
                "merchant_mismatch",
                f"{dispute.id} is not of the mode (test or live) of EVERBILL_STRIPE_SECRET_KEY",
            )
        if dispute.currency != order.currency.lower():
            raise AnswerUntrusted(
                "currency_mismatch",
                f"{order.number} was paid in {order.currency}, {dispute.id} is in"
                f" {dispute.currency.upper()}",
            )


def _status(word: str, *, held_minor: int) -> DisputeStatus:
    if word == _PREVENTED:
        return DisputeStatus.LOST if held_minor > 0 else DisputeStatus.WON
    return STATUSES.get(word, DisputeStatus.UNRECOGNISED)


def _in_currency_of(dispute: DisputeView, money: DisputeMoneyView) -> int:
    """What a balance transaction moved. One in the currency that Stripe settles in moved the
    dispute's own amount, the ledger having no other currency of this payment."""
    if money.currency == dispute.currency or money.amount == 0:
        return money.amount
    return dispute.amount if money.amount > 0 else -dispute.amount


def _fee(order: Order, dispute: DisputeView) -> int | None:
    """What Stripe has charged for the dispute; None where it charged in another currency."""
    if any(one.fee and one.currency != dispute.currency for one in dispute.balance_transactions):
        return None
    return _amount(order, dispute, sum(one.fee for one in dispute.balance_transactions))


def _amount(order: Order, dispute: DisputeView, amount: int) -> int:
    minor = from_stripe(amount, order.currency)
    if minor is None:
        raise AnswerUntrusted(
            "amount_mismatch",
            f"{dispute.id}: Stripe reports {amount} {order.currency} in its own units, a fraction"
            " of a minor unit",
        )
    return minor
