"""What a front end needs to let a payer pay."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Reader
from api.bodies import StrictInput, body_schema, json_body
from api.lookup import find
from api.openapi import problems
from api.queries import NoQuery
from billing.payment import NextAction

router = APIRouter(tags=["payments"])


class TokenRequest(StrictInput):
    payment_id: Annotated[str, Field(min_length=1, max_length=64)]


class Token(BaseModel):
    """`next_action` is `none` where the payer has nothing to do, or nothing yet."""

    payment_id: str
    next_action: NextAction


INPUTS: Final[list[type[BaseModel]]] = [TokenRequest]


@router.post(
    "/token",
    response_model=Token,
    operation_id="create_token",
    responses=problems(400, 401, 403, 404, 413, 415, 422, 500, 503),
    openapi_extra=body_schema(TokenRequest),
)
async def token(
    request: Request,
    caller: Reader,
    _: NoQuery,
    wanted: Annotated[TokenRequest, Depends(json_body(TokenRequest))],
) -> Response:
    """The payer's next action, for a front end that may see nothing else."""
    found = await find(request, wanted.payment_id, caller.application)
    answer = Token(payment_id=found.payment.id, next_action=found.payment.next_action)
    return Response(answer.model_dump_json(), media_type="application/json")
