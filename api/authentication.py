"""Who asks: an application, known by a bearer key with scopes.

Whatever belongs to another application does not exist for the caller (404, never 403).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.context import context
from api.problems import RequestRefused
from storage.keys import Scope

_LONGEST_KEY: Final = 200

bearer = HTTPBearer(
    scheme_name="ApiKey",
    description="A key of an application, made by `everbill keys create`",
    auto_error=False,
)


@dataclass(frozen=True)
class Caller:
    """The application behind a request, and which of its keys was used."""

    application: str
    key_id: str


def requires(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, if the key is good and has the scope.

    Raises RequestRefused: 401 for no, an unknown or a revoked key, 403 for a missing scope.
    """

    async def authenticate(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    ) -> Caller:
        if credentials is None or not 0 < len(credentials.credentials) <= _LONGEST_KEY:
            raise _unknown("send `Authorization: Bearer <key>`")
        async with context(request).database.single() as work:
            key = await work.keys.find(credentials.credentials)
        if key is None:
            raise _unknown("the key is unknown or revoked")
        request.state.application = key.application
        request.state.key_id = key.id
        structlog.contextvars.bind_contextvars(application=key.application, key_id=key.id)
        if scope not in key.scopes:
            raise RequestRefused(
                403,
                "scope_missing",
                f"this needs a key with the scope `{scope}`; this one has"
                f" {', '.join(f'`{held}`' for held in sorted(key.scopes)) or 'none'}",
            )
        return Caller(key.application, key.id)

    return authenticate


Reader = Annotated[Caller, Security(requires(Scope.READ))]
Writer = Annotated[Caller, Security(requires(Scope.WRITE))]
Refunder = Annotated[Caller, Security(requires(Scope.REFUND))]
Operator = Annotated[Caller, Security(requires(Scope.OPERATE))]


def _unknown(detail: str) -> RequestRefused:
    return RequestRefused(
        401, "unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="everbill"'}
    )
