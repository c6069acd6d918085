"""Saved payment methods: set up with the payer's consent, listed, made the default, deleted."""

import secrets
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field

from api import method_commands
from api.authentication import Reader, Writer
from api.bodies import Nothing, StrictInput, body_schema, json_body
from api.commands import NotRunning, id_of
from api.context import context
from api.idempotency import Answer, RequiredKey, header_parameter, once
from api.method_lookup import SAVE, find_method
from api.openapi import REPLAYED_HEADER, problems
from api.orders import Offers, ReturnUrl, UserId, whole
from api.problems import unavailable
from api.queries import Cursor, DistinctQuery, Limit, MethodIdInPath, NoQuery, StrictQuery
from billing.errors import InvalidRequest, MethodNotActive
from billing.identifiers import METHOD, make_id
from billing.method import MethodStatus, SavedMethod
from billing.method_messages import MethodOrder
from billing.money import AmountMinor, CurrencyCode
from billing.payment import GatewayName
from storage.claims import Claim
from storage.method_use import require_unused

router = APIRouter(prefix="/methods", tags=["methods"])

_BEIJING: Final = timezone(timedelta(hours=8))

# Field comes before the validator, or the JSON schema loses its bounds.
Months = Annotated[int, Field(ge=1, le=12, strict=True), BeforeValidator(whole)]


class SaveMethod(StrictInput):
    """What the payer is asked to consent to."""

    user_id: UserId
    gateway: GatewayName
    return_url: ReturnUrl | None = Field(
        default=None, description="Where the gateway sends the payer back: https"
    )
    most: AmountMinor | None = Field(
        default=None, description="The most that one charge may come to, in minor units"
    )
    currency: CurrencyCode | None = Field(
        default=None,
        description="Of `most`; CNY at gateways that take nothing else, where it is left out",
    )
    every_months: Months | None = Field(
        default=None, description="How often it will be charged; without it, at any time"
    )
    first_charge_on: date | None = Field(
        default=None, description="The first day of such a rhythm, in Beijing"
    )


class MethodsQuery(StrictQuery):
    user_id: UserId
    status: MethodStatus | None = None
    limit: Limit = 20
    cursor: Cursor | None = None


class DeleteQuery(StrictQuery):
    force: Literal["true", "false"] = Field(
        default="false", description="`true` deletes it though it is in use"
    )


class MethodPage(BaseModel):
    """`next_cursor` fetches the next page; null on the last."""

    data: list[SavedMethod]
    has_more: bool
    next_cursor: str | None


INPUTS: Final[list[type[BaseModel]]] = [SaveMethod]

_STILL_GOING: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": SavedMethod, "description": "Under way: the method as it stands until then"}
}


