"""A payer with a card: what their browser does with a client secret, and the bank's 3DS page."""

import hmac
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from sandbox.book import Document
from sandbox.core import ControlRefused, OrderLine, Sandbox, Wanted
from sandbox.html import button, paragraph, show_page
from sandbox.stripe.cards import GOOD, Card, card_by_number, card_that_declines
from sandbox.stripe.errors import StripeError
from sandbox.stripe.events import NAME, Origin
from sandbox.stripe.forms import parse_form
from sandbox.stripe.intents import INTENT, PROCESSING, Intents
from sandbox.stripe.methods import Methods
from sandbox.stripe.money import minor_units
from sandbox.stripe.objects import make_id
from sandbox.stripe.setups import Setups

_OPEN: Final = ("requires_payment_method", "requires_confirmation", "requires_action")


class Authentication(BaseModel):
    """The outcome of 3-D Secure for an order in `requires_action`."""

    gateway: Literal["stripe"]
    next_action: dict[str, Any] | None = None
    reference: str | None = None
    attempt: int | None = None
    succeeded: bool = True


class CardPayer:
    """Confirms intents, of payments and of cards to save, as a card form would. Options: `card`,
    the number of a test card, or `payment_method`, the id of one that the customer has saved;
    `slow_bank`, whose answer is heard when the same payment is paid again."""

    def __init__(self, sandbox: Sandbox, intents: Intents) -> None:
        self._sandbox = sandbox
        self._intents = intents
        self._setups = Setups(sandbox)
        self._methods = Methods(sandbox)

    async def pay(self, wanted: Wanted, **options: Any) -> dict[str, Any]:
        """With 4242… unless `card` tells otherwise. A card that needs 3DS leaves
        `requires_action` and the bank's page, leading to `return_url`, in `url`; one that
        declines leaves its code in `decline_code`. With a slow bank it stays `processing`: it can
        neither be canceled nor is it paid, until the payer's next deed."""
        _check_options(options, {"card", "payment_method", "return_url", "slow_bank"})
        number, saved = options.get("card"), options.get("payment_method")
        if number and saved:
            raise ControlRefused(422, "a payer has a card or a payment_method, not both")
        try:
            used = card_by_number(str(number)) if number else GOOD
        except StripeError as problem:
            raise ControlRefused(422, str(problem)) from None
        return self._confirm(
            wanted,
            str(saved) if saved else used,
            options.get("return_url"),
            is_bank_slow=bool(options.get("slow_bank")),
        )

    async def decline(
        self, wanted: Wanted, decline_code: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """With the card that declines for `decline_code`, generic_decline unless told."""
        _check_options(options, set())
        try:
            used = card_that_declines(decline_code)
        except ValueError as problem:
            raise ControlRefused(422, str(problem)) from None
        return self._confirm(wanted, used, None)

    def authenticate(self, wanted: Wanted, succeeded: bool) -> dict[str, Any]:
        """The payer passes or fails the bank's check of what is in `requires_action`."""
        with self._sandbox.book.transaction():
            kept = self._find_either(wanted)
            return self.answer_bank(kept, succeeded)

    def answer_bank(self, kept: Document, succeeded: bool) -> dict[str, Any]:
        """The same, of what was found already; inside a transaction."""
        return told(kept, self.try_to(self._keeper_of(kept).authenticate, kept, succeeded))

    def find(self, wanted: Wanted) -> Document:
        """The PaymentIntent that a control is about. Raises ControlRefused."""
        return _payment(self._find_either(wanted))

    def on_page(self, intent_id: str, source: str) -> Document:
        """The intent of either kind that the bank's page is for. Raises ControlRefused."""
        kept = self._intents.find(intent_id) or self._setups.find(intent_id)
        if kept is None or not source or source != kept["source"]:
            raise ControlRefused(404, "no such 3-D Secure page")
        return kept

    @staticmethod
    def try_to(deed: Any, *arguments: Any, **options: Any) -> str | None:
        """Do it inside a transaction; the decline code if the payer failed.

        Raises ControlRefused where there was nothing to do any more.
        """
        try:
            deed(*arguments, **options)
        except StripeError as problem:
            if problem.status != 402:
                raise ControlRefused(409, str(problem)) from None
            error = problem.body["error"]
            return str(error.get("decline_code") or error["code"])
        return None

    def _confirm(
        self,
        wanted: Wanted,
        card: Card | str,
        return_url: str | None,
        *,
        is_bank_slow: bool = False,
    ) -> dict[str, Any]:
        """With a new card, or with the saved one that has this id."""
        origin = Origin(make_id("req", 14))
        with self._sandbox.book.transaction():
            kept = self._find_either(wanted)
            if kept["object"]["status"] == PROCESSING:
                return told(kept, self.try_to(self._intents.hear_from_bank, kept))
            method = self._method(card, kept["object"])
            confirm = self._keeper_of(kept).confirm
            if is_bank_slow:
                _payment(kept)
                confirm = partial(self._intents.confirm, is_bank_slow=True)
            return told(kept, self.try_to(confirm, kept, method, origin, return_url=return_url))

    def _method(self, card: Card | str, intent: Document) -> Document:
        if isinstance(card, Card):
            return self._methods.create(card)
        try:
            return self._methods.named(card, intent["customer"], "intent")
        except StripeError as problem:
            raise ControlRefused(422, str(problem)) from None

    def _keeper_of(self, kept: Document) -> Intents | Setups:
        return self._setups if kept["object"]["object"] == "setup_intent" else self._intents

    def _find_either(self, wanted: Wanted) -> Document:
        if wanted.next_action is not None:
            return self._by_client_secret(wanted.next_action)
        reference = wanted.reference or ""
        kept = self._intents.of_payment(reference, wanted.attempt)
        if kept is None and wanted.attempt in (None, 1):
            kept = self._setups.of_method(reference)
        if kept is None:
            raise ControlRefused(
                404,
                f"Stripe knows no PaymentIntent with metadata.payment_id {wanted.reference!r}, and"
                " no SetupIntent with such a metadata.method_id",
            )
        return kept

    def _by_client_secret(self, next_action: dict[str, Any]) -> Document:
        secret = next_action.get("client_secret")
        if next_action.get("type") != "client_secret" or not isinstance(secret, str):
            raise ControlRefused(422, "a payer with a card needs next_action of type client_secret")
        publishable_key = str(next_action.get("publishable_key", ""))
        if publishable_key != self._sandbox.keys[NAME]["publishable_key"]:
            raise ControlRefused(422, "next_action carries a publishable key that is not Stripe's")
        intent_id = secret.partition("_secret_")[0]
        kept = self._intents.find(intent_id) or self._setups.find(intent_id)
        if kept is None or not hmac.compare_digest(
            secret.encode(), str(kept["object"]["client_secret"]).encode()
        ):
            raise ControlRefused(404, "Stripe knows no intent with this client secret")
        return kept


def _payment(kept: Document) -> Document:
    """What was kept of a PaymentIntent. Raises ControlRefused where it is of a SetupIntent."""
    if kept["object"]["object"] != "payment_intent":
        raise ControlRefused(404, f"{kept['object']['id']} is no PaymentIntent")
    return kept


def told(kept: Document, declined: str | None) -> dict[str, Any]:
    """What a control answers of an intent of either kind."""
    intent = kept["object"]
    url = intent["next_action"]["redirect_to_url"]["url"] if intent["next_action"] else None
    return {
        "gateway": NAME,
        "reference": kept["reference"],
        "attempt": kept["attempt"],
        "number": intent["id"],
        "status": intent["status"],
        "decline_code": declined,
        "url": url,
    }


def order_lines(sandbox: Sandbox, limit: int) -> list[OrderLine]:
    return [_order_line(kept) for kept in sandbox.book.newest(INTENT, limit)]


def payer_routes(sandbox: Sandbox, payer: CardPayer) -> APIRouter:
    """The bank's page of 3-D Secure, and the control that stands for it."""
    router = APIRouter()

    @router.get("/stripe/3ds/{intent_id}")
    async def bank_page(intent_id: str, source: str = "") -> Response:
        intent = payer.on_page(intent_id, source)["object"]
        if intent["status"] != "requires_action":
            return show_page("3-D Secure", paragraph("Nothing is waiting for you here."))
        deed = (
            "save this card"
            if intent["object"] == "setup_intent"
            else f"pay {intent['amount']} {intent['currency']}, minor units"
        )
        return show_page(
            "3-D Secure",
            paragraph(f"Your bank asks: {deed}?"),
            button("", "Complete", {"outcome": "succeeded"}),
            button("", "Fail", {"outcome": "failed"}),
        )

    @router.post("/stripe/3ds/{intent_id}")
    async def bank_answer(request: Request, intent_id: str, source: str = "") -> Response:
        succeeded = parse_form((await request.body()).decode()).get("outcome") == "succeeded"
        with sandbox.book.transaction():
            kept = payer.on_page(intent_id, source)
            action = kept["object"]["next_action"]
            if action is None:
                raise ControlRefused(409, "nothing is waiting for the bank's page")
            payer.answer_bank(kept, succeeded)
        intent = kept["object"]
        if not action["redirect_to_url"]["return_url"]:
            return show_page("3-D Secure", paragraph("Done. You can close this page."))
        query = {
            intent["object"]: intent["id"],
            f"{intent['object']}_client_secret": intent["client_secret"],
            "redirect_status": "succeeded" if intent["status"] == "succeeded" else "failed",
        }
        back = action["redirect_to_url"]["return_url"]
        joint = "&" if "?" in back else "?"
        return RedirectResponse(f"{back}{joint}{urlencode(query)}", 303)

    @router.post("/control/authenticate")
    async def authenticate(deed: Authentication) -> dict[str, Any]:
        wanted = Wanted(deed.next_action, deed.reference, deed.attempt)
        return payer.authenticate(wanted, deed.succeeded)

    return router


def _check_options(given: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise ControlRefused(422, f"Stripe's payer has no option {', '.join(unknown)}")


def _order_line(kept: Document) -> OrderLine:
    intent = kept["object"]
    action = intent["next_action"]
    return OrderLine(
        gateway=NAME,
        reference=kept["reference"],
        attempt=kept["attempt"],
        number=intent["id"],
        status=intent["status"],
        is_open=intent["status"] in _OPEN,
        amount=minor_units(intent["amount"], intent["currency"]),
        currency=intent["currency"].upper(),
        description=intent["description"] or "",
        created_at=datetime.fromtimestamp(intent["created"], UTC),
        pages={"3-D Secure page": action["redirect_to_url"]["url"]} if action else {},
    )
