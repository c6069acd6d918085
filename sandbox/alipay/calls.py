"""A request to gateway.do from the wire: its parameters in any layout, checked and verified."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from sandbox import rsa
from sandbox.alipay.errors import invalid, invalid_parameter, missing
from sandbox.alipay.signing import REQUEST_EXCLUDES, sign_content
from sandbox.beijing import BEIJING
from sandbox.core import Keys

TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"

_REQUIRED: Final = ("app_id", "method", "sign_type", "sign", "timestamp", "version", "charset")
_NAMES: Final = {"sign": "signature", "sign_type": "signature_type"}
"""How sub_codes name them."""

_SERVER_AGE: Final = timedelta(minutes=15)
_BROWSER_AGE: Final = timedelta(hours=24)
"""A signed page waits for its payer; what it sells has a deadline of its own."""


@dataclass(frozen=True)
class Call:
    """A request whose signature is the merchant's."""

    method: str
    business: dict[str, Any]
    notify_url: str | None
    return_url: str | None

    @property
    def node(self) -> str:
        return f"{self.method.replace('.', '_')}_response"


def read_parameters(query: str, form: str) -> dict[str, str]:
    """The parameters of a request, whether in its query, its form or spread over both.

    Raises CallRefused for one that is given twice, or is not percent-encoded UTF-8.
    """
    parameters: dict[str, str] = {}
    try:
        pairs = [
            pair
            for text in (query, form)
            for pair in parse_qsl(text, keep_blank_values=True, errors="strict")
        ]
    except UnicodeDecodeError:
        raise invalid("charset", "the parameters are not UTF-8") from None
    for name, value in pairs:
        if name in parameters:
            raise invalid("parameter", f"{name} is given twice")
        parameters[name] = value
    return parameters


def read_call(
    parameters: Mapping[str, str], keys: Keys, now: datetime, *, from_browser: bool = False
) -> Call:
    """The call, verified as Alipay does. Raises CallRefused; AlipayError once it is verified."""
    for name in _REQUIRED:
        if not parameters.get(name):
            raise missing(_NAMES.get(name, name))
    if parameters["app_id"] != keys["app_id"]:
        raise invalid("app_id", "无效的AppID参数")
    if parameters["sign_type"] != "RSA2":
        raise invalid("signature_type", "this application signs with RSA2")
    if parameters["charset"].lower() != "utf-8":
        raise invalid("charset", "this sandbox speaks utf-8")
    if parameters["version"] != "1.0":
        raise invalid("version", "version is 1.0")
    if parameters.get("format", "JSON").upper() != "JSON":
        raise invalid("format", "format is JSON")
    _check_age(parameters["timestamp"], now, _BROWSER_AGE if from_browser else _SERVER_AGE)
    content = sign_content(parameters, REQUEST_EXCLUDES)
    if not rsa.is_signed(content, parameters["sign"], keys["app_public_key"]):
        raise invalid(
            "signature",
            "验签出错，建议检查签名字符串或签名私钥与应用公钥是否匹配，网关生成的验签字符串为："
            + content.decode(),
        )
    return Call(
        method=parameters["method"],
        business=_read_business(parameters.get("biz_content", "")),
        notify_url=parameters.get("notify_url") or None,
        return_url=parameters.get("return_url") or None,
    )


def beijing_text(instant: datetime) -> str:
    return instant.astimezone(BEIJING).strftime(TIME_FORMAT)


def read_beijing(text: object) -> datetime | None:
    """The instant of `yyyy-MM-dd HH:mm:ss` in Beijing, None where that is not what it is."""
    try:
        read = datetime.strptime(str(text), TIME_FORMAT).replace(tzinfo=BEIJING)
    except ValueError:
        return None
    return read if beijing_text(read) == text else None


def _check_age(text: str, now: datetime, age: timedelta) -> None:
    timestamp = read_beijing(text)
    if timestamp is None:
        raise invalid("timestamp", "timestamp is yyyy-MM-dd HH:mm:ss in Beijing")
    if not -_SERVER_AGE <= now - timestamp <= age:
        raise invalid("timestamp", f"timestamp {text} is too far from {beijing_text(now)}")


def _read_business(text: str) -> dict[str, Any]:
    try:
        business = json.loads(text, object_pairs_hook=_unique)
    except ValueError:
        business = None
    if not isinstance(business, dict):
        raise invalid_parameter("biz_content", "is not a JSON object")
    return business


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return named
