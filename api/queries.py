"""Addresses and queries: ids in paths, parameters nobody may misspell."""

import re
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Path, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.convertors import Convertor, register_url_convertor

from api.bodies import refuse_control_characters
from api.orders import USER_ID_PATTERN
from api.problems import RequestRefused
from billing.identifiers import (
    METHOD_ID_PATTERN,
    PAYMENT_ID_PATTERN,
    REFUND_ID_PATTERN,
    SUBSCRIPTION_ID_PATTERN,
)

_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.IGNORECASE
)


class _PaymentSegment(Convertor[str]):
    """Keeps `/{payment_id}` apart from `/create` and its like, whose other methods are 405."""

    regex = "pay_[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _RefundSegment(_PaymentSegment):
    regex = "ref_[^/]+"


register_url_convertor("payment", _PaymentSegment())
register_url_convertor("refund", _RefundSegment())

RefundIdInPath = Annotated[
    str,
    Path(
        description="The refund's id; anything that is none is 404",
        json_schema_extra={"pattern": REFUND_ID_PATTERN},
    ),
]

MethodIdInPath = Annotated[
    str,
    Path(
        description="The saved method's id; anything that is none is 404",
        json_schema_extra={"pattern": METHOD_ID_PATTERN},
    ),
]

SubscriptionIdInPath = Annotated[
    str,
    Path(
        description="The subscription's id; anything that is none is 404",
        json_schema_extra={"pattern": SUBSCRIPTION_ID_PATTERN},
    ),
]

UserIdInPath = Annotated[
    str, Path(pattern=USER_ID_PATTERN, description="The application's own id of its user")
]

PaymentIdInPath = Annotated[
    str,
    Path(
        description="The payment's id; anything that is none is 404",
        json_schema_extra={"pattern": PAYMENT_ID_PATTERN},
    ),
]


class StrictQuery(BaseModel):
    """Query parameters: an unknown one is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _moment(value: object) -> object:
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        raise ValueError(
            "a time such as 2026-01-02T03:04:05Z is expected (`+` in a query is written %2B)"
        )
    return value


def _digits(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("a whole number in plain digits is expected")
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]

Limit = Annotated[int, Field(ge=1, le=100), BeforeValidator(_digits)]
Cursor = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_=.:-]{1,200}$", description="`next_cursor` of the page before, as is"
    ),
]


# Coroutines, though they wait for nothing: a plain function would be run in another thread.
async def distinct_query(request: Request) -> None:
    """Raises RequestRefused (422) for a parameter given twice, or with control characters."""
    names = [name for name, _ in request.query_params.multi_items()]
    refuse_control_characters(dict(request.query_params))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestRefused(
            422, "invalid_request", "a query parameter is given more than once", param=twice
        )


async def no_query(request: Request) -> None:
    """Raises RequestRefused (422) for any query parameter."""
    given = next(iter(request.query_params), None)
    if given is not None:
        raise RequestRefused(
            422, "invalid_request", "there are no query parameters here", param=given
        )


DistinctQuery = Annotated[None, Depends(distinct_query)]
NoQuery = Annotated[None, Depends(no_query)]
