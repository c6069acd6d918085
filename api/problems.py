"""Every error body of the API: RFC 9457 problem details with a code a program can act on.

`code` names the fact, `detail` tells a person what is wrong and what to do, `param` names the
field, header or query parameter at fault, `request_id` finds the request in the logs.
"""

import http
from collections.abc import Mapping
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from temporalio.service import RPCError, RPCStatusCode

from billing.cards import contains_card_number
from billing.errors import (
    BillingError,
    CustomerNotFound,
    IdempotencyKeyReused,
    InsufficientPoints,
    InvalidRequest,
    MethodInUse,
    MethodNotActive,
    MethodNotFound,
    NothingToReturn,
    PaymentNotCancelable,
    PaymentNotFound,
    PaymentNotRefundable,
    PaymentNotSwitchable,
    PaymentNotUnderReview,
    PointsAlreadySpent,
    RefundExceedsPayment,
    RefundNotFound,
    SubscriptionEnded,
    SubscriptionNotChangeable,
    SubscriptionNotFound,
    SubscriptionNotResumable,
    SwitchRefused,
    SwitchUnanswered,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2

_STATUS_OF: Final[tuple[tuple[type[BillingError], int], ...]] = (
    (InvalidRequest, 422),
    (IdempotencyKeyReused, 422),
    (PaymentNotFound, 404),
    (RefundNotFound, 404),
    (CustomerNotFound, 404),
    (MethodNotFound, 404),
    (MethodNotActive, 409),
    (MethodInUse, 409),
    (PaymentNotCancelable, 409),
    (PaymentNotRefundable, 409),
    (RefundExceedsPayment, 409),
    (PointsAlreadySpent, 409),
    (InsufficientPoints, 409),
    (PaymentNotUnderReview, 409),
    (NothingToReturn, 409),
    (PaymentNotSwitchable, 409),
    (SwitchRefused, 409),
    (SwitchUnanswered, 503),
    (SubscriptionNotFound, 404),
    (SubscriptionEnded, 409),
    (SubscriptionNotChangeable, 409),
    (SubscriptionNotResumable, 409),
)
_PARAM_LENGTH: Final = 64

log = structlog.get_logger()


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="What is wrong, as one word for programs")
    detail: str = Field(description="What is wrong and what to do, for people")
    param: str | None = Field(description="The field, header or parameter at fault")
    request_id: str


class RequestRefused(Exception):
    """A request that HTTP itself has a word for; everything about money is a BillingError."""

    def __init__(
        self,
        status_code: int,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status_code = status_code
        self.code = code
        self.detail = detail
        self.param = param
        self.headers = dict(headers or {})


def try_again(status_code: int, code: str, detail: str) -> RequestRefused:
    """A refusal that passes by itself; the same request may be sent again."""
    return RequestRefused(
        status_code, code, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
    )


def unavailable(what: str) -> RequestRefused:
    return try_again(
        503,
        "temporarily_unavailable",
        f"{what} is out of reach; send the same request, with the same Idempotency-Key, again",
    )


def nameable(text: str) -> str | None:
    """Text from a request as far as it may be repeated in an answer: short, printable, no card."""
    if len(text) > _PARAM_LENGTH or not text.isprintable() or contains_card_number(text):
        return None
    return text


def problem_response(request: Request, refusal: RequestRefused) -> Response:
    """The refusal as problem+json, under the id of its request."""
    return Response(
        problem_body(request, refusal), refusal.status_code, refusal.headers, media_type=MEDIA_TYPE
    )


def problem_body(request: Request, refusal: RequestRefused) -> bytes:
    request.state.problem_code = refusal.code
    problem = Problem(
        title=http.HTTPStatus(refusal.status_code).phrase,
        status=refusal.status_code,
        code=refusal.code,
        detail=refusal.detail,
        param=nameable(refusal.param) if refusal.param else None,
        request_id=request.state.request_id,
    )
    return problem.model_dump_json().encode()


def as_refusal(problem: BillingError) -> RequestRefused | None:
    """What HTTP calls a fact of billing; None where no request can be the cause."""
    for error, status_code in _STATUS_OF:
        if isinstance(problem, error):
            return RequestRefused(status_code, problem.code, problem.detail, param=problem.param)
    return None


def internal_error() -> RequestRefused:
    return RequestRefused(
        500,
        "internal_error",
        "a fault of ours, logged under this request's id; a repeat with the same Idempotency-Key"
        " is safe",
    )


def invalid(errors: list[dict[str, object]]) -> RequestRefused:
    """The first of pydantic's findings, without the value that was sent."""
    error = errors[0]
    location = error["loc"]
    assert isinstance(location, tuple)
    where = [str(part) for part in location if part not in ("body", "query", "header", "path")]
    message = str(error["msg"]).removeprefix("Value error, ")
    param = ".".join(where) or None
    shown = nameable(param) if param else None
    return RequestRefused(
        422, "invalid_request", f"{shown}: {message}" if shown else message, param=param
    )


def install(app: FastAPI) -> None:
    """Make every error of the app answer as a problem."""
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(BillingError, _billing_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RPCError, _temporal_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    for error in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(error, _database_error)


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestRefused)
    return problem_response(request, problem)


async def _billing_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, BillingError)
    refusal = as_refusal(problem)
    if refusal is None:
        raise problem
    return problem_response(request, refusal)


async def _http_exception(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    code, detail = {
        404: ("not_found", "there is nothing at this address"),
        405: ("method_not_allowed", f"{request.method} is not offered here; see Allow"),
    }.get(problem.status_code, ("request_refused", str(problem.detail)))
    return problem_response(
        request, RequestRefused(problem.status_code, code, detail, headers=problem.headers)
    )


async def _invalid(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    return problem_response(request, invalid(list(problem.errors())))


async def _temporal_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RPCError)
    log.warning("temporal_out_of_reach", status=problem.status.name)
    if problem.status is RPCStatusCode.RESOURCE_EXHAUSTED:
        return problem_response(request, too_many_commands())
    return problem_response(request, unavailable("Temporal"))


async def _database_error(request: Request, problem: Exception) -> Response:
    log.warning("database_out_of_reach", error=type(problem).__name__)
    return problem_response(request, unavailable("PostgreSQL"))


async def _disconnected(request: Request, problem: Exception) -> Response:
    return problem_response(
        request, RequestRefused(400, "request_cut_off", "the request ended before its body did")
    )


def too_many_commands() -> RequestRefused:
    return try_again(
        429,
        "too_many_commands",
        "too many commands are under way for it; wait for their answers, then repeat",
    )
