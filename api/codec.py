"""The codec server of Temporal's UI: it shows operators what is stored encrypted.

It lies under a path that only the embedded stack and its UI know, answers the UI's own origin,
and only for our namespace. https://docs.temporal.io/codec-server gives the protocol.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from api.bodies import parse_json, read_body
from api.context import context
from api.openapi import problems
from api.problems import RequestRefused
from billing.errors import SettingError
from runtime.codec import EncryptionCodec

router = APIRouter(prefix="/codec/{secret}", tags=["codec"])

_LIMIT_BYTES: Final = 8 * 1024 * 1024
_PREFLIGHT_SECONDS: Final = 600

Secret = Annotated[str, Path(description="The last part of EVERBILL_CODEC_PATH")]
Code = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]

_PAYLOADS: Final[dict[str, Any]] = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"payloads": {"type": "array", "items": {"type": "object"}}},
        }
    }
}
_DOCUMENTED: Final[dict[str, Any]] = {
    "response_class": Response,
    "responses": {
        200: {"description": "The payloads", "content": _PAYLOADS},
        **problems(400, 403, 404, 413, 500),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": _PAYLOADS},
        "parameters": [
            {"name": "X-Namespace", "in": "header", "required": True, "schema": {"type": "string"}}
        ],
    },
}
_PREFLIGHT: Final[dict[str, Any]] = {
    "status_code": 204,
    "response_class": Response,
    "responses": problems(403, 404, 500),
}


@router.post("/encode", operation_id="codec_encode", **_DOCUMENTED)
async def encode(request: Request, secret: Secret) -> Response:
    """Encrypt what an operator types into the UI."""
    return await _translate(request, secret, EncryptionCodec(context(request).cipher).encode)


@router.post("/decode", operation_id="codec_decode", **_DOCUMENTED)
async def decode(request: Request, secret: Secret) -> Response:
    """Decrypt what the UI shows."""
    return await _translate(request, secret, EncryptionCodec(context(request).cipher).decode)


@router.options("/encode", operation_id="codec_encode_preflight", **_PREFLIGHT)
async def encode_preflight(request: Request, secret: Secret) -> Response:
    """The browser's question whether the UI may."""
    return _preflight(request, secret)


@router.options("/decode", operation_id="codec_decode_preflight", **_PREFLIGHT)
async def decode_preflight(request: Request, secret: Secret) -> Response:
    """The browser's question whether the UI may."""
    return _preflight(request, secret)


async def _translate(request: Request, secret: str, code: Code) -> Response:
    _check_secret(request, secret)
    cors = _cors(request)
    namespace = context(request).client.namespace
    if request.headers.get("x-namespace") != namespace:
        raise RequestRefused(
            403, "namespace_refused", "X-Namespace does not name our namespace", param="X-Namespace"
        )
    document = parse_json(await read_body(request, _LIMIT_BYTES))
    try:
        if not isinstance(document, dict):
            raise json_format.ParseError("not an object")
        payloads = json_format.ParseDict(document, Payloads())
    except json_format.ParseError:
        raise RequestRefused(400, "malformed_json", "the body is no JSON of Payloads") from None
    try:
        coded = await code(payloads.payloads)
    except SettingError as problem:
        raise RequestRefused(400, "payload_refused", str(problem)) from None
    return Response(
        json_format.MessageToJson(Payloads(payloads=coded)),
        headers=cors,
        media_type="application/json",
    )


def _preflight(request: Request, secret: str) -> Response:
    _check_secret(request, secret)
    headers = _cors(request) | {
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "content-type,x-namespace,authorization",
        "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)


def _check_secret(request: Request, secret: str) -> None:
    """Raises RequestRefused (404): a wrong path tells nothing of the right one."""
    known = context(request).settings.codec_secret
    if known is None or not hmac.compare_digest(secret.encode(), known.encode()):
        raise RequestRefused(404, "not_found", "there is nothing at this address")


def _cors(request: Request) -> dict[str, str]:
    """Raises RequestRefused (403) for a page that is not Temporal's UI."""
    origin = request.headers.get("origin")
    if origin is None:
        return {"Vary": "Origin"}
    if origin not in context(request).settings.ui_origins:
        raise RequestRefused(
            403, "origin_refused", "this page's origin is not that of Temporal's UI"
        )
    return {
        "Access-Control-Allow-Origin": origin,
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }
