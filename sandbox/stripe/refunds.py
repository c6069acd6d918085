"""Refunds: money given back of a charge, and the events that tell of it.

Every method that changes something belongs into a transaction of the book.
"""

from typing import Final

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.cards import Card
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import NAME, Origin
from sandbox.stripe.forms import Form
from sandbox.stripe.intents import CHARGE, DISPUTE, REFUND, Intents
from sandbox.stripe.money import minor_units
from sandbox.stripe.objects import make_id, new_refund, unix
from sandbox.stripe.parameters import check_known, read_integer, read_metadata

CREATE: Final = frozenset({"amount", "charge", "expand", "metadata", "payment_intent", "reason"})
_REASONS: Final = ("duplicate", "fraudulent", "requested_by_customer")
_FAILURE: Final = "expired_or_canceled_card"
"""What a refund fails for unless a control names another reason."""


class Refunds:
    """The refunds of the sandbox's one Stripe account."""

    def __init__(self, sandbox: Sandbox, intents: Intents) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._intents = intents

    def create(self, form: Form, origin: Origin) -> Document:
        """The new refund as Stripe answers it; the payer's test card may make something else of
        it right after. Raises StripeError."""
        check_known(form, CREATE)
        reason = form.get("reason")
        if reason is not None and reason not in _REASONS:
            raise StripeError(
                400, f"Invalid reason: must be one of {', '.join(_REASONS)}", param="reason"
            )
        metadata = read_metadata(form)
        kept, charge = self._paid(form)
        self._check_undisputed(charge)
        amount = _read_amount(form, charge)
        refund = new_refund(charge, amount, reason, metadata, self._now())
        course = Card(**kept["card"]).refund
        refund["status"] = "pending" if course == "pending" else "succeeded"
        self._book.put(REFUND, refund["id"], refund)
        self._move(charge, amount)
        self._intents.tell(kept, "refund.created", refund, origin)
        self._intents.tell(kept, "charge.refunded", charge, origin)
        answer = dict(refund)
        if course == "pending":
            self._change(kept, refund | {"status": "succeeded"})
        elif course == "fails":
            self.fail(refund)
        return answer

    def get(self, refund_id: str) -> Document:
        """Raises StripeError (404)."""
        refund = self._book.get(REFUND, refund_id)
        if refund is None:
            raise missing("refund", refund_id, "id")
        return refund

    def of_payment(self, reference: str) -> list[Document]:
        """The refunds of all intents of a payment, oldest first."""
        return [
            refund
            for refund in self._book.find(REFUND)
            if self._intents.get(refund["payment_intent"])["reference"] == reference
        ]

    def reference_of(self, form: Form) -> str | None:
        """The payment that a call about refunds names; None where there is none."""
        charge = self._book.get(CHARGE, str(form.get("charge")))
        intent_id = charge["payment_intent"] if charge else form.get("payment_intent")
        kept = self._intents.find(str(intent_id))
        return str(kept["reference"]) if kept else None

    def fail(self, refund: Document, reason: str = _FAILURE) -> Document:
        """The bank sends the money back, which makes the charge's amount due again. The failed
        refund."""
        charge = self._book.get(CHARGE, refund["charge"])
        assert charge is not None, "charges are never deleted"
        self._move(charge, -refund["amount"])
        kept = self._intents.get(refund["payment_intent"])
        failed = refund | {
            "status": "failed",
            "failure_reason": reason,
            "failure_balance_transaction": make_id("txn"),
        }
        self._change(kept, failed)
        self._intents.tell(kept, "refund.failed", failed, Origin())
        return failed

    def _change(self, kept: Document, refund: Document) -> None:
        self._book.put(REFUND, refund["id"], refund)
        self._intents.tell(kept, "refund.updated", refund, Origin())
        self._intents.tell(kept, "charge.refund.updated", refund, Origin())

    def _move(self, charge: Document, amount: int) -> None:
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self._book.put(CHARGE, charge["id"], charge)
        moved = minor_units(amount, charge["currency"])
        self._book.record_refund(NAME, charge["id"], moved)

    def _paid(self, form: Form) -> tuple[Document, Document]:
        """The intent and the charge that paid it."""
        named = [name for name in ("charge", "payment_intent") if name in form]
        if len(named) != 1:
            raise StripeError(
                400,
                "One of the following params should be provided for this request: payment_intent"
                " or charge.",
                code="parameter_missing",
            )
        if named == ["charge"]:
            charge = self._book.get(CHARGE, str(form["charge"]))
            if charge is None:
                raise missing("charge", str(form["charge"]), "charge")
            kept = self._intents.get(charge["payment_intent"])
        else:
            kept = self._intents.get(str(form["payment_intent"]))
            charge = self._book.get(CHARGE, str(kept["object"]["latest_charge"]))
        if charge is None or not charge["paid"]:
            raise StripeError(
                400,
                f"This PaymentIntent ({kept['object']['id']}) does not have a successful charge to"
                " refund.",
                param=named[0],
            )
        return kept, charge

    def _check_undisputed(self, charge: Document) -> None:
        """Raises StripeError while a dispute has the charge's money, or for ever once it lost."""
        disputes = self._book.find(DISPUTE, charge=charge["id"])
        if any(not one["is_charge_refundable"] and one["status"] != "won" for one in disputes):
            raise StripeError(
                400,
                f"Charge {charge['id']} has been charged back; cannot issue a refund.",
                code="charge_disputed",
                executed=True,
            )

    def _now(self) -> int:
        return unix(self._sandbox.clock())


def _read_amount(form: Form, charge: Document) -> int:
    rest: int = charge["amount"] - charge["amount_refunded"]
    if rest == 0:
        raise StripeError(
            400,
            f"Charge {charge['id']} has already been refunded.",
            code="charge_already_refunded",
            executed=True,
        )
    amount = read_integer(form, "amount") if "amount" in form else rest
    if amount < 1:
        raise StripeError(
            400,
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="amount",
        )
    if amount > rest:
        raise StripeError(
            400,
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({rest}), in"
            f" minor units of {charge['currency']}",
            param="amount",
            executed=True,
        )
    return amount
