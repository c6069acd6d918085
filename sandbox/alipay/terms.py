"""The terms of a trade as biz_content states them, checked as Alipay checks them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sandbox.alipay.calls import read_beijing
from sandbox.alipay.errors import TradeError, invalid_parameter
from sandbox.beijing import BEIJING

PRECREATE: Final = "alipay.trade.precreate"
PAGE: Final = "alipay.trade.page.pay"
WAP: Final = "alipay.trade.wap.pay"
APP: Final = "alipay.trade.app.pay"
PAY: Final = "alipay.trade.pay"

_PRODUCTS: Final = {
    PRECREATE: {"QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT"},
    PAGE: {"FAST_INSTANT_TRADE_PAY"},
    WAP: {"QUICK_WAP_WAY"},
    APP: {"QUICK_MSECURITY_PAY"},
    PAY: {"CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING"},
}
_KNOWN: Final = frozenset(
    """out_trade_no total_amount subject product_code body timeout_express time_expire
    passback_params goods_detail extend_params business_params enable_pay_channels
    disable_pay_channels merchant_order_no store_id query_options settle_info royalty_info
    promo_params""".split()
)
_KNOWN_BY_METHOD: Final = {
    PRECREATE: _KNOWN | {"seller_id", "qr_code_timeout_express", "operator_id", "terminal_id"},
    PAGE: _KNOWN | {"qr_pay_mode", "qrcode_width", "integration_type", "request_from_url"},
    WAP: _KNOWN | {"seller_id", "quit_url", "auth_token"},
    APP: _KNOWN | {"seller_id"},
    PAY: _KNOWN | {"seller_id", "agreement_params"},
}

_NUMBER: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_YUAN: Final = re.compile(r"\d{1,9}(\.\d{1,2})?", re.ASCII)
_TIMEOUT: Final = re.compile(r"([1-9]\d{0,4})([mhd])", re.ASCII)
_UNITS: Final = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_LONGEST: Final = timedelta(days=15)
_LARGEST_FEN: Final = 10_000_000_000


@dataclass(frozen=True)
class Terms:
    """What is sold, for how much (fen), and until when: `time_expire` is absolute, `timeout`
    counts from the trade's creation."""

    number: str
    amount: int
    subject: str
    body: str
    passback_params: str
    quit_url: str | None
    time_expire: datetime | None
    timeout: str | None

    def is_over(self, now: datetime) -> bool:
        return self.time_expire is not None and now >= self.time_expire

    def deadline(self, created_at: datetime) -> datetime:
        """The instant at which a trade made then closes if unpaid."""
        if self.time_expire is not None:
            return self.time_expire
        if self.timeout == "1c":
            tomorrow = created_at.astimezone(BEIJING) + timedelta(days=1)
            return tomorrow.replace(hour=0, minute=0, second=0, microsecond=0)
        return created_at + (_read_timeout(self.timeout) if self.timeout else _LONGEST)

    def differs_from(self, other: "Terms") -> bool:
        """Whether the same number would sell another thing or for another price."""
        return (self.amount, self.subject) != (other.amount, other.subject)


def read_terms(method: str, business: Mapping[str, Any]) -> Terms:
    """Raises TradeError (INVALID_PARAMETER and its kind)."""
    if unknown := sorted(set(business) - _KNOWN_BY_METHOD[method]):
        raise invalid_parameter(unknown[0], f"is no parameter of {method}")
    if business.get("product_code") not in _PRODUCTS[method]:
        expected = " or ".join(sorted(_PRODUCTS[method]))
        raise invalid_parameter("product_code", f"of {method} is {expected}")
    subject = _text(business, "subject", 256, required=True)
    if forbidden := sorted(set(subject) & set("/=&")):
        raise invalid_parameter("subject", f"holds {' '.join(forbidden)}")
    expire, timeout = business.get("time_expire"), business.get("timeout_express")
    time_expire = read_beijing(expire)
    if expire is not None and time_expire is None:
        raise invalid_parameter("time_expire", "is yyyy-MM-dd HH:mm:ss in Beijing")
    if timeout is not None and timeout != "1c":
        _read_timeout(timeout)
    return Terms(
        number=read_number(business),
        amount=read_yuan(business.get("total_amount"), "total_amount"),
        subject=subject,
        body=_text(business, "body", 128),
        passback_params=_text(business, "passback_params", 512),
        quit_url=business.get("quit_url"),
        time_expire=time_expire,
        timeout=timeout,
    )


def read_number(business: Mapping[str, Any], name: str = "out_trade_no") -> str:
    number = business.get(name)
    if not isinstance(number, str) or not _NUMBER.fullmatch(number):
        raise invalid_parameter(name, "is 1 to 64 letters, digits and underscores")
    return number


def read_yuan(value: object, name: str) -> int:
    """An amount in yuan as text with at most two decimals; in fen. Raises TradeError."""
    if not isinstance(value, str) or not _YUAN.fullmatch(value):
        raise invalid_parameter(name, "is yuan as a string with at most two decimals")
    fen = int(Decimal(value) * 100)
    if not 1 <= fen <= _LARGEST_FEN:
        raise TradeError("TOTAL_FEE_EXCEED", f"{name} is 0.01 to 100000000")
    return fen


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def _read_timeout(value: object) -> timedelta:
    match = _TIMEOUT.fullmatch(value) if isinstance(value, str) else None
    span = int(match[1]) * _UNITS[match[2]] if match else timedelta.max
    if span > _LONGEST:
        raise invalid_parameter("timeout_express", "is 1m to 15d, or 1c")
    return span


def _text(business: Mapping[str, Any], name: str, limit: int, *, required: bool = False) -> str:
    value = business.get(name, "")
    if not isinstance(value, str) or len(value) > limit or (required and not value):
        raise invalid_parameter(name, f"is text of at most {limit} characters")
    return value