@router.post(
    "",
    status_code=201,
    response_model=SavedMethod,
    operation_id="save_method",
    responses={
        201: {"headers": REPLAYED_HEADER},
        **_STILL_GOING,
        **problems(400, 401, 403, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(SaveMethod) | header_parameter(required=True),
)
async def save(
    request: Request,
    caller: Writer,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[SaveMethod, Depends(json_body(SaveMethod))],
) -> Response:
    """Ask the payer to let later payments be charged without them. The answer carries what the
    payer needs next."""
    now = datetime.now(UTC)
    new = _order_of(wanted, context(request).offers, caller.application, now)

    async def act(claim: Claim | None) -> Answer:
        assert claim is not None
        order = MethodOrder.model_validate_json(claim.request)
        if not claim.is_new:
            # A repeat may be the first to start it; where it was started, that start's time stands.
            order = order.model_copy(update={"created_at": now})
        method = await _save(request, order, id_of(SAVE, caller.application, key), claim)
        if method is None:
            found = await find_method(request, order.method_id, caller.application)
            return _answer(202, found.method)
        return _answer(201, method)

    return await once(
        request,
        caller,
        key,
        command=SAVE,
        object_id=new.method_id,
        message=new.model_dump_json().encode(),
        act=act,
    )


@router.get(
    "",
    response_model=MethodPage,
    operation_id="list_methods",
    responses=problems(401, 403, 422, 500, 503),
)
async def list_(
    request: Request,
    caller: Reader,
    _: DistinctQuery,
    wanted: Annotated[MethodsQuery, Query()],
) -> Response:
    """A user's saved methods, newest first, those that have failed or ended among them."""
    async with context(request).database.begin() as work:
        page = await work.methods.page(
            application=caller.application,
            user_id=wanted.user_id,
            status=wanted.status,
            limit=wanted.limit,
            cursor=wanted.cursor,
        )
    answer = MethodPage(data=page.data, has_more=page.has_more, next_cursor=page.next_cursor)
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get(
    "/{method_id}",
    response_model=SavedMethod,
    operation_id="read_method",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read(request: Request, caller: Reader, method_id: MethodIdInPath, _: NoQuery) -> Response:
    """The method as it stands."""
    found = await find_method(request, method_id, caller.application)
    return _answer(200, found.method).response()


@router.delete(
    "/{method_id}",
    response_model=SavedMethod,
    operation_id="delete_method",
    responses={**_STILL_GOING, **problems(401, 403, 404, 409, 422, 429, 500, 503)},
)
async def delete(
    request: Request,
    caller: Writer,
    method_id: MethodIdInPath,
    _: DistinctQuery,
    wanted: Annotated[DeleteQuery, Query()],
) -> Response:
    """End the method: nothing is charged to it any more, and its gateway is told so."""
    found = await find_method(request, method_id, caller.application)
    if found.method.status.is_terminal:
        return _answer(200, found.method).response()
    is_forced = wanted.force == "true"
    if not is_forced:
        # Its process looks again as it ends it; whoever asks in vain need not wait for that.
        async with context(request).database.single() as work:
            await require_unused(work, method_id)
    try:
        method = await method_commands.delete(
            context(request).commands,
            found.method,
            caller.application,
            id_of("delete_method", caller.application, None),
            is_forced=is_forced,
            is_recorded=found.is_recorded,
        )
    except NotRunning:
        raise unavailable("the method's process") from None
    return await _stand(request, caller.application, method_id, method)


@router.post(
    "/{method_id}/default",
    response_model=SavedMethod,
    operation_id="make_method_default",
    responses={
        **_STILL_GOING,
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(Nothing),
)
async def make_default(
    request: Request,
    caller: Writer,
    method_id: MethodIdInPath,
    _: NoQuery,
    __: Annotated[Nothing, Depends(json_body(Nothing))],
) -> Response:
    """Make it the one to charge where nobody says which."""
    found = await find_method(request, method_id, caller.application)
    if found.method.status is not MethodStatus.ACTIVE:
        raise MethodNotActive(
            f"the payment method is {found.method.status}; only an active one can be the default"
        )
    try:
        method = await method_commands.make_default(
            context(request).commands,
            found.method,
            caller.application,
            id_of("default_method", caller.application, None),
        )
    except NotRunning:
        raise unavailable("the method's process") from None
    return await _stand(request, caller.application, method_id, method)


async def _stand(
    request: Request, application: str, method_id: str, method: SavedMethod | None
) -> Response:
    if method is None:
        found = await find_method(request, method_id, application)
        return _answer(202, found.method).response()
    return _answer(200, method).response()


def _order_of(wanted: SaveMethod, offers: Offers, application: str, now: datetime) -> MethodOrder:
    """A new order with an id of its own. Raises InvalidRequest and its kin."""
    currency = offers.saving_currency(wanted.gateway, wanted.currency)
    if wanted.most is not None and wanted.currency is None and currency == "USD":
        raise InvalidRequest("most needs its currency at this gateway", param="currency")
    if wanted.first_charge_on is not None:
        if wanted.every_months is None:
            raise InvalidRequest("first_charge_on goes with every_months", param="first_charge_on")
        if wanted.first_charge_on < now.astimezone(_BEIJING).date():
            raise InvalidRequest("first_charge_on is over in Beijing", param="first_charge_on")
    return MethodOrder(
        method_id=make_id(METHOD, int(now.timestamp() * 1000), secrets.token_bytes(10)),
        application=application,
        user_id=wanted.user_id,
        gateway=wanted.gateway,
        currency=currency,
        most_minor=wanted.most,
        every_months=wanted.every_months,
        first_charge_on=wanted.first_charge_on,
        return_url=wanted.return_url,
        created_at=now,
    )


async def _save(
    request: Request, order: MethodOrder, command_id: str, claim: Claim
) -> SavedMethod | None:
    """The method once the payer has instructions; None while it is under way."""
    is_recorded = False
    if not claim.is_new:
        found = await find_method(request, order.method_id, order.application)
        is_recorded = found.is_recorded
    try:
        return await method_commands.save(
            context(request).commands, order, command_id, is_recorded=is_recorded
        )
    except NotRunning:
        found = await find_method(request, order.method_id, order.application)
        return found.method if found.is_recorded else None


def _answer(status_code: int, method: SavedMethod) -> Answer:
    return Answer(status_code, method.model_dump_json().encode())
