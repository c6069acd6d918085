"""What will happen to a subscription, and what a command would come to: nothing is changed."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel

from api import subscription_inputs as inputs
from api.authentication import Reader
from api.bodies import body_schema, json_body
from api.context import context
from api.openapi import problems
from api.queries import NoQuery, SubscriptionIdInPath
from api.signatures import find_outgrown
from api.subscription_lookup import find_subscription
from api.subscription_time import now_of
from billing.charges import OF_A_PERIOD, minimum_of
from billing.method import MethodStatus
from billing.payment import GatewayName
from billing.subscription import Occurrence
from billing.subscription_commands import Quote, quoted
from billing.subscription_messages import ChangeSubscription, SubscriptionStanding
from billing.upcoming import upcoming_of
from storage.database import UnitOfWork

router = APIRouter(prefix="/subscription", tags=["subscriptions"])

INPUTS: Final[list[type[BaseModel]]] = [inputs.PreviewInput]


class PreviewAnswer(Quote):
    """`needs_signature` says that the saved method may not be charged what the plan costs: the
    change has the payer asked to sign again."""

    needs_signature: bool


class Upcoming(BaseModel):
    """What will happen if nobody does anything and every charge is paid, in order."""

    data: list[Occurrence]


@router.get(
    "/{subscription_id}/upcoming",
    response_model=Upcoming,
    operation_id="read_upcoming",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read_upcoming(
    request: Request, caller: Reader, subscription_id: SubscriptionIdInPath, _: NoQuery
) -> Response:
    """The next 24 months, by the rules that will be followed."""
    found = await find_subscription(request, subscription_id, caller.application)
    minimum = minimum_of(found.subscription, found.record.start.terms)
    now = await now_of(request, subscription_id, found.subscription.gateway)
    told = upcoming_of(found.record.standing, now, minimum=minimum)
    return _json(Upcoming(data=list(told)))


@router.post(
    "/{subscription_id}/preview",
    response_model=PreviewAnswer,
    operation_id="preview_subscription",
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 500, 503),
    openapi_extra=body_schema(inputs.PreviewInput),
)
async def preview(
    request: Request,
    caller: Reader,
    subscription_id: SubscriptionIdInPath,
    _: NoQuery,
    wanted: Annotated[inputs.PreviewInput, Depends(json_body(inputs.PreviewInput))],
) -> Response:
    """What a command would charge, give back and change, were it given now."""
    found = await find_subscription(request, subscription_id, caller.application)
    command = inputs.previewed(wanted, context(request).catalog, found.subscription)
    terms = found.record.start.terms
    now = await now_of(request, subscription_id, found.subscription.gateway)
    async with context(request).database.single() as work:
        refunded, changed_at = await work.subscriptions.refunded(found.subscription)
        standing = found.record.standing.model_copy(
            update={"refunded": refunded, "refunded_at": changed_at}
        )
        quote = quoted(standing, terms, command, now)
        outgrown = None
        if isinstance(command, ChangeSubscription):
            outgrown = await find_outgrown(work, found.subscription, command.plan)
        charged_to = await _charged_to(work, found.record.standing, quote, now)
    told = dict(quote) | {"payment_method_id": charged_to}
    return _json(PreviewAnswer(**told, needs_signature=outgrown is not None))


async def _charged_to(
    work: UnitOfWork, standing: SubscriptionStanding, quote: Quote, now: datetime
) -> str | None:
    """The saved method that is charged; None also where its mandate cannot carry that, as it is
    known here: the gateway itself is not asked."""
    if quote.payment_method_id is None:
        return None
    record = await work.methods.find(quote.payment_method_id)
    if record is None or record.method.status is not MethodStatus.ACTIVE:
        return None
    mandate, total = record.mandate, quote.preview.total
    is_at_once = quote.effective_at <= now
    is_out_of_turn = is_at_once and mandate.has_windows and quote.kind not in OF_A_PERIOD
    is_unannounced = (
        is_at_once and mandate.gateway is GatewayName.WECHATPAY and standing.announced is None
    )
    if is_out_of_turn or is_unannounced or not mandate.allows(total, quote.preview.currency):
        return None
    return record.method.id


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
