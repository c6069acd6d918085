"""Payments: create, read, cancel, refresh, review."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Caller, Operator, Reader, Writer
from api.bodies import Nothing, StrictInput, body_schema, json_body
from api.commands import MessageT, NotRunning, Update, id_of
from api.context import context
from api.idempotency import (
    Answer,
    OptionalKey,
    RequiredKey,
    claimed_before,
    header_parameter,
    once,
)
from api.lookup import Found, find
from api.method_lookup import require_usable
from api.openapi import REPLAYED_HEADER, problems
from api.ordering import ORDERED, answer, order_once
from api.orders import CreatePayment, SwitchInput, WithoutCardNumber
from api.problems import RequestRefused, try_again, unavailable
from api.queries import NoQuery, PaymentIdInPath
from billing.errors import (
    BillingError,
    InvalidRequest,
    NothingToReturn,
    PaymentNotCancelable,
    PaymentNotSwitchable,
    PaymentNotUnderReview,
)
from billing.messages import Command, PaymentOrder, ReviewAction, ReviewDecision, SwitchOrder
from billing.payment import Payment, PaymentStatus
from storage.claims import Claim
from workflows.payment import PaymentWorkflow

router = APIRouter(tags=["payments"])

_STILL_GOING: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": Payment, "description": "Under way: the payment as it stands until then"}
}


class ReviewPayment(StrictInput):
    """An operator's decision. `retry` asks the gateway again and settles what it confirms, `close`
    ends the payment as failed, `return` sends back what came in and ends it as failed. Of a payment
    that has ended, `return` gives back what could not be given back before."""

    action: ReviewAction
    reason: Annotated[str, Field(min_length=1, max_length=500), WithoutCardNumber]
    gateway_number: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = Field(
        default=None, description="The gateway's own number, as evidence for `retry`"
    )


INPUTS: Final[list[type[BaseModel]]] = [CreatePayment, SwitchInput, ReviewPayment, Nothing]


@router.post(
    "/create",
    status_code=201,
    response_model=Payment,
    operation_id="create_payment",
    responses=ORDERED,
    openapi_extra=body_schema(CreatePayment) | header_parameter(required=True),
)
async def create(
    request: Request,
    caller: Writer,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[CreatePayment, Depends(json_body(CreatePayment))],
) -> Response:
    """Order a payment. The answer carries what the payer needs next."""
    try:
        new = context(request).offers.order(wanted, caller.application, datetime.now(UTC))
    except BillingError as refusal:
        claim = await claimed_before(request, caller, key, refusal)
        new = PaymentOrder.model_validate_json(claim.request)
    return await order_once(request, caller, key, new, lambda: require_usable(request, new))


@router.get(
    "/{payment_id:payment}",
    response_model=Payment,
    operation_id="read_payment",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read(
    request: Request, caller: Reader, payment_id: PaymentIdInPath, _: NoQuery
) -> Response:
    """The payment as it stands."""
    found = await find(request, payment_id, caller.application)
    return answer(200, found.payment).response()


@router.post(
    "/{payment_id:payment}/cancel",
    response_model=Payment,
    operation_id="cancel_payment",
    responses={
        200: {"headers": REPLAYED_HEADER},
        **_STILL_GOING,
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(Nothing) | header_parameter(required=False),
)
async def cancel(
    request: Request,
    caller: Writer,
    payment_id: PaymentIdInPath,
    key: OptionalKey,
    _: NoQuery,
    __: Annotated[Nothing, Depends(json_body(Nothing))],
) -> Response:
    """Cancel a payment that nobody has paid; the gateway is told first."""
    found = await find(request, payment_id, caller.application)
    message = Command(application=caller.application)

    async def act(_: Claim | None) -> Answer:
        payment: Payment | None = found.payment
        if not found.payment.status.is_terminal:
            payment = await _command(
                request,
                found,
                PaymentWorkflow.cancel,
                message,
                id_of("cancel", caller.application, key),
            )
        if payment is None:
            return answer(202, (await find(request, payment_id, caller.application)).payment)
        if payment.status is PaymentStatus.NEEDS_REVIEW:
            # Not kept under the key: after the review a cancel may be possible.
            raise RequestRefused(
                409,
                PaymentNotCancelable.code,
                "the payment waits for an operator's review; cancel it afterwards",
            )
        if payment.status is not PaymentStatus.CANCELED:
            raise PaymentNotCancelable(f"the payment is {payment.status}")
        return answer(200, payment)

    return await once(
        request, caller, key, command="cancel", object_id=payment_id, message=b"{}", act=act
    )


@router.post(
    "/{payment_id:payment}/switch",
    response_model=Payment,
    operation_id="switch_payment",
    responses={
        200: {"headers": REPLAYED_HEADER},
        **_STILL_GOING,
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(SwitchInput) | header_parameter(required=True),
)
async def switch(
    request: Request,
    caller: Writer,
    payment_id: PaymentIdInPath,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[SwitchInput, Depends(json_body(SwitchInput))],
) -> Response:
    """Have a payment that nobody has paid yet paid in another way, at any gateway that takes its
    currency. The old instructions are withdrawn; money that still comes by them goes back."""
    found = await find(request, payment_id, caller.application)
    try:
        order = context(request).offers.switch(wanted, found.payment, caller.application)
    except BillingError as refusal:
        claim = await claimed_before(request, caller, key, refusal)
        order = SwitchOrder.model_validate_json(claim.request)

    async def act(_: Claim | None) -> Answer:
        payment: Payment | None = found.payment
        if not found.payment.status.is_terminal:
            payment = await _command(
                request,
                found,
                PaymentWorkflow.switch,
                order,
                id_of("switch", caller.application, key),
            )
        if payment is None:
            return answer(202, (await find(request, payment_id, caller.application)).payment)
        if payment.status is not PaymentStatus.REQUIRES_ACTION:
            raise PaymentNotSwitchable(
                f"the payment is {payment.status}; only one that waits for its payer can be paid in"
                " another way"
            )
        return answer(200, payment)

    return await once(
        request,
        caller,
        key,
        command="switch",
        object_id=payment_id,
        message=order.model_dump_json().encode(),
        act=act,
    )


@router.post(
    "/{payment_id:payment}/refresh",
    response_model=Payment,
    operation_id="refresh_payment",
    responses={
        **_STILL_GOING,
        **problems(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(Nothing),
)
async def refresh(
    request: Request,
    caller: Writer,
    payment_id: PaymentIdInPath,
    _: NoQuery,
    __: Annotated[Nothing, Depends(json_body(Nothing))],
) -> Response:
    """Ask the gateway now, at most once every two seconds: for the page a payer returns to."""
    found = await find(request, payment_id, caller.application)
    if not context(request).pace.take(payment_id):
        raise try_again(
            429, "too_many_refreshes", "a payment is refreshed at most once every 2 seconds"
        )
    if found.payment.status.is_terminal:
        context(request).deliveries.ask_again(payment_id, request.state.request_id)
        return answer(200, found.payment).response()
    payment = await _command(
        request,
        found,
        PaymentWorkflow.refresh,
        Command(application=caller.application),
        id_of("refresh", caller.application, None),
    )
    if payment is None:
        found = await find(request, payment_id, caller.application)
        return answer(202, found.payment).response()
    return answer(200, payment).response()


@router.post(
    "/{payment_id:payment}/review",
    response_model=Payment,
    operation_id="review_payment",
    responses={
        200: {"headers": REPLAYED_HEADER},
        **_STILL_GOING,
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(ReviewPayment) | header_parameter(required=False),
)
async def review(
    request: Request,
    caller: Operator,
    payment_id: PaymentIdInPath,
    key: OptionalKey,
    _: NoQuery,
    decided: Annotated[ReviewPayment, Depends(json_body(ReviewPayment))],
) -> Response:
    """Decide on a payment that was parked for a person."""
    found = await find(request, payment_id, caller.application)
    decision = _decision(decided, caller)

    async def act(claim: Claim | None) -> Answer:
        is_first = claim is None or claim.is_new
        if decision.action is ReviewAction.RETURN and found.payment.status.is_terminal:
            try:
                begun = await context(request).resumption.give_back(payment_id, decision)
            except NothingToReturn:
                # What the same command had the gateway asked for has gone back meanwhile.
                if is_first:
                    raise
                return answer(200, found.payment)
            return answer(200 if begun else 202, found.payment)
        if is_first and found.payment.status is not PaymentStatus.NEEDS_REVIEW:
            raise PaymentNotUnderReview(f"the payment is {found.payment.status}; nobody parked it")
        payment = await _command(
            request,
            found,
            PaymentWorkflow.review,
            decision,
            id_of("review", caller.application, key),
        )
        if payment is None:
            return answer(202, (await find(request, payment_id, caller.application)).payment)
        if decision.action is ReviewAction.RETURN and payment.status is PaymentStatus.NEEDS_REVIEW:
            raise NothingToReturn("the gateway confirms no money that could be returned")
        return answer(200, payment)

    return await once(
        request,
        caller,
        key,
        command="review",
        object_id=payment_id,
        message=decision.model_dump_json().encode(),
        act=act,
    )


def _decision(decided: ReviewPayment, caller: Caller) -> ReviewDecision:
    if decided.gateway_number is not None and decided.action is not ReviewAction.RETRY:
        raise InvalidRequest("gateway_number is evidence for retry alone", param="gateway_number")
    return ReviewDecision(
        action=decided.action,
        reason=decided.reason,
        reviewed_by=caller.key_id,
        gateway_number=decided.gateway_number,
    )


async def _command(
    request: Request, found: Found, command: Update[MessageT], message: MessageT, command_id: str
) -> Payment | None:
    """The payment after the command; None while it is under way.

    Where no workflow runs, the record answers, if it says that the payment has ended; if not,
    the process was lost, and is started again from the record first.
    """
    commands = context(request).commands
    try:
        return await commands.give(
            found.order, command, message, command_id, is_recorded=found.is_recorded
        )
    except NotRunning:
        payment = (await find(request, found.payment.id, found.order.application)).payment
        if payment.status.is_terminal:
            return payment
    await context(request).resumption.resume(found.payment.id)
    try:
        return await commands.give(found.order, command, message, command_id, is_recorded=True)
    except NotRunning:
        raise unavailable("the payment's process") from None
