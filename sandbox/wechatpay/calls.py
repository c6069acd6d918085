"""A call of APIv3 from the wire: headers, the merchant's signature, the body."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request

from sandbox import rsa
from sandbox.core import Keys
from sandbox.wechatpay.errors import Unverified, WechatError, parameter_error
from sandbox.wechatpay.signing import SCHEME, request_message

_WINDOW_SECONDS: Final = 300
_FIELDS: Final = frozenset({"mchid", "nonce_str", "signature", "timestamp", "serial_no"})
_FIELD: Final = re.compile(r'\s*(\w+)="([^"]*)"\s*')


@dataclass(frozen=True)
class Call:
    """A verified request. `body` is its JSON object, empty for a GET."""

    body: dict[str, Any]
    mchid: str | None
    """The `mchid` of its query."""


async def read_call(request: Request, keys: Keys, now: datetime) -> Call:
    """Raises Unverified, or WechatError once the signature was found good."""
    content = await request.body()
    _check_headers(request, keys, has_body=bool(content))
    given = _read_authorization(request.headers.get("Authorization", ""))
    if given["mchid"] != keys["mchid"] or given["serial_no"] != keys["merchant_serial"]:
        raise Unverified(401, "SIGN_ERROR", "商户证书序列号有误，或与商户号不匹配")
    if not given["timestamp"].isdecimal() or (
        abs(now.timestamp() - int(given["timestamp"])) > _WINDOW_SECONDS
    ):
        raise Unverified(
            401, "SIGN_ERROR", "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
        )
    _check_signature(request, content, given, keys)
    body = _read_body(content) if content else {}
    return Call(body, request.query_params.get("mchid"))


def _check_headers(request: Request, keys: Keys, *, has_body: bool) -> None:
    headers = request.headers
    if not headers.get("User-Agent"):
        raise Unverified(400, "PARAM_ERROR", "Http头缺少User-Agent")
    if not re.search(r"application/json|\*/\*", headers.get("Accept", "")):
        raise Unverified(406, "PARAM_ERROR", "Http头缺少Accept: application/json")
    if has_body and not headers.get("Content-Type", "").startswith("application/json"):
        raise Unverified(415, "PARAM_ERROR", "Http头缺少Content-Type: application/json")
    if headers.get("Wechatpay-Serial", keys["public_key_id"]) != keys["public_key_id"]:
        raise Unverified(400, "PARAM_ERROR", "Http头Wechatpay-Serial不是有效的微信支付公钥ID")


def _read_authorization(header: str) -> dict[str, str]:
    scheme, _, rest = header.partition(" ")
    matches = [_FIELD.fullmatch(part) for part in rest.split(",")]
    pairs = [(match[1], match[2]) for match in matches if match]
    given = dict(pairs)
    if scheme != SCHEME or set(given) != _FIELDS or len(pairs) != len(matches) != len(given):
        raise Unverified(401, "SIGN_ERROR", "Http头Authorization值格式错误，请参考签名规则")
    return given


def _check_signature(request: Request, content: bytes, given: dict[str, str], keys: Keys) -> None:
    raw_path: bytes = request.scope["raw_path"]
    if query := request.scope["query_string"]:
        raw_path += b"?" + query
    message = request_message(
        request.method, raw_path, given["timestamp"], given["nonce_str"], content
    )
    if rsa.is_signed(message, given["signature"], keys["merchant_public_key"]):
        return
    raise Unverified(
        401,
        "SIGN_ERROR",
        "签名错误，请检查后再试",
        {
            "field": "signature",
            "issue": "sign not match",
            "location": "authorization",
            "sign_information": {
                "method": request.method,
                "url": raw_path.decode(errors="replace"),
                "sign_message_length": len(message),
                "truncated_sign_message": message[:120].decode(errors="replace"),
            },
        },
    )


def _read_body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content.decode(), object_pairs_hook=_unique)
    except ValueError:
        raise WechatError(400, "PARAM_ERROR", "无效的JSON，请检查请求包体") from None
    if not isinstance(body, dict):
        raise parameter_error("", "是一个JSON对象")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return named
