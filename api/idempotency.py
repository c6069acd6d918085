"""One key, one effect, one answer.

A claim is made in one insert before anything happens, and kept for 30 days. A repeat gets the
stored answer byte for byte; while there is none it joins the same command and gets the same one.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Request
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError

from api.authentication import Caller
from api.context import context
from api.problems import MEDIA_TYPE, RequestRefused, as_refusal, problem_body
from billing.cards import contains_card_number
from billing.errors import BillingError, CardNumberRefused, IdempotencyKeyReused
from storage.claims import Claim
from storage.database import Database

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
_LONGEST: Final = 255

log = structlog.get_logger()


@dataclass(frozen=True)
class Answer:
    """What the caller gets. Final answers are kept and replayed; 202 and 5xx never are."""

    status_code: int
    body: bytes

    @property
    def is_final(self) -> bool:
        return self.status_code != 202 and self.status_code < 500

    def response(self, *, replayed: bool = False) -> Response:
        return Response(
            self.body,
            self.status_code,
            {REPLAYED: "true"} if replayed else None,
            media_type="application/json" if self.status_code < 400 else MEDIA_TYPE,
        )


Act = Callable[[Claim | None], Awaitable[Answer]]


async def once(
    request: Request,
    caller: Caller,
    key: str | None,
    *,
    command: str,
    object_id: str,
    message: bytes,
    act: Act,
) -> Response:
    """Act under the key's claim, or without one where there is no key.

    `act` is given the claim; one that is not new means that it may be joining an act under way.
    Raises IdempotencyKeyReused where the key was claimed for another request.
    """
    if key is None:
        return (await act(None)).response()
    database = context(request).database
    mark = fingerprint_of(request.method, request.url.path, request.state.document)
    async with database.single() as work:
        claim = await work.claims.claim(
            application=caller.application,
            key=key,
            fingerprint=mark,
            command=command,
            object_id=object_id,
            request=message,
            now=datetime.now(UTC),
        )
    if claim.fingerprint != mark:
        raise IdempotencyKeyReused(
            "this key was used for another request (another path or body); use a new key for a"
            " new request",
            param=HEADER,
        )
    if claim.answer_status is not None and claim.answer_body is not None:
        return Answer(claim.answer_status, claim.answer_body).response(replayed=True)
    answer = await _answered(request, act, claim)
    if answer.is_final:
        await _keep(database, caller, key, answer)
    return answer.response(replayed=not claim.is_new)


async def claimed_before(
    request: Request, caller: Caller, key: str | None, refusal: BillingError
) -> Claim:
    """The claim of the same request under its key, which would be refused now: prices, products and
    gateways change, and what was ordered stands. Raises the refusal where there is none."""
    if key is None:
        raise refusal
    async with context(request).database.single() as work:
        claim = await work.claims.find(caller.application, key)
    mark = fingerprint_of(request.method, request.url.path, request.state.document)
    if claim is None or claim.fingerprint != mark:
        raise refusal
    return claim


async def _answered(request: Request, act: Act, claim: Claim) -> Answer:
    """A refusal by the object's state is an answer too: its repeat must not act later on."""
    try:
        return await act(claim)
    except BillingError as problem:
        refusal = as_refusal(problem)
        if refusal is None:
            raise
        return Answer(refusal.status_code, problem_body(request, refusal))


async def _keep(database: Database, caller: Caller, key: str, answer: Answer) -> None:
    """Without the stored answer a repeat joins the command, and gets the same one from there."""
    try:
        async with database.single() as work:
            await work.claims.store_answer(
                application=caller.application,
                key=key,
                status=answer.status_code,
                body=answer.body,
            )
    except SQLAlchemyError as problem:
        log.warning("answer_not_stored", error=type(problem).__name__)


def fingerprint_of(method: str, path: str, document: object) -> str:
    """SHA-256 over method, path and the JSON as received with its keys sorted."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{method}\n{path}\n{canonical}".encode()).hexdigest()


def header_parameter(*, required: bool) -> dict[str, Any]:
    """What a route with a key adds to its OpenAPI operation."""
    return {
        "parameters": [
            {
                "name": HEADER,
                "in": "header",
                "required": required,
                "description": "Names the request: a repeat under the same key has no second"
                " effect and gets the same answer. Kept for 30 days.",
                "schema": {
                    "type": "string",
                    "pattern": "^[!-~]+$",
                    "minLength": 1,
                    "maxLength": _LONGEST,
                },
            }
        ]
    }


# Coroutines, though they wait for nothing: a plain function would be run in another thread.
async def optional_key(request: Request) -> str | None:
    """The key, checked. Raises RequestRefused (400) and CardNumberRefused."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = given[0]
    if (
        len(given) > 1
        or not 1 <= len(key) <= _LONGEST
        or any(not "!" <= character <= "~" for character in key)
    ):
        raise RequestRefused(
            400,
            "idempotency_key_invalid",
            f"{HEADER} is 1 to {_LONGEST} printable ASCII characters without spaces, such as a"
            " UUID, sent once",
            param=HEADER,
        )
    if contains_card_number(key):
        raise CardNumberRefused(
            f"{HEADER} holds what looks like a payment card's number; use a UUID", param=HEADER
        )
    return key


async def required_key(request: Request) -> str:
    """As `optional_key`, and RequestRefused (400) where there is none."""
    key = await optional_key(request)
    if key is None:
        raise RequestRefused(
            400,
            "idempotency_key_required",
            f"send {HEADER}, such as a UUID, and the same one when you repeat this request",
            param=HEADER,
        )
    return key


RequiredKey = Annotated[str, Depends(required_key)]
OptionalKey = Annotated[str | None, Depends(optional_key)]
