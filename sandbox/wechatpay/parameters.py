"""The body of an order, checked as WeChat Pay checks it."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sandbox.core import Keys
from sandbox.wechatpay.errors import WechatError, parameter_error

NAME: Final = "wechatpay"

NATIVE: Final = "NATIVE"
JSAPI: Final = "JSAPI"
H5: Final = "MWEB"
APP: Final = "APP"

TRADE_TYPES: Final = {"native": NATIVE, "jsapi": JSAPI, "h5": H5, "app": APP}
"""By the last segment of the path."""

_REQUIRED: Final = frozenset(
    {"appid", "mchid", "description", "out_trade_no", "notify_url", "amount"}
)
_KNOWN: Final = _REQUIRED | {
    "time_expire",
    "attach",
    "goods_tag",
    "support_fapiao",
    "detail",
    "scene_info",
    "settle_info",
}
_LENGTHS: Final = {"description": 127, "attach": 128, "notify_url": 255, "goods_tag": 32}
_NUMBER: Final = re.compile(r"[0-9A-Za-z_\-|*]{6,32}", re.ASCII)
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII
)
_URL: Final = re.compile(r"https?://[^\s?#]+", re.ASCII)
_LONGEST: Final = timedelta(days=7)
_H5_TYPES: Final = ("iOS", "Android", "Wap")


def check_order(trade_type: str, body: Mapping[str, Any], keys: Keys) -> None:
    """Whether this body may place an order of that type. Raises WechatError."""
    known = _KNOWN | {"payer"} if trade_type == JSAPI else _KNOWN
    check_names(body, _REQUIRED, known)
    if (body["appid"], body["mchid"]) != (keys["appid"], keys["mchid"]):
        raise WechatError(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配，请检查后再试")
    for name, limit in _LENGTHS.items():
        if name in body:
            check_text(body, name, limit)
    check_number(body["out_trade_no"])
    if not _URL.fullmatch(body["notify_url"]):
        raise parameter_error("notify_url", "is an address without a query")
    check_amount(body["amount"])
    if "time_expire" in body:
        read_expiry(body)
    if trade_type == JSAPI:
        openid = _object(body, "payer").get("openid")
        if not isinstance(openid, str) or not 1 <= len(openid) <= 128:
            raise parameter_error("payer.openid", "is required")
    if trade_type == H5:
        _check_h5(_object(body, "scene_info"))


def check_time(body: Mapping[str, Any], now: datetime) -> None:
    """Whether a new order may end when this body says. Raises WechatError."""
    expiry = read_expiry(body)
    if expiry is not None and not now < expiry <= now + _LONGEST:
        raise parameter_error("time_expire", "is in the future, at most 7 days away")


def read_expiry(body: Mapping[str, Any]) -> datetime | None:
    text = body.get("time_expire")
    if text is None:
        return None
    try:
        if isinstance(text, str) and _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise parameter_error("time_expire", "is RFC 3339 with seconds and an offset")


def check_number(number: object) -> None:
    if not isinstance(number, str) or not _NUMBER.fullmatch(number):
        raise parameter_error("out_trade_no", "is 6 to 32 of 0-9 A-Z a-z _ - | *")


def check_amount(amount: object) -> None:
    if not isinstance(amount, dict):
        raise parameter_error("amount", "is an object")
    check_names(amount, {"total"}, {"total", "currency"}, "amount.")
    if type(amount["total"]) is not int or not 1 <= amount["total"] <= 10_000_000_000:
        raise parameter_error("amount.total", "is a whole number of fen, at least 1")
    if amount.get("currency", "CNY") != "CNY":
        raise parameter_error("amount.currency", "is CNY")


def check_names(
    given: Mapping[str, Any],
    required: frozenset[str] | set[str],
    known: frozenset[str] | set[str],
    place: str = "",
) -> None:
    if missing := sorted(required - set(given)):
        raise parameter_error(f"{place}{missing[0]}", "is required")
    if unknown := sorted(set(given) - known):
        raise parameter_error(f"{place}{unknown[0]}", "is not known here")


def check_text(given: Mapping[str, Any], name: str, limit: int) -> None:
    """Lengths are in characters."""
    value = given[name]
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise parameter_error(name, f"is text of 1 to {limit} characters")


def _check_h5(scene: dict[str, Any]) -> None:
    if not isinstance(scene.get("payer_client_ip"), str):
        raise parameter_error("scene_info.payer_client_ip", "is required")
    info = scene.get("h5_info")
    if not isinstance(info, dict) or info.get("type") not in _H5_TYPES:
        raise parameter_error("scene_info.h5_info.type", f"is one of {', '.join(_H5_TYPES)}")


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise parameter_error(name, "is required")
    return value
