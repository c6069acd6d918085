"""Disputes: a cardholder's bank takes a charge's money back, and may have to return it.

Every method that changes something belongs into a transaction of the book.
"""

from typing import Final

from sandbox.book import Document
from sandbox.core import ControlRefused, Sandbox
from sandbox.stripe.cards import Card
from sandbox.stripe.errors import missing
from sandbox.stripe.events import NAME, Origin
from sandbox.stripe.forms import Form
from sandbox.stripe.intents import CHARGE, DISPUTE, Intents
from sandbox.stripe.money import minor_units
from sandbox.stripe.objects import new_dispute, new_dispute_transaction, unix

FEE: Final = 1500
"""What Stripe keeps for a chargeback, in minor units; winning does not bring it back."""

INQUIRY: Final = "warning_needs_response"
CHARGEBACK: Final = "needs_response"
_REASONS: Final = frozenset(
    {
        "bank_cannot_process",
        "check_returned",
        "credit_not_processed",
        "customer_initiated",
        "debit_not_authorized",
        "duplicate",
        "fraudulent",
        "general",
        "incorrect_account_details",
        "insufficient_funds",
        "product_not_received",
        "product_unacceptable",
        "subscription_canceled",
        "unrecognized",
    }
)


class Disputes:
    """The disputes of the sandbox's one Stripe account."""

    def __init__(self, sandbox: Sandbox, intents: Intents) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._intents = intents

    def follow(self, kept: Document, charge: Document, card: Card) -> None:
        """Dispute a charge that was just made with the test card for it."""
        if card.dispute:
            self.open(kept, charge["amount"], card.dispute, inquiry=False)

    def open(self, kept: Document, amount: int | None, reason: str, *, inquiry: bool) -> Document:
        """The new dispute over an intent's charge; of one with an open inquiry that one, made a
        chargeback. `amount` is in minor units, None for what was not refunded. Raises
        ControlRefused."""
        charge = self._paid(kept)
        if reason not in _REASONS:
            raise ControlRefused(422, f"Stripe knows no reason {reason!r} of a dispute")
        standing = self.newest(kept)
        if standing and standing["status"] == INQUIRY and not inquiry:
            return self._withdraw(kept, charge, standing, "charge.dispute.updated")
        if standing and standing["status"] not in ("won", "warning_closed"):
            raise ControlRefused(409, f"{charge['id']} has a dispute: it is {standing['status']}")
        wanted = charge["amount"] - charge["amount_refunded"] if amount is None else amount
        if not 1 <= wanted <= charge["amount"]:
            raise ControlRefused(
                409, f"{wanted} of {charge['id']} cannot be disputed: it took {charge['amount']}"
            )
        card = Card(**kept["card"])
        dispute = new_dispute(charge, wanted, reason, card, unix(self._sandbox.clock()))
        self._book.put(CHARGE, charge["id"], charge | {"disputed": True})
        if not inquiry:
            return self._withdraw(kept, charge, dispute, "charge.dispute.created")
        dispute["status"] = INQUIRY
        self._keep(kept, dispute, "charge.dispute.created")
        return dispute

    def close(self, kept: Document, *, won: bool) -> Document:
        """The dispute, decided: what was withdrawn comes back if it was won. An inquiry can only
        be dropped by the bank, which is winning it. Raises ControlRefused."""
        dispute = self.newest(kept)
        if dispute is None or dispute["status"] not in (INQUIRY, CHARGEBACK):
            raise ControlRefused(409, f"{kept['reference']} has no open dispute")
        if dispute["status"] == INQUIRY:
            if not won:
                raise ControlRefused(409, "an inquiry is not lost: dispute the payment instead")
            closed = dispute | {"status": "warning_closed"}
        else:
            closed = dispute | {"status": "won" if won else "lost"}
            if won:
                closed = self._move(closed, -dispute["amount"], fee=0)
        self._keep(kept, closed, "charge.dispute.closed")
        if closed["status"] == "won":
            self._keep(kept, closed, "charge.dispute.funds_reinstated")
        return closed

    def get(self, dispute_id: str) -> Document:
        """Raises StripeError (404)."""
        dispute = self._book.get(DISPUTE, dispute_id)
        if dispute is None:
            raise missing("dispute", dispute_id, "id")
        return dispute

    def newest(self, kept: Document) -> Document | None:
        found = self._book.find(DISPUTE, payment_intent=kept["object"]["id"])
        return found[-1] if found else None

    def reference_of(self, form: Form) -> str | None:
        """The payment that a call about disputes names; None where there is none."""
        charge = self._book.get(CHARGE, str(form.get("charge")))
        intent_id = charge["payment_intent"] if charge else form.get("payment_intent")
        kept = self._intents.find(str(intent_id))
        return str(kept["reference"]) if kept else None

    def _withdraw(
        self, kept: Document, charge: Document, dispute: Document, event_type: str
    ) -> Document:
        """The money leaves the account, and no refund is possible any more."""
        dispute |= {"status": CHARGEBACK, "is_charge_refundable": False}
        withdrawn = self._move(dispute, dispute["amount"], fee=FEE)
        self._keep(kept, withdrawn, event_type)
        self._keep(kept, withdrawn, "charge.dispute.funds_withdrawn")
        return withdrawn

    def _move(self, dispute: Document, amount: int, *, fee: int) -> Document:
        """The dispute with one more balance transaction: `amount` withdrawn, or less than zero
        of it reinstated."""
        transaction = new_dispute_transaction(dispute, -amount, fee, unix(self._sandbox.clock()))
        moved = minor_units(amount, dispute["currency"])
        self._book.record_dispute(NAME, dispute["charge"], moved)
        transactions = [*dispute["balance_transactions"], transaction]
        return dispute | {"balance_transactions": transactions}

    def _keep(self, kept: Document, dispute: Document, event_type: str) -> None:
        self._book.put(DISPUTE, dispute["id"], dispute)
        self._intents.tell(kept, event_type, dispute, Origin())

    def _paid(self, kept: Document) -> Document:
        charge = self._book.get(CHARGE, str(kept["object"]["latest_charge"]))
        if charge is None or not charge["paid"]:
            raise ControlRefused(409, f"{kept['reference']} has no charge to dispute")
        return charge
