"""Customers: what is known of an application's user."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Reader
from api.context import context
from api.openapi import problems
from api.queries import NoQuery, UserIdInPath
from api.subscription_time import now_of
from billing.errors import CustomerNotFound
from billing.membership import GrantReason, granted, standing_at
from billing.payment import GatewayName
from billing.plans import Tier
from billing.subscription import Subscription
from storage.points import User
from storage.subscriptions import SubscriptionRecord

router = APIRouter(tags=["customers"])


class Customer(BaseModel):
    """`created_at` is when the first payment was ordered, or the first method saved."""

    user_id: str
    tier: Tier
    tier_until: datetime | None = Field(
        description="When the tier ends or is renewed; null: not known yet, or FREE"
    )
    tier_reason: GrantReason = Field(description="Why it is granted, or why nothing is")
    subscription_id: str | None = Field(description="The subscription behind that")
    points_balance: int = Field(description="Negative in debt")
    default_payment_method_id: str | None = Field(
        description="The saved method to charge where nobody says which; null where there is none"
    )
    gateway_customers: dict[GatewayName, str] = Field(
        description="What gateways that keep customers call this one"
    )
    created_at: datetime


@router.get(
    "/customer/{user_id}",
    response_model=Customer,
    operation_id="read_customer",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read(request: Request, caller: Reader, user_id: UserIdInPath, _: NoQuery) -> Response:
    """The customer, known since their first payment or saved method."""
    async with context(request).database.single() as work:
        created_at = await work.customers.since(caller.application, user_id)
        if created_at is None:
            raise CustomerNotFound("there is no such customer: nothing was ordered for them")
        alive = await work.subscriptions.alive_of(caller.application, user_id)
        points = await work.points.balance(User(caller.application, user_id), datetime.now(UTC))
        default = await work.methods.default_of(caller.application, user_id)
        references = await work.gateway_customers.of(caller.application, user_id)
    grant = granted([await _dated(request, one) for one in alive])
    answer = Customer(
        user_id=user_id,
        tier=grant.tier,
        tier_until=grant.until,
        tier_reason=grant.reason,
        subscription_id=grant.subscription_id,
        points_balance=points.balance,
        default_payment_method_id=default,
        gateway_customers=references,
        created_at=created_at,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _dated(request: Request, record: SubscriptionRecord) -> tuple[Subscription, datetime]:
    """The subscription as it stands at its own time."""
    found = record.standing.subscription
    at = await now_of(request, found.id, found.gateway)
    return standing_at(record.standing, record.start.terms.schedule, at), at
