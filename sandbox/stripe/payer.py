"""A payer with a card: what their browser does with a client secret, and the bank's 3DS page."""

import hmac
from datetime import UTC, datetime
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
from sandbox.stripe.forms import parse_form
from sandbox.stripe.intents import INTENT, NAME, Intents, Origin
from sandbox.stripe.objects import make_id

_OPEN: Final = ("requires_payment_method", "requires_confirmation", "requires_action")


class Authentication(BaseModel):
    """The outcome of 3-D Secure for an order in `requires_action`."""

    gateway: Literal["stripe"]
    next_action: dict[str, Any] | None = None
    reference: str | None = None
    attempt: int | None = None
    succeeded: bool = True


class CardPayer:
    """Confirms intents as a card form would. Option `card`: the number of a test card."""

    def __init__(self, sandbox: Sandbox, intents: Intents) -> None:
        self._sandbox = sandbox
        self._intents = intents

    async def pay(self, wanted: Wanted, **options: Any) -> dict[str, Any]:
        """With 4242… unless `card` tells otherwise. A card that needs 3DS leaves
        `requires_action` and the bank's page, leading to `return_url`, in `url`; one that
        declines leaves its code in `decline_code`."""
        _check_options(options, {"card", "return_url"})
        number = options.get("card")
        try:
            used = card_by_number(str(number)) if number else GOOD
        except StripeError as problem:
            raise ControlRefused(422, str(problem)) from None
        return self._confirm(wanted, used, options.get("return_url"))

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
        """The payer passes or fails the bank's check of an order in `requires_action`."""
        with self._sandbox.book.transaction():
            kept = self.find(wanted)
            return told(kept, self.try_to(self._intents.authenticate, kept, succeeded))

    def find(self, wanted: Wanted) -> Document:
        """The intent that a control is about. Raises ControlRefused."""
        if wanted.next_action is not None:
            return self._by_client_secret(wanted.next_action)
        kept = self._intents.of_payment(wanted.reference or "", wanted.attempt)
        if kept is None:
            raise ControlRefused(
                404, f"Stripe knows no PaymentIntent with metadata.payment_id {wanted.reference!r}"
            )
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

    def _confirm(self, wanted: Wanted, card: Card, return_url: str | None) -> dict[str, Any]:
        origin = Origin(make_id("req", 14))
        with self._sandbox.book.transaction():
            kept = self.find(wanted)
            declined = self.try_to(self._intents.confirm, kept, card, origin, return_url=return_url)
            return told(kept, declined)

    def _by_client_secret(self, next_action: dict[str, Any]) -> Document:
        secret = next_action.get("client_secret")
        if next_action.get("type") != "client_secret" or not isinstance(secret, str):
            raise ControlRefused(422, "a payer with a card needs next_action of type client_secret")
        publishable_key = str(next_action.get("publishable_key", ""))
        if publishable_key != self._sandbox.keys[NAME]["publishable_key"]:
            raise ControlRefused(422, "next_action carries a publishable key that is not Stripe's")
        kept = self._sandbox.book.get(INTENT, secret.partition("_secret_")[0])
        if kept is None or not hmac.compare_digest(
            secret.encode(), str(kept["object"]["client_secret"]).encode()
        ):
            raise ControlRefused(404, "Stripe knows no PaymentIntent with this client secret")
        return kept


def told(kept: Document, declined: str | None) -> dict[str, Any]:
    """What a control answers of an intent."""
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


def payer_routes(sandbox: Sandbox, payer: CardPayer, intents: Intents) -> APIRouter:
    """The bank's page of 3-D Secure, and the control that stands for it."""
    router = APIRouter()

    def on_page(intent_id: str, source: str) -> Document:
        kept = sandbox.book.get(INTENT, intent_id)
        if kept is None or not source or source != kept["source"]:
            raise ControlRefused(404, "no such 3-D Secure page")
        return kept

    @router.get("/stripe/3ds/{intent_id}")
    async def bank_page(intent_id: str, source: str = "") -> Response:
        intent = on_page(intent_id, source)["object"]
        if intent["status"] != "requires_action":
            return show_page("3-D Secure", paragraph("This payment is not waiting for you."))
        return show_page(
            "3-D Secure",
            paragraph(f"Your bank asks: pay {intent['amount']} {intent['currency']}, minor units?"),
            button("", "Complete", {"outcome": "succeeded"}),
            button("", "Fail", {"outcome": "failed"}),
        )

    @router.post("/stripe/3ds/{intent_id}")
    async def bank_answer(request: Request, intent_id: str, source: str = "") -> Response:
        succeeded = parse_form((await request.body()).decode()).get("outcome") == "succeeded"
        with sandbox.book.transaction():
            kept = on_page(intent_id, source)
            action = kept["object"]["next_action"]
            if action is None:
                raise ControlRefused(409, "this payment is not waiting for the bank's page")
            payer.try_to(intents.authenticate, kept, succeeded)
        intent = kept["object"]
        if not action["redirect_to_url"]["return_url"]:
            return show_page("3-D Secure", paragraph("Done. You can close this page."))
        query = {
            "payment_intent": intent["id"],
            "payment_intent_client_secret": intent["client_secret"],
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
        amount=intent["amount"],
        currency=intent["currency"].upper(),
        description=intent["description"] or "",
        created_at=datetime.fromtimestamp(intent["created"], UTC),
        pages={"3-D Secure page": action["redirect_to_url"]["url"]} if action else {},
    )
