"""The test clock: a subscription's own time is moved on. Only against the sandbox."""

import secrets
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, Field
from temporalio.service import RPCError, RPCStatusCode

from api.authentication import Operator
from api.bodies import StrictInput, body_schema, json_body
from api.context import context
from api.openapi import problems
from api.problems import RequestRefused, try_again
from api.queries import NoQuery, SubscriptionIdInPath
from api.subscription_lookup import SubscriptionDetails, details, find_subscription
from billing.decisions import require_alive
from billing.payment import GatewayName
from runtime.skipping import LONGEST_STEP, advance_clock

router = APIRouter(prefix="/subscription", tags=["subscriptions"])

_PATIENCE: Final = timedelta(seconds=25)


class AdvanceClock(StrictInput):
    """By so many seconds, a leap year at most."""

    seconds: Annotated[int, Field(ge=1, le=int(LONGEST_STEP.total_seconds()))]


class SubscriptionClock(BaseModel):
    """Where its clock stands. `is_held`: a payment under way holds it, as payers keep wall time; it
    goes on to where it was moved once that has ended."""

    now: AwareDatetime
    is_held: bool
    subscription: SubscriptionDetails


INPUTS: Final[list[type[BaseModel]]] = [AdvanceClock]


@router.post(
    "/{subscription_id}/clock",
    response_model=SubscriptionClock,
    operation_id="advance_subscription_clock",
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 500, 503),
    openapi_extra=body_schema(AdvanceClock),
)
async def advance(
    request: Request,
    caller: Operator,
    subscription_id: SubscriptionIdInPath,
    _: NoQuery,
    wanted: Annotated[AdvanceClock, Depends(json_body(AdvanceClock))],
) -> Response:
    """Move the time of one subscription on, everything that falls due on the way happening as it
    would. At Alipay and WeChat Pay the sandbox judges by each mandate's own clock, which is set
    there."""
    found = await find_subscription(request, subscription_id, caller.application)
    _require_sandbox(request, found.subscription.gateway)
    require_alive(found.subscription)
    wired = context(request)
    try:
        clock = await advance_clock(
            wired.client,
            subscription_id,
            timedelta(seconds=wanted.seconds),
            step_id=secrets.token_hex(8),
            patience=_PATIENCE,
        )
    except TimeoutError:
        raise try_again(
            503, "clock_held", "a payment is under way, and holds the clock: have it end first"
        ) from None
    except RPCError as problem:
        if problem.status is RPCStatusCode.NOT_FOUND:
            raise try_again(503, "temporarily_unavailable", "its process is not there") from None
        if problem.status is RPCStatusCode.INVALID_ARGUMENT:
            raise RequestRefused(
                409, "clock_not_available", "this Temporal server skips no time"
            ) from None
        raise
    answer = SubscriptionClock(
        now=clock.now,
        is_held=clock.is_held,
        subscription=await details(request, subscription_id, caller.application),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _require_sandbox(request: Request, gateway: GatewayName) -> None:
    if not context(request).settings.is_sandbox(gateway):
        raise RequestRefused(
            409, "clock_not_available", f"{gateway} is no sandbox here: its time is everybody's"
        )
