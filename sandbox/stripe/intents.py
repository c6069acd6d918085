"""PaymentIntents: their life, the charges they make and the events that tell of it.

Every method that changes something belongs into a transaction of the book. A decline is raised
as StripeError with `executed` set, after its changes are made: the caller commits all the same.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.cards import Card, Problem, problem_of
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import NAME, Events, Origin
from sandbox.stripe.methods import Methods, declined
from sandbox.stripe.money import minor_units
from sandbox.stripe.objects import make_id, new_charge, new_intent, unix

INTENT: Final = "stripe_intent"
CHARGE: Final = "stripe_charge"
REFUND: Final = "stripe_refund"
DISPUTE: Final = "stripe_dispute"
PROCESSING: Final = "processing"
CANCELABLE: Final = (
    "requires_payment_method",
    "requires_capture",
    "requires_confirmation",
    "requires_action",
    PROCESSING,
)
_CONFIRMABLE: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
_AUTHENTICATION_REQUIRED: Final = Problem(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
_AUTHENTICATION_FAILED: Final = (
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data"
    " or a new PaymentMethod to attempt to fulfill this PaymentIntent again."
)


@dataclass(frozen=True)
class NewIntent:
    """What a PaymentIntent is created with; `fields` are copied onto it."""

    amount: int
    currency: str
    fields: Document


ChargeFollower = Callable[[Document, Document, Card], None]
"""What happens after a charge: the kept intent, the charge and the card it was made with."""


class Intents:
    """The PaymentIntents of the sandbox's one Stripe account."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._events = Events(sandbox)
        self._methods = Methods(sandbox)
        self._followers: list[ChargeFollower] = []

    def after_charges(self, follow: ChargeFollower) -> None:
        """Have `follow` called in the transaction of each charge that takes money."""
        self._followers.append(follow)

    def create(self, wanted: NewIntent, method: Document | None, origin: Origin) -> Document:
        """The kept document of a new intent, with a kept payment method on it if one is given."""
        intent = new_intent(wanted.amount, wanted.currency, self._now()) | wanted.fields
        metadata = intent["metadata"]
        attempt = str(metadata.get("attempt", "1"))
        kept: Document = {
            "object": intent,
            "reference": metadata.get("payment_id", intent["id"]),
            "attempt": int(attempt) if attempt.isdigit() else 1,
            "card": None,
            "source": None,
        }
        if method:
            intent |= {"status": "requires_confirmation", "payment_method": method["object"]["id"]}
        self._keep(kept)
        self.tell(kept, "payment_intent.created", intent, origin)
        return kept

    def get(self, intent_id: str) -> Document:
        """The kept document: the intent under `object`, and what Stripe would not show. Raises
        StripeError (404)."""
        kept = self.find(intent_id)
        if kept is None:
            raise missing("payment_intent", intent_id)
        return kept

    def find(self, intent_id: str) -> Document | None:
        """The kept document, if there is one."""
        return self._book.get(INTENT, intent_id)

    def of_payment(self, reference: str, attempt: int | None) -> Document | None:
        """The intent of a payment's attempt; without an attempt that of its last one."""
        found = self._book.find(INTENT, reference=reference)
        fitting = [kept for kept in found if attempt in (None, kept["attempt"])]
        return max(fitting, key=lambda kept: int(kept["attempt"]), default=None)

    def confirm(
        self,
        kept: Document,
        method: Document | None,
        origin: Origin,
        *,
        return_url: str | None = None,
        authentication_possible: bool = True,
        off_session: bool = False,
        is_bank_slow: bool = False,
    ) -> Document:
        """Try to take the money, with a kept payment method or with the one it has. The intent,
        succeeded, requiring action, or processing where the bank is slow; raises StripeError."""
        intent: Document = kept["object"]
        self._check_confirmable(kept, method)
        if method is None:
            method = self._methods.of_intent(intent)
        used = self._methods.tried(method, off_session=off_session)
        kept |= {"card": asdict(used), "payment_method": method["object"]}
        intent |= {
            "payment_method": method["object"]["id"],
            "next_action": None,
            "last_payment_error": None,
        }
        if used.needs_3ds and not authentication_possible:
            return self._decline(kept, used, _AUTHENTICATION_REQUIRED, origin)
        if used.needs_3ds:
            return self._ask_for_authentication(kept, return_url, origin)
        if is_bank_slow:
            return self._await_bank(kept, origin)
        return self._charge(kept, used, origin)

    def hear_from_bank(self, kept: Document) -> Document:
        """The bank that was slow answers by what the card does. The intent; raises StripeError."""
        return self._charge(kept, Card(**kept["card"]), Origin())

    def authenticate(self, kept: Document, succeeded: bool) -> Document:
        """The payer is done at the bank's page. The intent; raises StripeError."""
        intent: Document = kept["object"]
        if intent["status"] != "requires_action":
            raise self._unexpected(
                intent,
                f"This PaymentIntent has a status of {intent['status']}: there is nothing to"
                " authenticate.",
            )
        intent["next_action"] = None
        if succeeded:
            return self._charge(kept, Card(**kept["card"]), Origin())
        intent |= {
            "status": "requires_payment_method",
            "payment_method": None,
            "last_payment_error": {
                "code": "payment_intent_authentication_failure",
                "doc_url": (
                    "https://stripe.com/docs/error-codes/payment-intent-authentication-failure"
                ),
                "message": _AUTHENTICATION_FAILED,
                "payment_method": kept["payment_method"],
                "type": "invalid_request_error",
            },
        }
        self._keep(kept)
        self.tell(kept, "payment_intent.payment_failed", intent, Origin())
        return intent

    def cancel(self, kept: Document, reason: str | None, origin: Origin) -> Document:
        """The canceled intent. Raises StripeError where it is succeeded or canceled already, or
        where its money is on its way: Stripe cancels what is processing in rare cases only."""
        intent: Document = kept["object"]
        if intent["status"] not in CANCELABLE or intent["status"] == PROCESSING:
            raise self._unexpected(
                intent,
                "You cannot cancel this PaymentIntent because it has a status of"
                f" {intent['status']}. Only a PaymentIntent with one of the following statuses may"
                f" be canceled: {', '.join(CANCELABLE)}.",
            )
        intent |= {
            "status": "canceled",
            "canceled_at": self._now(),
            "cancellation_reason": reason,
            "next_action": None,
        }
        self._keep(kept)
        self.tell(kept, "payment_intent.canceled", intent, origin)
        return intent

    def tell(self, kept: Document, event_type: str, subject: Document, origin: Origin) -> None:
        """Write an event about the intent or something of it, and have it sent."""
        self._events.tell(kept["object"]["id"], kept["reference"], event_type, subject, origin)

    def _check_confirmable(self, kept: Document, method: Document | None) -> None:
        intent: Document = kept["object"]
        status = intent["status"]
        if status == "succeeded":
            raise self._unexpected(
                intent,
                "You cannot confirm this PaymentIntent because it has already succeeded after"
                " being previously confirmed.",
            )
        if status not in _CONFIRMABLE:
            raise self._unexpected(
                intent,
                "This PaymentIntent's payment_method could not be updated because it has a status"
                f" of {status}. You may only update the payment_method of a PaymentIntent with one"
                f" of the following statuses: {', '.join(_CONFIRMABLE)}.",
            )
        if method is None and intent["payment_method"] is None:
            raise self._unexpected(
                intent,
                "You cannot confirm this PaymentIntent because it's missing a payment method. You"
                " can either update the PaymentIntent with a payment method and then confirm it"
                " again, or confirm it again directly with a payment method or ConfirmationToken.",
            )

    def _ask_for_authentication(
        self, kept: Document, return_url: str | None, origin: Origin
    ) -> Document:
        intent: Document = kept["object"]
        kept["source"] = make_id("src")
        page = f"{self._sandbox.url}/stripe/3ds/{intent['id']}?source={kept['source']}"
        intent |= {
            "status": "requires_action",
            "next_action": {
                "type": "redirect_to_url",
                "redirect_to_url": {"return_url": return_url, "url": page},
            },
        }
        self._keep(kept)
        self.tell(kept, "payment_intent.requires_action", intent, origin)
        return intent

    def _await_bank(self, kept: Document, origin: Origin) -> Document:
        intent: Document = kept["object"]
        intent["status"] = PROCESSING
        self._keep(kept)
        self.tell(kept, "payment_intent.processing", intent, origin)
        return intent

    def _charge(self, kept: Document, card: Card, origin: Origin) -> Document:
        if card.decline:
            return self._decline(kept, card, problem_of(card.decline), origin)
        intent: Document = kept["object"]
        charge = new_charge(intent, intent["payment_method"], card, None, self._now())
        self._book.put(CHARGE, charge["id"], charge)
        self._book.record_charge(
            NAME,
            kept["reference"],
            kept["attempt"],
            intent["id"],
            minor_units(intent["amount"], intent["currency"]),
            intent["currency"],
            charge["id"],
            self._sandbox.clock(),
        )
        intent |= {
            "status": "succeeded",
            "amount_received": intent["amount"],
            "latest_charge": charge["id"],
        }
        self._keep(kept)
        self.tell(kept, "charge.succeeded", charge, origin)
        self.tell(kept, "payment_intent.succeeded", intent, origin)
        for follow in self._followers:
            follow(kept, charge, card)
        return intent

    def _decline(self, kept: Document, card: Card, problem: Problem, origin: Origin) -> Document:
        intent: Document = kept["object"]
        method = kept["payment_method"]
        charge = new_charge(intent, method["id"], card, problem, self._now())
        self._book.put(CHARGE, charge["id"], charge)
        error = declined(problem, method, charge=charge["id"])
        intent |= {
            "status": "requires_payment_method",
            "payment_method": None,
            "latest_charge": charge["id"],
            "last_payment_error": dict(error.body["error"]),
        }
        self._keep(kept)
        self.tell(kept, "charge.failed", charge, origin)
        self.tell(kept, "payment_intent.payment_failed", intent, origin)
        error.body["error"]["payment_intent"] = intent
        raise error

    def _unexpected(self, intent: Document, message: str) -> StripeError:
        return StripeError(
            400,
            message,
            code="payment_intent_unexpected_state",
            executed=True,
            payment_intent=intent,
        )

    def _keep(self, kept: Document) -> None:
        self._book.put(INTENT, kept["object"]["id"], kept)

    def _now(self) -> int:
        return unix(self._sandbox.clock())
