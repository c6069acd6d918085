"""Somebody at Stripe's dashboard: refunds without metadata, and PaymentIntents it cancels."""

from typing import Any

from sandbox.core import ControlRefused, Sandbox, Wanted
from sandbox.stripe.errors import StripeError
from sandbox.stripe.events import NAME, Origin
from sandbox.stripe.intents import Intents
from sandbox.stripe.payer import CardPayer
from sandbox.stripe.refunds import Refunds


class StripeMerchant:
    """See `sandbox.core.Merchant`."""

    def __init__(self, sandbox: Sandbox, intents: Intents) -> None:
        self._sandbox = sandbox
        self._intents = intents
        self._refunds = Refunds(sandbox, intents)
        self._orders = CardPayer(sandbox, intents)

    def refund(self, wanted: Wanted, amount: int | None) -> dict[str, Any]:
        kept = self._orders.find(wanted)
        form = {"payment_intent": kept["object"]["id"]}
        if amount is not None:
            form["amount"] = str(amount)
        try:
            with self._sandbox.book.transaction():
                refund = self._refunds.create(form, Origin())
        except StripeError as problem:
            raise ControlRefused(409, str(problem)) from None
        return _told(kept["reference"], refund)

    def close(self, wanted: Wanted) -> dict[str, Any]:
        kept = self._orders.find(wanted)
        try:
            with self._sandbox.book.transaction():
                intent = self._intents.cancel(kept, "requested_by_customer", Origin())
        except StripeError as problem:
            raise ControlRefused(409, str(problem)) from None
        return _told(kept["reference"], intent)


def _told(reference: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "gateway": NAME,
        "reference": reference,
        "number": subject["id"],
        "status": subject["status"],
    }
