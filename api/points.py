"""Points: bought in packages, spent, and what is left of them."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field

from api.authentication import Reader, Writer
from api.bodies import StrictInput, body_schema, json_body
from api.commands import NotRunning, id_of, refusal_of
from api.context import context
from api.idempotency import Answer, RequiredKey, claimed_before, header_parameter, once
from api.openapi import REPLAYED_HEADER, problems
from api.ordering import ORDERED, order_once
from api.orders import PurchasePoints, UserId, WithoutCardNumber, whole
from api.problems import unavailable
from api.queries import Cursor, DistinctQuery, Limit, NoQuery, StrictQuery, UserIdInPath
from billing.errors import BillingError
from billing.identifiers import POINTS_TRANSACTION, make_id
from billing.messages import Command, PaymentOrder, SpendRequest
from billing.payment import Payment
from billing.points import MAX_POINTS, PointsHoldings, PointsTransaction
from billing.refund import LONGEST_REASON
from storage.claims import Claim
from storage.points import User

router = APIRouter(prefix="/points", tags=["points"])

# Field comes before the validator, or the JSON schema loses its bounds.
WholePoints = Annotated[int, Field(ge=1, le=MAX_POINTS, strict=True), BeforeValidator(whole)]


class SpendInput(StrictInput):
    """Points to spend: those of the oldest purchase go first."""

    user_id: UserId
    points: WholePoints
    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON), WithoutCardNumber]


class TransactionsQuery(StrictQuery):
    limit: Limit = 20
    cursor: Cursor | None = None


class TransactionPage(BaseModel):
    """`next_cursor` fetches the next page; null on the last."""

    data: list[PointsTransaction]
    has_more: bool
    next_cursor: str | None


INPUTS: Final[list[type[BaseModel]]] = [PurchasePoints, SpendInput]


@router.post(
    "/purchase",
    status_code=201,
    response_model=Payment,
    operation_id="purchase_points",
    responses=ORDERED,
    openapi_extra=body_schema(PurchasePoints) | header_parameter(required=True),
)
async def purchase(
    request: Request,
    caller: Writer,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[PurchasePoints, Depends(json_body(PurchasePoints))],
) -> Response:
    """Order a package of points. They are credited as the payment succeeds."""
    here = context(request)
    packages, now = here.catalog.points, datetime.now(UTC)
    try:
        new = here.offers.purchase(wanted, packages, caller.application, now)
    except BillingError as refusal:
        claim = await claimed_before(request, caller, key, refusal)
        new = PaymentOrder.model_validate_json(claim.request)
    return await order_once(request, caller, key, new)


@router.post(
    "/spend",
    status_code=201,
    response_model=PointsTransaction,
    operation_id="spend_points",
    responses={
        201: {"headers": REPLAYED_HEADER},
        **problems(400, 401, 403, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(SpendInput) | header_parameter(required=True),
)
async def spend(
    request: Request,
    caller: Writer,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[SpendInput, Depends(json_body(SpendInput))],
) -> Response:
    """Spend points of a user who has as many and owes none."""
    new = _spend_of(wanted, caller.application)

    async def act(claim: Claim | None) -> Answer:
        assert claim is not None
        asked = SpendRequest.model_validate_json(claim.request)
        spent = None if claim.is_new else await _find(request, asked)
        if spent is None:
            spent = await _spend(request, asked, id_of("spend", caller.application, key))
        return Answer(201, spent.model_dump_json().encode())

    return await once(
        request,
        caller,
        key,
        command="spend",
        object_id=new.transaction_id,
        message=new.model_dump_json().encode(),
        act=act,
    )


@router.get(
    "/{user_id}",
    response_model=PointsHoldings,
    operation_id="read_points",
    responses=problems(401, 403, 422, 500, 503),
)
async def read(request: Request, caller: Reader, user_id: UserIdInPath, _: NoQuery) -> Response:
    """What the user has, in which lots; nothing where nobody by that name ever had points."""
    async with context(request).database.single() as work:
        holdings = await work.points.holdings(User(caller.application, user_id), datetime.now(UTC))
    return Response(holdings.model_dump_json(), media_type="application/json")


@router.get(
    "/{user_id}/transactions",
    response_model=TransactionPage,
    operation_id="list_points_transactions",
    responses=problems(401, 403, 422, 500, 503),
)
async def transactions(
    request: Request,
    caller: Reader,
    user_id: UserIdInPath,
    _: DistinctQuery,
    wanted: Annotated[TransactionsQuery, Query()],
) -> Response:
    """Every movement of the user's points, newest first."""
    async with context(request).database.begin() as work:
        page = await work.points.page(
            User(caller.application, user_id), limit=wanted.limit, cursor=wanted.cursor
        )
    answer = TransactionPage(data=page.data, has_more=page.has_more, next_cursor=page.next_cursor)
    return Response(answer.model_dump_json(), media_type="application/json")


def _spend_of(wanted: SpendInput, application: str) -> SpendRequest:
    now = datetime.now(UTC)
    return SpendRequest(
        transaction_id=make_id(
            POINTS_TRANSACTION, int(now.timestamp() * 1000), secrets.token_bytes(10)
        ),
        application=application,
        user_id=wanted.user_id,
        points=wanted.points,
        reason=wanted.reason,
        created_at=now,
    )


async def _spend(request: Request, asked: SpendRequest, command_id: str) -> PointsTransaction:
    """The movement. Raises the refusal, and RequestRefused (503) where there is no answer yet:
    it will have been carried out once when the request is sent again."""
    commands = context(request).commands
    try:
        spent = await commands.spend(asked, Command(application=asked.application), command_id)
    except NotRunning:
        ended = await commands.spend_ended(asked.transaction_id)
        spent = ended.transaction if ended else None
        if ended and spent is None:
            why = ended.refusal or "nothing was spent"
            refusal = refusal_of(ended.refusal_code, why, ended.refusal_param)
            raise refusal or unavailable("the spend's process") from None
    spent = spent or await _find(request, asked)
    if spent is None:
        raise unavailable("the spend's process")
    return spent


async def _find(request: Request, asked: SpendRequest) -> PointsTransaction | None:
    async with context(request).database.single() as work:
        return await work.points.find(asked.transaction_id, asked.application)
