"""The routes of Stripe's API that a merchant's server and a card form use."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.calls import Call, Calls
from sandbox.stripe.confirming import Wallet, for_browsers
from sandbox.stripe.customers import Customers
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import EVENT
from sandbox.stripe.forms import Form, is_true
from sandbox.stripe.intents import CHARGE, INTENT, Intents
from sandbox.stripe.lists import Lists, expanded
from sandbox.stripe.objects import browser_view
from sandbox.stripe.parameters import (
    CONFIRM,
    check_known,
    read_create,
    read_reason,
)


def api_routes(sandbox: Sandbox, intents: Intents, calls: Calls) -> APIRouter:
    """`/v1/...`; each call our adapters make is one of open, query, close, other."""
    router = APIRouter()
    merchant = Merchant(sandbox, intents)
    lists = Lists(sandbox)

    def reference_of(intent_id: str) -> str | None:
        kept = sandbox.book.get(INTENT, intent_id)
        return str(kept["reference"]) if kept else None

    @router.post("/v1/payment_intents")
    async def create(request: Request) -> Response:
        return await calls.answer(request, "open", merchant.create, _reference_in)

    @router.get("/v1/payment_intents")
    async def intents_page(request: Request) -> Response:
        return await calls.answer(request, "query", lambda call: lists.intents(call.form))

    @router.get("/v1/payment_intents/search")
    async def search(request: Request) -> Response:
        return await calls.answer(request, "query", lambda call: lists.search_intents(call.form))

    @router.get("/v1/payment_intents/{intent_id}")
    async def retrieve(request: Request, intent_id: str) -> Response:
        return await calls.answer(
            request,
            "query",
            lambda call: merchant.retrieve(intent_id, call),
            lambda form: reference_of(intent_id),
            for_browsers=True,
        )

    @router.post("/v1/payment_intents/{intent_id}/confirm")
    async def confirm(request: Request, intent_id: str) -> Response:
        return await calls.answer(
            request,
            "confirm",
            lambda call: merchant.confirm(intent_id, call),
            lambda form: reference_of(intent_id),
            for_browsers=True,
        )

    @router.post("/v1/payment_intents/{intent_id}/cancel")
    async def cancel(request: Request, intent_id: str) -> Response:
        return await calls.answer(
            request,
            "close",
            lambda call: merchant.cancel(intent_id, call),
            lambda form: reference_of(intent_id),
        )

    @router.get("/v1/charges")
    async def charges_page(request: Request) -> Response:
        return await calls.answer(request, "query", lambda call: lists.charges(call.form))

    @router.get("/v1/charges/{charge_id}")
    async def charge(request: Request, charge_id: str) -> Response:
        charge = sandbox.book.get(CHARGE, charge_id)
        return await calls.answer(
            request,
            "query",
            lambda call: merchant.one(CHARGE, "charge", charge_id, call.form),
            lambda form: reference_of(charge["payment_intent"]) if charge else None,
        )

    @router.get("/v1/events")
    async def events_page(request: Request) -> Response:
        return await calls.answer(request, "other", lambda call: lists.events(call.form))

    @router.get("/v1/events/{event_id}")
    async def event(request: Request, event_id: str) -> Response:
        return await calls.answer(
            request, "other", lambda call: merchant.one(EVENT, "event", event_id, call.form)
        )

    @router.get("/v1/balance")
    async def balance(request: Request) -> Response:
        return await calls.answer(request, "other", lambda call: lists.balance())

    @router.api_route("/v1/{path:path}", methods=["GET", "POST", "DELETE"])
    async def unknown(request: Request, path: str) -> Response:
        def refuse(_: Call) -> Document:
            raise StripeError(
                404,
                f"Unrecognized request URL ({request.method}: /v1/{path}). This sandbox speaks of"
                " payment_intents, setup_intents, payment_methods, customers, charges, refunds,"
                " disputes, events and balance.",
            )

        return await calls.answer(request, "other", refuse)

    return router


class Merchant:
    """The calls on one object."""

    def __init__(self, sandbox: Sandbox, intents: Intents) -> None:
        self._sandbox = sandbox
        self._intents = intents
        self._customers = Customers(sandbox)
        self._wallet = Wallet(sandbox, "PaymentIntent")

    def create(self, call: Call) -> Document:
        form = call.form
        wanted = read_create(form)
        self._customers.check_named(form)
        method = self._wallet.method(call, wanted.fields.get("customer"))
        is_confirmed = is_true(form.get("confirm"))
        if is_confirmed:
            self._wallet.check_given(method)
            self._wallet.check_return_url(form, wanted.fields["automatic_payment_methods"])
        elif "off_session" in form:
            raise StripeError(
                400, "`off_session` can only be used with `confirm`.", param="off_session"
            )
        kept = self._intents.create(wanted, method, call.origin)
        if is_confirmed:
            self._confirm(kept, None, call)
        return expanded(self._sandbox.book, kept["object"], form)

    def retrieve(self, intent_id: str, call: Call) -> Document:
        kept = self._intents.get(intent_id)
        if call.is_secret:
            return expanded(self._sandbox.book, kept["object"], call.form)
        self._wallet.check_client_secret(kept["object"], call.form)
        return browser_view(kept["object"])

    def confirm(self, intent_id: str, call: Call) -> Document:
        form = call.form
        check_known(form, CONFIRM)
        kept = self._intents.get(intent_id)
        if not call.is_secret:
            self._wallet.check_client_secret(kept["object"], form)
        method = self._wallet.method(call, kept["object"]["customer"])
        if call.is_secret:
            self._wallet.check_return_url(form, kept["object"]["automatic_payment_methods"])
            return expanded(self._sandbox.book, self._confirm(kept, method, call), form)
        try:
            return browser_view(self._confirm(kept, method, call))
        except StripeError as problem:
            raise for_browsers(problem, "payment_intent") from None

    def cancel(self, intent_id: str, call: Call) -> Document:
        reason = read_reason(call.form)
        kept = self._intents.get(intent_id)
        intent = self._intents.cancel(kept, reason, call.origin)
        return expanded(self._sandbox.book, intent, call.form)

    def one(self, kind: str, name: str, object_id: str, form: Form) -> Document:
        found = self._sandbox.book.get(kind, object_id)
        if found is None:
            raise missing(name, object_id, "id")
        return expanded(self._sandbox.book, found, form)

    def _confirm(self, kept: Document, method: Document | None, call: Call) -> Document:
        form = call.form
        off_session = form.get("off_session", "false") != "false"
        return self._intents.confirm(
            kept,
            method,
            call.origin,
            return_url=form.get("return_url"),
            authentication_possible=not (
                off_session or is_true(form.get("error_on_requires_action"))
            ),
            off_session=off_session,
        )


def _reference_in(form: Form) -> str | None:
    metadata = form.get("metadata")
    return metadata.get("payment_id") if isinstance(metadata, dict) else None
