"""Subscriptions: sign up, read, change, pay, and see what will happen."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from api import subscription_inputs as inputs
from api.authentication import Operator, Reader, Writer
from api.bodies import body_schema, json_body
from api.commands import id_of
from api.context import context
from api.idempotency import (
    Answer,
    OptionalKey,
    RequiredKey,
    claimed_before,
    header_parameter,
    once,
)
from api.openapi import REPLAYED_HEADER, problems
from api.orders import UserId
from api.queries import Cursor, DistinctQuery, Limit, NoQuery, StrictQuery, SubscriptionIdInPath
from api.subscription_commands import begun, commanded, shown, signing
from api.subscription_lookup import (
    SUBSCRIBE,
    SubscriptionDetails,
    details,
    is_recorded,
    require_methods,
)
from api.subscription_time import as_of_now
from billing.errors import BillingError
from billing.subscription import Subscription
from billing.subscription_messages import (
    ResumeSubscription,
    SubscriptionStart,
)
from storage.claims import Claim
from workflows.subscription import SubscriptionWorkflow

router = APIRouter(prefix="/subscription", tags=["subscriptions"])

_STILL_GOING: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": SubscriptionDetails,
        "description": "Under way: the subscription as it stands until then",
    }
}
_COMMANDED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"headers": REPLAYED_HEADER},
    **_STILL_GOING,
    **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
}

INPUTS: Final[list[type[BaseModel]]] = [
    inputs.Subscribe,
    inputs.CancelInput,
    inputs.PauseInput,
    inputs.ResumeInput,
    inputs.ChangeInput,
    inputs.MethodInput,
    inputs.PayInput,
    inputs.OperateInput,
]


class SubscriptionsQuery(StrictQuery):
    user_id: UserId
    limit: Limit = 20
    cursor: Cursor | None = None


class SubscriptionPage(BaseModel):
    """`next_cursor` fetches the next page; null on the last."""

    data: list[Subscription]
    has_more: bool
    next_cursor: str | None


@router.post(
    "",
    status_code=201,
    response_model=SubscriptionDetails,
    operation_id="subscribe",
    responses={
        201: {"headers": REPLAYED_HEADER},
        **_STILL_GOING,
        **problems(400, 401, 403, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_schema(inputs.Subscribe) | header_parameter(required=True),
)
async def subscribe(
    request: Request,
    caller: Writer,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[inputs.Subscribe, Depends(json_body(inputs.Subscribe))],
) -> Response:
    """Sign a user up. The answer carries the first payment, with what the payer needs next; the
    subscription begins once that is paid, and at once where nothing is to be paid."""
    wired = context(request)
    now = datetime.now(UTC)
    try:
        new = inputs.start_of(
            wanted, wired.offers, wired.catalog, wired.settings.dunning, caller.application, now
        )
    except BillingError as refusal:
        earlier = await claimed_before(request, caller, key, refusal)
        new = SubscriptionStart.model_validate_json(earlier.request)

    async def act(claim: Claim | None) -> Answer:
        assert claim is not None
        start = SubscriptionStart.model_validate_json(claim.request)
        order = start.order
        if claim.is_new or not await is_recorded(request, order.id, caller.application):
            await require_methods(
                request,
                order.id,
                caller.application,
                order.user_id,
                order.gateway,
                order.payment_method_id,
                order.backup_payment_method_id,
            )
        if not claim.is_new:
            # A repeat may be the first to start it; where it was started, that start's time stands.
            start = start.model_copy(update={"created_at": now})
        answer = await begun(request, start, id_of(SUBSCRIBE, caller.application, key), claim)
        return await shown(request, caller, order.id, answer, status_code=201)

    return await once(
        request,
        caller,
        key,
        command=SUBSCRIBE,
        object_id=new.order.id,
        message=new.model_dump_json().encode(),
        act=act,
    )


@router.get(
    "",
    response_model=SubscriptionPage,
    operation_id="list_subscriptions",
    responses=problems(401, 403, 422, 500, 503),
)
async def list_(
    request: Request,
    caller: Reader,
    _: DistinctQuery,
    wanted: Annotated[SubscriptionsQuery, Query()],
) -> Response:
    """A user's subscriptions, newest first, those that have ended among them."""
    async with context(request).database.single() as work:
        page = await work.subscriptions.page(
            application=caller.application,
            user_id=wanted.user_id,
            limit=wanted.limit,
            cursor=wanted.cursor,
        )
    data = [await as_of_now(request, record) for record in page.data]
    answer = SubscriptionPage(data=data, has_more=page.has_more, next_cursor=page.next_cursor)
    return _json(answer)


