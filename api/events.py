"""Changes of payments, in order."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from api.authentication import Reader
from api.context import context
from api.feed import LONGEST_WAIT_SECONDS
from api.openapi import problems
from api.queries import Cursor, DistinctQuery, Limit, StrictQuery

router = APIRouter(tags=["events"])


class EventsQuery(StrictQuery):
    after: Cursor | None = Field(
        default=None, description="`next_cursor` of the answer before; from the first event if none"
    )
    limit: Limit = 20
    wait_seconds: Annotated[int, Field(ge=0, le=LONGEST_WAIT_SECONDS)] = Field(
        default=LONGEST_WAIT_SECONDS, description="How long to wait for the first event"
    )


class Event(BaseModel):
    """One change of one object. `sequence` counts the object's changes from 1; `cursor` is its
    place here, and as `after` asks for what followed."""

    id: str
    object_id: str
    sequence: int
    type: str
    data: dict[str, Any]
    created_at: datetime
    cursor: str


class EventList(BaseModel):
    """Oldest first. `next_cursor` is the next request's `after`, also where `data` is empty."""

    data: list[Event]
    has_more: bool
    next_cursor: str | None


@router.get(
    "/events",
    response_model=EventList,
    operation_id="list_events",
    responses=problems(401, 403, 422, 500, 503),
)
async def events(
    request: Request, caller: Reader, _: DistinctQuery, wanted: Annotated[EventsQuery, Query()]
) -> Response:
    """What has changed since `after`, waiting for the next change where there is none yet."""
    page = await context(request).feed.after(
        caller.application,
        wanted.after,
        wanted.limit,
        wait_seconds=wanted.wait_seconds,
        is_gone=request.is_disconnected,
    )
    answer = EventList(
        data=[Event.model_validate(event, from_attributes=True) for event in page.data],
        has_more=page.has_more,
        next_cursor=page.next_cursor,
    )
    return Response(answer.model_dump_json(), media_type="application/json")
