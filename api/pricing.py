"""What is on sale."""

from fastapi import APIRouter, Request

from api.authentication import Reader
from api.context import context
from api.openapi import problems
from api.queries import NoQuery
from billing.pricing import Pricing, price_list

router = APIRouter(tags=["catalog"])


@router.get("/pricing", operation_id="read_pricing", responses=problems(401, 403, 422, 500, 503))
async def pricing(request: Request, caller: Reader, _: NoQuery) -> Pricing:
    """Memberships for each cycle with what the longer ones save, products and packages of points;
    prices in minor units per currency."""
    return price_list(context(request).catalog)
