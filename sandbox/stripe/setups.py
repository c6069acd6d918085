"""SetupIntents: cards saved for charges without the payer, and the events that tell of it.

Every method that changes something belongs into a transaction of the book. A decline is raised
as StripeError with `executed` set, after its changes are made: the caller commits all the same.
"""

from typing import Final

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.cards import Card, problem_of
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import Events, Origin
from sandbox.stripe.methods import Methods, declined
from sandbox.stripe.objects import make_id, new_setup, unix

SETUP: Final = "stripe_setup_intent"
_CONFIRMABLE: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
_AUTHENTICATION_FAILED: Final = (
    "We are unable to authenticate your payment method. Please choose a different payment method"
    " and try again."
)


class Setups:
    """The SetupIntents of the sandbox's one Stripe account."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._events = Events(sandbox)
        self._methods = Methods(sandbox)

    def create(self, fields: Document, method: Document | None, origin: Origin) -> Document:
        """The kept document of a new one, with a kept payment method on it if one is given."""
        setup = new_setup(unix(self._sandbox.clock())) | fields
        kept: Document = {
            "object": setup,
            "reference": setup["metadata"].get("method_id", setup["id"]),
            "attempt": 1,
            "source": None,
        }
        if method:
            setup |= {"status": "requires_confirmation", "payment_method": method["object"]["id"]}
        self._keep(kept)
        self._tell(kept, "created", origin)
        return kept

    def get(self, setup_id: str) -> Document:
        """The kept document: the SetupIntent under `object`, and what Stripe would not show. Raises
        StripeError (404)."""
        kept = self.find(setup_id)
        if kept is None:
            raise missing("setupintent", setup_id)
        return kept

    def find(self, setup_id: str) -> Document | None:
        """The kept document, if there is one."""
        return self._book.get(SETUP, setup_id)

    def of_method(self, reference: str) -> Document | None:
        """The newest SetupIntent of a saved method, by our id of it or by Stripe's number."""
        found = self._book.find(SETUP, reference=reference)
        return found[-1] if found else self.find(reference)

    def confirm(
        self,
        kept: Document,
        method: Document | None,
        origin: Origin,
        *,
        return_url: str | None = None,
    ) -> Document:
        """Try to save a kept payment method, or the one it has. The SetupIntent, succeeded or
        requiring action; raises StripeError."""
        setup: Document = kept["object"]
        self._check_confirmable(setup, method)
        if method is None:
            method = self._methods.of_intent(setup)
        setup |= {
            "payment_method": method["object"]["id"],
            "latest_attempt": make_id("setatt"),
            "next_action": None,
            "last_setup_error": None,
        }
        if not Card(**method["card"]).needs_3ds:
            return self._save(kept, method, origin)
        kept["source"] = make_id("src")
        page = f"{self._sandbox.url}/stripe/3ds/{setup['id']}?source={kept['source']}"
        setup |= {
            "status": "requires_action",
            "next_action": {
                "type": "redirect_to_url",
                "redirect_to_url": {"return_url": return_url, "url": page},
            },
        }
        self._keep(kept)
        self._tell(kept, "requires_action", origin)
        return setup

    def authenticate(self, kept: Document, succeeded: bool) -> Document:
        """The payer is done at the bank's page. The SetupIntent; raises StripeError."""
        setup: Document = kept["object"]
        if setup["status"] != "requires_action":
            raise _unexpected(
                setup,
                f"This SetupIntent has a status of {setup['status']}: there is nothing to"
                " authenticate.",
            )
        method = self._methods.of_intent(setup)
        setup["next_action"] = None
        if succeeded:
            return self._save(kept, method, Origin())
        failed = StripeError(
            400,
            _AUTHENTICATION_FAILED,
            code="setup_intent_authentication_failure",
            payment_method=method["object"],
        )
        self._fail(kept, failed, Origin())
        return setup

    def cancel(self, kept: Document, reason: str | None, origin: Origin) -> Document:
        """The canceled SetupIntent. Raises StripeError where it is succeeded or canceled."""
        setup: Document = kept["object"]
        if setup["status"] not in _CONFIRMABLE:
            raise _unexpected(
                setup,
                f"You cannot cancel this SetupIntent because it has a status of {setup['status']}."
                " Only a SetupIntent with one of the following statuses may be canceled:"
                f" {', '.join(_CONFIRMABLE)}.",
            )
        setup |= {"status": "canceled", "cancellation_reason": reason, "next_action": None}
        self._keep(kept)
        self._tell(kept, "canceled", origin)
        return setup

    def _save(self, kept: Document, method: Document, origin: Origin) -> Document:
        setup: Document = kept["object"]
        card = Card(**method["card"])
        if card.decline and not card.can_be_saved:
            error = declined(problem_of(card.decline), method["object"])
            self._fail(kept, error, origin)
            error.body["error"]["setup_intent"] = setup
            raise error
        setup["status"] = "succeeded"
        self._keep(kept)
        if setup["customer"]:
            self._methods.attach(method, setup["customer"], kept["reference"], origin)
        self._tell(kept, "succeeded", origin)
        return setup

    def _fail(self, kept: Document, error: StripeError, origin: Origin) -> None:
        kept["object"] |= {
            "status": "requires_payment_method",
            "payment_method": None,
            "last_setup_error": dict(error.body["error"]),
        }
        self._keep(kept)
        self._tell(kept, "setup_failed", origin)

    def _check_confirmable(self, setup: Document, method: Document | None) -> None:
        if setup["status"] not in _CONFIRMABLE:
            raise _unexpected(
                setup,
                f"You cannot confirm this SetupIntent because it has a status of {setup['status']}."
                " Only a SetupIntent with one of the following statuses may be confirmed:"
                f" {', '.join(_CONFIRMABLE)}.",
            )
        if method is None and setup["payment_method"] is None:
            raise _unexpected(
                setup,
                "You cannot confirm this SetupIntent because it's missing a payment method. You can"
                " either update the SetupIntent with a payment method and then confirm it again, or"
                " confirm it again directly with a payment method or ConfirmationToken.",
            )

    def _tell(self, kept: Document, event: str, origin: Origin) -> None:
        setup = kept["object"]
        self._events.tell(setup["id"], kept["reference"], f"setup_intent.{event}", setup, origin)

    def _keep(self, kept: Document) -> None:
        self._book.put(SETUP, kept["object"]["id"], kept)


def _unexpected(setup: Document, message: str) -> StripeError:
    return StripeError(
        400,
        message,
        code="setup_intent_unexpected_state",
        executed=True,
        setup_intent=setup,
    )