@router.get(
    "/{subscription_id}",
    response_model=SubscriptionDetails,
    operation_id="read_subscription",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read(
    request: Request, caller: Reader, subscription_id: SubscriptionIdInPath, _: NoQuery
) -> Response:
    """The subscription as it stands, and the payment that it waits for."""
    return _json(await details(request, subscription_id, caller.application))


@router.post(
    "/{subscription_id}/cancel",
    response_model=SubscriptionDetails,
    operation_id="cancel_subscription",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.CancelInput) | header_parameter(required=False),
)
async def cancel(
    request: Request,
    caller: Writer,
    subscription_id: SubscriptionIdInPath,
    key: OptionalKey,
    _: NoQuery,
    wanted: Annotated[inputs.CancelInput, Depends(json_body(inputs.CancelInput))],
) -> Response:
    """End it with its period, or now; a payment under way is canceled then too.

    With its period, it ends at once where that is over and nothing was charged for the next, as
    while a renewal waits for its window, or is owed. A charge under way decides: paid, it ends with
    the period that was paid for; not paid, with the one before. A code that is open for a renewal
    is closed, and what is paid ahead is used. `/resume` takes it back until it has ended.
    """
    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "cancel",
        SubscriptionWorkflow.cancel,
        lambda _: inputs.cancel_of(wanted),
    )


@router.post(
    "/{subscription_id}/pause",
    response_model=SubscriptionDetails,
    operation_id="pause_subscription",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.PauseInput) | header_parameter(required=False),
)
async def pause(
    request: Request,
    caller: Writer,
    subscription_id: SubscriptionIdInPath,
    key: OptionalKey,
    _: NoQuery,
    wanted: Annotated[inputs.PauseInput, Depends(json_body(inputs.PauseInput))],
) -> Response:
    """Pause it, now or from the period's end. What was paid for is used afterwards."""
    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "pause",
        SubscriptionWorkflow.pause,
        lambda _: inputs.pause_of(wanted),
    )


@router.post(
    "/{subscription_id}/resume",
    response_model=SubscriptionDetails,
    operation_id="resume_subscription",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.ResumeInput) | header_parameter(required=True),
)
async def resume(
    request: Request,
    caller: Writer,
    subscription_id: SubscriptionIdInPath,
    key: RequiredKey,
    _: NoQuery,
    __: Annotated[inputs.ResumeInput, Depends(json_body(inputs.ResumeInput))],
) -> Response:
    """End a pause, which may begin a period that is charged; or take back what was to come."""
    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "resume",
        SubscriptionWorkflow.resume,
        lambda _: ResumeSubscription(),
    )


@router.post(
    "/{subscription_id}/change",
    response_model=SubscriptionDetails,
    operation_id="change_subscription",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.ChangeInput) | header_parameter(required=True),
)
async def change(
    request: Request,
    caller: Writer,
    subscription_id: SubscriptionIdInPath,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[inputs.ChangeInput, Depends(json_body(inputs.ChangeInput))],
) -> Response:
    """To another tier or cycle: what it costs is charged, and the change made once it is paid.
    Where the saved method is signed for less, the payer is asked to sign again: `signature`."""
    wired = context(request)
    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "change",
        SubscriptionWorkflow.change,
        lambda found: inputs.change_of(wanted, wired.offers, wired.catalog, found),
        signing(request, caller, subscription_id, wanted.return_url),
    )


@router.post(
    "/{subscription_id}/method",
    response_model=SubscriptionDetails,
    operation_id="change_subscription_method",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.MethodInput) | header_parameter(required=True),
)
async def change_method(
    request: Request,
    caller: Writer,
    subscription_id: SubscriptionIdInPath,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[inputs.MethodInput, Depends(json_body(inputs.MethodInput))],
) -> Response:
    """To another saved method or gateway; what is owed is charged to it at once."""

    async def require(found: Subscription) -> None:
        await require_methods(
            request,
            found.id,
            caller.application,
            found.user_id,
            wanted.gateway,
            wanted.payment_method_id,
            wanted.backup_payment_method_id,
        )

    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "change_method",
        SubscriptionWorkflow.change_method,
        lambda found: inputs.method_of(wanted, context(request).offers, found),
        beforehand=require,
    )


@router.post(
    "/{subscription_id}/pay",
    response_model=SubscriptionDetails,
    operation_id="pay_subscription",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.PayInput) | header_parameter(required=True),
)
async def pay(
    request: Request,
    caller: Writer,
    subscription_id: SubscriptionIdInPath,
    key: RequiredKey,
    _: NoQuery,
    wanted: Annotated[inputs.PayInput, Depends(json_body(inputs.PayInput))],
) -> Response:
    """Pay by hand what is owed, or what was asked for ahead. Who could not be charged because their
    saved method is signed for less is asked to sign again: `signature`."""
    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "pay",
        SubscriptionWorkflow.pay,
        lambda found: inputs.pay_of(wanted, context(request).offers, found),
        signing(request, caller, subscription_id, wanted.return_url),
    )


@router.post(
    "/{subscription_id}/operate",
    response_model=SubscriptionDetails,
    operation_id="operate_subscription",
    responses=_COMMANDED,
    openapi_extra=body_schema(inputs.OperateInput) | header_parameter(required=False),
)
async def operate(
    request: Request,
    caller: Operator,
    subscription_id: SubscriptionIdInPath,
    key: OptionalKey,
    _: NoQuery,
    wanted: Annotated[inputs.OperateInput, Depends(json_body(inputs.OperateInput))],
) -> Response:
    """An operator's command; who gave it, and why, is an event."""
    return await commanded(
        request,
        caller,
        subscription_id,
        key,
        "operate",
        SubscriptionWorkflow.operate,
        lambda _: inputs.operate_of(wanted, caller.key_id),
    )


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
