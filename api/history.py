"""The list of payments."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Reader
from api.context import context
from api.openapi import problems
from api.orders import UserId
from api.queries import Cursor, DistinctQuery, Limit, Moment, StrictQuery
from billing.payment import GatewayName, Payment, PaymentStatus, PaymentType

router = APIRouter(tags=["payments"])


class HistoryQuery(StrictQuery):
    user_id: UserId | None = None
    type: PaymentType | None = None
    status: PaymentStatus | None = None
    gateway: GatewayName | None = None
    created_after: Moment | None = Field(default=None, description="RFC 3339, itself excluded")
    created_before: Moment | None = Field(default=None, description="RFC 3339, itself excluded")
    limit: Limit = 20
    cursor: Cursor | None = None


class PaymentPage(BaseModel):
    """`next_cursor` fetches the next page; null on the last."""

    data: list[Payment]
    has_more: bool
    next_cursor: str | None


@router.get(
    "/history",
    response_model=PaymentPage,
    operation_id="list_payments",
    responses=problems(401, 403, 422, 500, 503),
)
async def history(
    request: Request,
    caller: Reader,
    _: DistinctQuery,
    wanted: Annotated[HistoryQuery, Query()],
) -> Response:
    """Payments, newest first."""
    async with context(request).database.begin() as work:
        page = await work.payments.page(
            application=caller.application,
            limit=wanted.limit,
            cursor=wanted.cursor,
            user_id=wanted.user_id,
            type=wanted.type,
            status=wanted.status,
            gateway=wanted.gateway,
            created_after=wanted.created_after,
            created_before=wanted.created_before,
        )
    answer = PaymentPage(data=list(page.data), has_more=page.has_more, next_cursor=page.next_cursor)
    return Response(answer.model_dump_json(), media_type="application/json")
