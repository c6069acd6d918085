"""Around every request: its id, one line in the log, security headers, a last net for faults."""

import secrets
import time
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import internal_error, problem_response

HEADER: Final = "Request-Id"
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = structlog.get_logger()


class RequestIds:
    """ASGI middleware that lies outside everything that can fail."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        request.state.request_id = request_id = f"req_{secrets.token_hex(16)}"
        began = time.monotonic()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:
                log.exception("request_failed", method=scope["method"], route=_route(scope))
                if status is not None:
                    raise
                response = problem_response(request, internal_error())
                await response(scope, receive, send_with_headers)
            _log(request, status, time.monotonic() - began)


def _log(request: Request, status: int | None, seconds: float) -> None:
    if request.url.path in _PROBES and status == 200:
        return
    state = request.state
    log.info(
        "request",
        method=request.method,
        route=_route(request.scope),
        status=status,
        code=getattr(state, "problem_code", None),
        application=getattr(state, "application", None),
        key_id=getattr(state, "key_id", None),
        payment_id=getattr(state, "payment_id", None),
        milliseconds=round(seconds * 1000),
    )


def _route(scope: Scope) -> str | None:
    """The route's template: a path as sent may hold what no log should."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path
