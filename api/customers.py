"""Customers: what is known of an application's user."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Reader
from api.context import context
from api.openapi import problems
from api.queries import NoQuery, UserIdInPath
from billing.errors import CustomerNotFound
from storage.points import User

router = APIRouter(tags=["customers"])


class Customer(BaseModel):
    """`created_at` is when the first payment was ordered."""

    user_id: str
    tier: Literal["FREE"] = "FREE"
    tier_until: datetime | None = Field(default=None, description="Null: the tier has no end")
    points_balance: int = Field(description="Negative in debt")
    created_at: datetime


@router.get(
    "/customer/{user_id}",
    response_model=Customer,
    operation_id="read_customer",
    responses=problems(401, 403, 404, 422, 500, 503),
)
async def read(request: Request, caller: Reader, user_id: UserIdInPath, _: NoQuery) -> Response:
    """The customer, known since their first payment."""
    async with context(request).database.single() as work:
        created_at = await work.customers.since(caller.application, user_id)
        if created_at is None:
            raise CustomerNotFound("there is no such customer: no payment was ordered for them")
        points = await work.points.balance(User(caller.application, user_id), datetime.now(UTC))
    answer = Customer(user_id=user_id, points_balance=points.balance, created_at=created_at)
    return Response(answer.model_dump_json(), media_type="application/json")
