"""Refunds: give back what was paid, in full or in part, as often as something is left."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Reader, Refunder
from api.bodies import StrictInput, body_schema, json_body
from api.commands import NotRunning, id_of, refusal_of
from api.context import context
from api.idempotency import Answer, RequiredKey, header_parameter, once
from api.lookup import find as find_payment
from api.openapi import REPLAYED_HEADER, problems
from api.orders import WithoutCardNumber
from api.problems import unavailable
from api.queries import NoQuery, RefundIdInPath
from billing.errors import PaymentNotRefundable, RefundExceedsPayment, RefundNotFound
from billing.identifiers import PAYMENT_ID_PATTERN, REFUND, is_refund_id, make_id
from billing.messages import Command, RefundRequest
from billing.money import AmountMinor
from billing.payment import Payment, PaymentStatus
from billing.points import ClawbackPolicy
from billing.refund import LONGEST_REASON, Refund
from storage.claims import Claim

router = APIRouter(tags=["refunds"])


class PreviewRefund(StrictInput):
    """`amount` is in minor units of the payment's currency; without it, all that is left."""

    payment_id: Annotated[str, Field(pattern=PAYMENT_ID_PATTERN)]
    amount: AmountMinor | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(
        default=None, description="If given, it must be the payment's own"
    )


class CreateRefund(PreviewRefund):
    """`amount` is in minor units of the payment's currency; without it, all that is left."""

    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON), WithoutCardNumber]


class PointsTakenBack(BaseModel):
    """What the user's balance would lose: `bonus` and `paid` points out of lots, and those that
    would be `owed`; `policy` says what becomes of refunds whose points are spent."""

    policy: ClawbackPolicy
    bonus: int
    paid: int
    owed: int
    balance_after: int


class RefundPreview(BaseModel):
    """`amount` (minor units) is what would be refunded, less than asked for where the policy
    reduces it; `points` is null where the payment brought none."""

    payment_id: str
    amount: int
    currency: str
    points: PointsTakenBack | None


INPUTS: Final[list[type[BaseModel]]] = [CreateRefund, PreviewRefund]

_UNDER_WAY: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": Refund, "description": "Reserved; the gateway has not answered yet"}
}


@router.post(
    "/refund",
    status_code=201,
    response_model=Refund,
    operation_id="create_refund",
    responses={
        201: {"headers": REPLAYED_HEADER},
        **_UNDER_WAY,
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(CreateRefund) | header_parameter(required=True),
)
async def create(
    request: Request,
    caller: Refunder,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[CreateRefund, Depends(json_body(CreateRefund))],
) -> Response:
    """Give back money of a succeeded payment. It is set aside before the gateway is asked."""
    payment = (await find_payment(request, wanted.payment_id, caller.application)).payment
    new = _request(wanted, payment, caller.application)

    async def act(claim: Claim | None) -> Answer:
        assert claim is not None
        asked = RefundRequest.model_validate_json(claim.request)
        # Whoever finds the key claimed may be here before the first has been refused.
        _check_currency(wanted, payment)
        if claim.is_new:
            _check(wanted, payment)
        refund = await _refund(request, asked, id_of("refund", caller.application, key))
        if refund is None:
            standing = await _find(request, asked.refund_id, caller.application)
            if standing is None:
                raise unavailable("the refund's process")
            return Answer(202, standing.model_dump_json().encode())
        return Answer(201, refund.model_dump_json().encode())

    return await once(
        request,
        caller,
        key,
        command="refund",
        object_id=new.refund_id,
        message=new.model_dump_json().encode(),
        act=act,
    )


@router.post(
    "/refund/preview",
    response_model=RefundPreview,
    operation_id="preview_refund",
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 500, 503),
    openapi_extra=body_schema(PreviewRefund),
)
async def preview(
    request: Request,
    caller: Reader,
    _: NoQuery,
    wanted: Annotated[PreviewRefund, Depends(json_body(PreviewRefund))],
) -> Response:
    """What a refund would do now, refused as the refund would be; nothing is changed."""
    payment = (await find_payment(request, wanted.payment_id, caller.application)).payment
    _check(wanted, payment)
    here = context(request)
    policy = here.catalog.points.clawback
    async with here.database.begin() as work:
        amount, points = await work.refunds.preview(
            payment.id,
            caller.application,
            wanted.amount,
            now=datetime.now(UTC),
            clawback=policy,
        )
    taken = None
    if points is not None:
        taken = PointsTakenBack(policy=policy, **points.model_dump(exclude={"amount", "points"}))
    answer = RefundPreview(
        payment_id=payment.id, amount=amount, currency=payment.currency, points=taken
    )
    return Answer(200, answer.model_dump_json().encode()).response()


@router.get(
    "/refund/{refund_id:refund}",
    response_model=Refund,
    operation_id="read_refund",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read(request: Request, caller: Reader, refund_id: RefundIdInPath, _: NoQuery) -> Response:
    """The refund as it stands."""
    refund = None
    if is_refund_id(refund_id):
        refund = await _find(request, refund_id, caller.application)
    if refund is None:
        raise RefundNotFound("there is no such refund")
    return Answer(200, refund.model_dump_json().encode()).response()


def _request(wanted: CreateRefund, payment: Payment, application: str) -> RefundRequest:
    now = datetime.now(UTC)
    return RefundRequest(
        refund_id=make_id(REFUND, int(now.timestamp() * 1000), secrets.token_bytes(10)),
        payment_id=payment.id,
        application=application,
        user_id=payment.user_id,
        gateway=payment.gateway,
        currency=payment.currency,
        amount_minor=wanted.amount,
        reason=wanted.reason,
        created_at=now,
    )


def _check(wanted: PreviewRefund, payment: Payment) -> None:
    """What can be refused without asking anybody; the reservation decides in the end."""
    if payment.status is not PaymentStatus.SUCCEEDED:
        raise PaymentNotRefundable(
            f"the payment is {payment.status}; only a succeeded one can be refunded",
            param="payment_id",
        )
    _check_currency(wanted, payment)
    if wanted.amount is not None and wanted.amount > payment.amount:
        raise RefundExceedsPayment(
            f"the payment was over {payment.amount} in minor units, less than {wanted.amount}",
            param="amount",
        )


def _check_currency(wanted: PreviewRefund, payment: Payment) -> None:
    """The reservation knows no currency but the payment's own."""
    if wanted.currency is not None and wanted.currency != payment.currency:
        raise PaymentNotRefundable(
            f"the payment was made in {payment.currency}, not in {wanted.currency}",
            param="currency",
        )


async def _refund(request: Request, asked: RefundRequest, command_id: str) -> Refund | None:
    """The refund once it is reserved, and asked for if the gateway answers soon; None while under
    way. Raises the refusal."""
    message = Command(application=asked.application)
    commands = context(request).commands
    try:
        return await commands.refund(asked, message, command_id)
    except NotRunning:
        standing = await _find(request, asked.refund_id, asked.application)
        if standing is not None:
            return standing
    ended = await commands.refund_ended(asked.refund_id)
    if ended is None:
        # It was lost before anything was set aside.
        try:
            return await commands.refund(asked, message, command_id, is_lost=True)
        except NotRunning:
            raise unavailable("the refund's process") from None
    why = ended.refusal or "nothing was reserved"
    refusal = refusal_of(ended.refusal_code, why, ended.refusal_param)
    raise refusal or unavailable("the refund's process")


async def _find(request: Request, refund_id: str, application: str) -> Refund | None:
    async with context(request).database.single() as work:
        record = await work.refunds.find(refund_id, application=application)
    return None if record is None else record.refund
