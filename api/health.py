"""Whether the process lives, and whether it can work."""

import asyncio
from datetime import timedelta
from typing import Final, Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from api.context import Context, context
from api.openapi import problems
from api.problems import try_again

router = APIRouter(tags=["health"])

_CHECK_WITHIN: Final = timedelta(seconds=2)

log = structlog.get_logger()


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"


@router.get("/healthz", operation_id="check_alive", responses=problems(500))
async def healthz() -> Alive:
    """The process answers."""
    return Alive()


@router.get("/readyz", operation_id="check_ready", responses=problems(500, 503))
async def readyz(request: Request) -> Ready:
    """PostgreSQL and Temporal are within reach."""
    wired = context(request)
    database, temporal = await asyncio.gather(_reaches_database(wired), _reaches_temporal(wired))
    missing = [name for name, ok in (("PostgreSQL", database), ("Temporal", temporal)) if not ok]
    if missing:
        raise try_again(503, "not_ready", f"out of reach: {' and '.join(missing)}")
    return Ready()


async def _reaches_database(wired: Context) -> bool:
    try:
        async with asyncio.timeout(_CHECK_WITHIN.total_seconds()):
            await wired.database.ping()
    except (OSError, SQLAlchemyError) as problem:
        log.warning("database_out_of_reach", error=type(problem).__name__)
        return False
    return True


async def _reaches_temporal(wired: Context) -> bool:
    try:
        async with asyncio.timeout(_CHECK_WITHIN.total_seconds()):
            return await wired.client.service_client.check_health(timeout=_CHECK_WITHIN)
    except (OSError, RPCError) as problem:
        log.warning("temporal_out_of_reach", error=type(problem).__name__)
        return False
