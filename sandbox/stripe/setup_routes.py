"""The routes of Stripe's API about saving cards: SetupIntents."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.calls import Call, Calls
from sandbox.stripe.confirming import Wallet, for_browsers
from sandbox.stripe.customers import Customers
from sandbox.stripe.errors import StripeError
from sandbox.stripe.forms import Form, is_true
from sandbox.stripe.lists import Lists, expanded
from sandbox.stripe.objects import browser_view
from sandbox.stripe.parameters import (
    SETUP_CONFIRM,
    SETUP_REASONS,
    check_known,
    read_reason,
    read_setup,
)
from sandbox.stripe.setups import Setups


def setup_routes(sandbox: Sandbox, setups: Setups, calls: Calls) -> APIRouter:
    """`/v1/setup_intents`; every call is the operation `mandate`, a confirmation is `confirm`."""
    router = APIRouter()
    saver = Saver(sandbox, setups)
    lists = Lists(sandbox)

    def reference_of(setup_id: str) -> str | None:
        kept = setups.find(setup_id)
        return str(kept["reference"]) if kept else None

    @router.post("/v1/setup_intents")
    async def create(request: Request) -> Response:
        return await calls.answer(request, "mandate", saver.create, _reference_in)

    @router.get("/v1/setup_intents")
    async def page(request: Request) -> Response:
        return await calls.answer(request, "mandate", lambda call: lists.setups(call.form))

    @router.get("/v1/setup_intents/{setup_id}")
    async def retrieve(request: Request, setup_id: str) -> Response:
        return await calls.answer(
            request,
            "mandate",
            lambda call: saver.retrieve(setup_id, call),
            lambda form: reference_of(setup_id),
            for_browsers=True,
        )

    @router.post("/v1/setup_intents/{setup_id}/confirm")
    async def confirm(request: Request, setup_id: str) -> Response:
        return await calls.answer(
            request,
            "confirm",
            lambda call: saver.confirm(setup_id, call),
            lambda form: reference_of(setup_id),
            for_browsers=True,
        )

    @router.post("/v1/setup_intents/{setup_id}/cancel")
    async def cancel(request: Request, setup_id: str) -> Response:
        return await calls.answer(
            request,
            "mandate",
            lambda call: saver.cancel(setup_id, call),
            lambda form: reference_of(setup_id),
        )

    return router


class Saver:
    """The calls on one SetupIntent."""

    def __init__(self, sandbox: Sandbox, setups: Setups) -> None:
        self._book = sandbox.book
        self._setups = setups
        self._customers = Customers(sandbox)
        self._wallet = Wallet(sandbox, "SetupIntent")

    def create(self, call: Call) -> Document:
        form = call.form
        fields = read_setup(form)
        self._customers.check_named(form)
        method = self._wallet.method(call, fields.get("customer"))
        is_confirmed = is_true(form.get("confirm"))
        if is_confirmed:
            self._wallet.check_given(method)
            self._wallet.check_return_url(form, fields["automatic_payment_methods"])
        kept = self._setups.create(fields, method, call.origin)
        if is_confirmed:
            self._confirm(kept, None, call)
        return expanded(self._book, kept["object"], form)

    def retrieve(self, setup_id: str, call: Call) -> Document:
        setup: Document = self._setups.get(setup_id)["object"]
        if call.is_secret:
            return expanded(self._book, setup, call.form)
        self._wallet.check_client_secret(setup, call.form)
        return browser_view(setup)

    def confirm(self, setup_id: str, call: Call) -> Document:
        form = call.form
        check_known(form, SETUP_CONFIRM)
        kept = self._setups.get(setup_id)
        setup: Document = kept["object"]
        if not call.is_secret:
            self._wallet.check_client_secret(setup, form)
        method = self._wallet.method(call, setup["customer"])
        if call.is_secret:
            self._wallet.check_return_url(form, setup["automatic_payment_methods"])
            return expanded(self._book, self._confirm(kept, method, call), form)
        try:
            return browser_view(self._confirm(kept, method, call))
        except StripeError as problem:
            raise for_browsers(problem, "setup_intent") from None

    def cancel(self, setup_id: str, call: Call) -> Document:
        reason = read_reason(call.form, SETUP_REASONS)
        setup = self._setups.cancel(self._setups.get(setup_id), reason, call.origin)
        return expanded(self._book, setup, call.form)

    def _confirm(self, kept: Document, method: Document | None, call: Call) -> Document:
        return self._setups.confirm(
            kept, method, call.origin, return_url=call.form.get("return_url")
        )


def _reference_in(form: Form) -> str | None:
    metadata = form.get("metadata")
    return metadata.get("method_id") if isinstance(metadata, dict) else None
