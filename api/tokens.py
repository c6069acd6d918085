"""What a front end needs to let a payer pay."""

from typing import Annotated, Final, Self

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, model_validator

from api.authentication import Reader
from api.bodies import StrictInput, body_schema, json_body
from api.lookup import find
from api.method_lookup import find_method
from api.openapi import problems
from api.queries import NoQuery
from billing.payment import NextAction

router = APIRouter(tags=["payments"])


Id = Annotated[str, Field(min_length=1, max_length=64)]


class TokenRequest(StrictInput):
    """Of a payment, or of a saved method that is being set up: one of the two."""

    payment_id: Id | None = None
    payment_method_id: Id | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.payment_id is None) == (self.payment_method_id is None):
            raise ValueError("give either payment_id or payment_method_id")
        return self


class Token(BaseModel):
    """`next_action` is `none` where the payer has nothing to do, or nothing yet."""

    payment_id: str | None
    payment_method_id: str | None
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
    action: NextAction
    if wanted.payment_id is not None:
        action = (await find(request, wanted.payment_id, caller.application)).payment.next_action
    else:
        method_id = wanted.payment_method_id or ""
        action = (await find_method(request, method_id, caller.application)).method.next_action
    answer = Token(
        payment_id=wanted.payment_id,
        payment_method_id=wanted.payment_method_id,
        next_action=action,
    )
    return Response(answer.model_dump_json(), media_type="application/json")
