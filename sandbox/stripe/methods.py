"""PaymentMethods: cards as Stripe keeps them, new, saved for a customer, or not usable any more.

Every method that changes something belongs into a transaction of the book. A kept document has the
PaymentMethod under `object`, and beside it what Stripe would not show.
"""

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.cards import Card, Problem, card_by_token, is_token, no_such_method
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import Events, Origin
from sandbox.stripe.objects import new_payment_method, shown_card, unix

METHOD: Final = "stripe_payment_method"
_CLOCK: Final = "stripe_clock"
_NEW: Final = "new"
_ATTACHED: Final = "attached"
_USED: Final = "used"
_DETACHED: Final = "detached"
_USED_UP: Final = (
    "The provided PaymentMethod was previously used with a PaymentIntent without Customer"
    " attachment, shared with a connected account without Customer attachment, or was detached from"
    " a Customer. It may not be used again. To use a PaymentMethod multiple times, you must attach"
    " it to a Customer first."
)


class Methods:
    """The payment methods of the sandbox's one Stripe account."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._events = Events(sandbox)

    def create(self, card: Card) -> Document:
        """The kept document of a new payment method, which belongs to nobody."""
        method: Document = {
            "object": new_payment_method(card, unix(self._sandbox.clock())),
            "card": asdict(card),
            "state": _NEW,
            "reference": None,
            "steering": None,
        }
        self._keep(method)
        return method

    def find(self, method_id: str) -> Document | None:
        return self._book.get(METHOD, method_id)

    def get(self, method_id: str) -> Document:
        """Raises StripeError (404)."""
        method = self.find(method_id)
        if method is None:
            raise missing("PaymentMethod", method_id, "payment_method")
        return method

    def by_reference(self, reference: str) -> Document | None:
        """The newest card saved under our own id, or the one with Stripe's number."""
        found = self._book.find(METHOD, reference=reference)
        return found[-1] if found else self.find(reference)

    def newest(self, limit: int) -> list[Document]:
        """Those that somebody has, or had, saved, newest first."""
        kept = self._book.newest(METHOD, limit)
        return [method for method in kept if method["reference"] is not None]

    def named(self, method_id: str, customer: str | None, owner: str) -> Document:
        """What a request's parameter `payment_method` names: a test token makes a new one. `owner`
        is the kind of object that wants to use it, for `customer`. Raises StripeError."""
        if is_token(method_id):
            return self.create(card_by_token(method_id))
        method = self.find(method_id)
        if method is None:
            raise no_such_method(method_id)
        if method["state"] in (_USED, _DETACHED):
            raise _used_up()
        self._check_owner(method["object"], customer, owner)
        return method

    def of_intent(self, intent: Document) -> Document:
        """The payment method that an intent has had put on it. Raises StripeError (400) where it
        was detached since."""
        method = self.get(intent["payment_method"])
        if method["state"] == _DETACHED:
            raise _used_up()
        return method

    def attach(self, method: Document, customer: str, reference: str, origin: Origin) -> None:
        """Save it for a customer; `reference` is our own id of the saved card."""
        if method["state"] == _ATTACHED:
            return
        method["object"]["customer"] = customer
        method |= {"state": _ATTACHED, "reference": reference}
        self._keep(method)
        self._tell(method, "payment_method.attached", origin)

    def detach(self, method: Document, origin: Origin) -> Document:
        """The payment method, which never can be used again. Raises StripeError (400)."""
        card: Document = method["object"]
        if method["state"] != _ATTACHED:
            raise StripeError(
                400,
                "The payment method you provided is not attached to a customer so detachment is"
                " impossible.",
                payment_method=card,
            )
        before = {"customer": card["customer"]}
        card["customer"] = None
        method["state"] = _DETACHED
        self._keep(method)
        self._tell(method, "payment_method.detached", origin, before)
        return card

    def update(self, method: Document, *, automatically: bool, **changed: Any) -> None:
        """Replace what is printed on a saved card (`last4`, `exp_month`, `exp_year`): the network
        did so, or somebody at the dashboard."""
        last4 = changed.pop("last4", None)
        card = replace(Card(**method["card"]), **changed)
        if last4 is not None:
            card = replace(card, number=card.number[:-4] + last4)
        shown = shown_card(card)
        before = {name: old for name, old in method["object"]["card"].items() if old != shown[name]}
        method["object"]["card"] = shown
        method["card"] = asdict(card)
        self._keep(method)
        event_type = "automatically_updated" if automatically else "updated"
        self._tell(method, f"payment_method.{event_type}", Origin(), {"card": before})

    def steer(self, method: Document, steering: Document | None) -> None:
        """What its next charges come to, see `tried`; None: what its number says."""
        method["steering"] = steering
        self._keep(method)

    def tried(self, method: Document, *, off_session: bool) -> Card:
        """The card as this one charge will find it, which uses up a steering or a new method."""
        card = Card(**method["card"])
        if method["state"] != _ATTACHED:
            method["state"] = _USED
            self._keep(method)
            return card
        steering = self._take_steering(method)
        if steering.get("decline"):
            return replace(card, decline=steering["decline"], needs_3ds=False)
        if steering.get("authentication_required"):
            return replace(card, decline=None, needs_3ds=True)
        now = self.now(method["reference"])
        if (card.exp_year, card.exp_month) < (now.year, now.month):
            return replace(card, decline="expired_card", needs_3ds=False)
        if steering.get("ok"):
            return replace(card, decline=None, needs_3ds=False)
        if off_session and card.is_exempt_once_saved:
            return replace(card, needs_3ds=False)
        return card

    def is_attached(self, method: Document) -> bool:
        return bool(method["state"] == _ATTACHED)

    def now(self, reference: str) -> datetime:
        """Business time of a saved card, by which it expires."""
        kept = self._book.get(_CLOCK, reference)
        return datetime.fromisoformat(kept["now"]) if kept else self._sandbox.clock()

    def set_clock(self, reference: str, now: datetime | None) -> None:
        """Business time stands at that instant until set again; None: it is wall time."""
        if now is None:
            self._book.delete(_CLOCK, reference)
        else:
            self._book.put(_CLOCK, reference, {"now": now.isoformat()})

    def _take_steering(self, method: Document) -> Document:
        steering: Document | None = method["steering"]
        if steering is None:
            return {}
        if steering["times"] is not None:
            left = steering["times"] - 1
            method["steering"] = steering | {"times": left} if left else None
            self._keep(method)
        return steering

    def _check_owner(self, card: Document, customer: str | None, owner: str) -> None:
        if card["customer"] is None or card["customer"] == customer:
            return
        if customer is None:
            raise StripeError(
                400,
                f"The `payment_method` parameter supplied {card['id']} belongs to the Customer"
                f" {card['customer']}. Please include the Customer in the `customer` parameter on"
                f" the {owner}.",
                code="parameter_missing",
                param="payment_method",
            )
        raise StripeError(
            400,
            f"The customer does not have a payment method with the ID {card['id']}. The payment"
            " method must be attached to the customer.",
            code="resource_missing",
            param="payment_method",
        )

    def _tell(
        self, method: Document, event_type: str, origin: Origin, before: Document | None = None
    ) -> None:
        card = method["object"]
        self._events.tell(card["id"], method["reference"], event_type, card, origin, before)

    def _keep(self, method: Document) -> None:
        self._book.put(METHOD, method["object"]["id"], method)


def declined(problem: Problem, method: Document, **told: Any) -> StripeError:
    """The card error of a payment method, as its object shows it, that its bank declined."""
    if problem.advice_code:
        told["advice_code"] = problem.advice_code
    return StripeError(
        402,
        problem.message,
        type="card_error",
        code=problem.code,
        executed=True,
        decline_code=problem.decline_code,
        payment_method=method,
        **told,
    )


def _used_up() -> StripeError:
    return StripeError(400, _USED_UP)
