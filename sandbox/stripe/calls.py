"""One call of Stripe's API from the wire to the wire: key, form, idempotency, faults, headers."""

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.faults import Fault, faulted
from sandbox.stripe.errors import StripeError, balance_insufficient, server_error
from sandbox.stripe.events import NAME, Origin
from sandbox.stripe.forms import Form, parse_form
from sandbox.stripe.idempotency import IdempotencyKeys, Kept, fingerprint
from sandbox.stripe.objects import API_VERSION, make_id, unix

_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z_]+)?")


@dataclass(frozen=True)
class Call:
    """A request that carries a valid key. `is_secret` tells the merchant from a browser."""

    form: Form
    is_secret: bool
    origin: Origin
    fingerprint: str


Work = Callable[[Call], Document]
"""Does a call inside a transaction; the answer's object, or StripeError."""

ReferenceOf = Callable[[Form], str | None]
"""The payment a call is about, for faults."""


class Calls:
    """Answers calls of one Stripe account."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._idempotency = IdempotencyKeys(sandbox.book)

    async def answer(
        self,
        request: Request,
        operation: str,
        work: Work,
        reference_of: ReferenceOf = lambda form: None,
        *,
        for_browsers: bool = False,
    ) -> Response:
        """Do one call, with the fault waiting for `operation`; a browser's calls take none."""
        request_id = make_id("req", 14)
        try:
            call = await self._read(request, request_id, for_browsers)
            key = call.origin.idempotency_key
            with self._idempotency.claimed(key):
                return await self._with_faults(request, operation, work, reference_of, call)
        except StripeError as problem:
            return _respond(request, request_id, problem.status, problem.body)

    async def _with_faults(
        self,
        request: Request,
        operation: str,
        work: Work,
        reference_of: ReferenceOf,
        call: Call,
    ) -> Response:
        request_id = str(call.origin.request_id)

        async def handle(fault: Fault | None) -> Response:
            try:
                kept, is_replay = self._execute(call, work, fault)
            except StripeError as problem:
                return _respond(request, request_id, problem.status, problem.body)
            body = altered(kept.body, fault) if fault else kept.body
            original = kept.request_id if is_replay else None
            return _respond(request, request_id, kept.status, body, original)

        def refuse(status: int) -> Response:
            return _respond(request, request_id, status, server_error(status).body)

        if not call.is_secret:
            return await handle(None)
        reference = reference_of(call.form)
        return await faulted(self._sandbox, NAME, operation, reference, handle, refuse)

    def _execute(self, call: Call, work: Work, fault: Fault | None) -> tuple[Kept, bool]:
        """The answer, and whether it is one kept from before."""
        key = call.origin.idempotency_key
        now = unix(self._sandbox.clock())
        before = self._idempotency.answered(key, call.fingerprint, now)
        if before:
            return before, True
        request_id = str(call.origin.request_id)
        with self._sandbox.book.transaction():
            try:
                if fault and fault.name == "balance_insufficient":
                    raise balance_insufficient()
                answer = Kept(200, work(call), request_id)
            except StripeError as problem:
                if not problem.executed:
                    raise
                answer = Kept(problem.status, problem.body, request_id)
            if fault and fault.name == "http_500_after" and fault.parameters.get("stored", True):
                answer = Kept(500, server_error(500).body, request_id)
            self._idempotency.keep(key, call.fingerprint, now, answer)
        return answer, False

    async def _read(self, request: Request, request_id: str, for_browsers: bool) -> Call:
        is_post = request.method == "POST"
        text = (await request.body()).decode(errors="replace") if is_post else request.url.query
        form = parse_form(text)
        is_secret = self._check_key(request, form)
        if not is_secret and not for_browsers:
            raise StripeError(
                403,
                "This API call cannot be made with a publishable API key. Please use a secret API"
                " key. You can find a list of your API keys at"
                " https://dashboard.stripe.com/account/apikeys.",
                code="secret_key_required",
            )
        version = request.headers.get("Stripe-Version", API_VERSION)
        if not _VERSION.fullmatch(version):
            raise StripeError(400, f"Invalid Stripe API version: {version}")
        key = request.headers.get("Idempotency-Key") if is_post else None
        path = request.url.path
        return Call(form, is_secret, Origin(request_id, key), fingerprint(path, text))

    def _check_key(self, request: Request, form: Form) -> bool:
        """Whether the key is the secret one. Raises StripeError (401) if it is no key of ours."""
        key = _key_of(request, form)
        if not key:
            raise StripeError(
                401,
                "You did not provide an API key. You need to provide your API key in the"
                " Authorization header, using Bearer auth (e.g. 'Authorization: Bearer"
                " YOUR_SECRET_KEY').",
            )
        ours = self._sandbox.keys[NAME]
        for name, is_secret in (("secret_key", True), ("publishable_key", False)):
            if hmac.compare_digest(key.encode(), ours[name].encode()):
                return is_secret
        shown = key[:8] + "*" * max(0, len(key) - 12) + key[-4:]
        raise StripeError(401, f"Invalid API Key provided: {shown}")


def altered(body: Document, fault: Fault) -> Document:
    """The answer as a fault of its content makes it, for each object in it."""
    body = deepcopy(body)
    for item in body["data"] if body.get("object") == "list" else [body]:
        if item.get("object") == "payment_intent":
            _alter(item, fault.name)
        elif item.get("object") in ("refund", "dispute"):
            _alter_of_charge(item, fault.name)
        elif item.get("object") in ("setup_intent", "payment_method"):
            _alter_saved(item, fault.name)
    return body


def _alter(intent: Document, name: str) -> None:
    if name == "wrong_amount":
        intent["amount"] += 1
        intent["amount_received"] += 1 if intent["amount_received"] else 0
    elif name == "wrong_currency":
        intent["currency"] = "usd" if intent["currency"] == "eur" else "eur"
    elif name == "wrong_order":
        intent["id"] = _another(intent["id"])
        if "payment_id" in intent["metadata"]:
            intent["metadata"]["payment_id"] = _another(intent["metadata"]["payment_id"])
    elif name == "unknown_status":
        intent["status"] = "requires_reflection"


def _alter_of_charge(item: Document, name: str) -> None:
    if name == "wrong_amount":
        item["amount"] += 1
    elif name == "wrong_currency":
        item["currency"] = "usd" if item["currency"] == "eur" else "eur"
    elif name == "wrong_order":
        for field in ("charge", "payment_intent"):
            item[field] = _another(item[field])
    elif name == "unknown_status":
        item["status"] = "requires_reflection"


def _alter_saved(item: Document, name: str) -> None:
    if name == "wrong_order":
        item["id"] = _another(item["id"])
        item["metadata"] = {key: _another(value) for key, value in item["metadata"].items()}
    elif name == "unknown_status" and "status" in item:
        item["status"] = "requires_reflection"


def _another(identifier: str) -> str:
    return identifier[:-1] + ("1" if identifier.endswith("0") else "0")


def _key_of(request: Request, form: Form) -> str:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(credentials).decode().partition(":")[0]
    return str(form.get("key", ""))


def _respond(
    request: Request,
    request_id: str,
    status: int,
    body: Document,
    original_request: str | None = None,
) -> Response:
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": "no-cache, no-store",
        "Request-Id": request_id,
        "Stripe-Version": request.headers.get("Stripe-Version", API_VERSION),
    }
    if key := request.headers.get("Idempotency-Key"):
        headers["Idempotency-Key"] = key
    if original_request:
        headers |= {"Idempotent-Replayed": "true", "Original-Request": original_request}
    return JSONResponse(body, status, headers)
