"""Orders as Alipay wants to be told of them.

Business parameters come from the order alone, so that a repeat under the same number has the very
same ones; only the timestamp of the request differs.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlencode

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from billing.errors import AnswerUntrusted
from billing.money import format_minor
from billing.payment import PaymentMethod
from gateways.alipay.signature import Node, signed
from gateways.clock import BEIJING
from gateways.gateway import Order

CURRENCY: Final = "CNY"
DEFAULT_SIGN_SCENE: Final = "INDUSTRY|DIGITAL_MEDIA"

PRECREATE: Final = "alipay.trade.precreate"
QUERY: Final = "alipay.trade.query"
CLOSE: Final = "alipay.trade.close"

PRODUCTS: Final[Mapping[PaymentMethod, tuple[str, str]]] = {
    PaymentMethod.QR: (PRECREATE, "QR_CODE_OFFLINE"),
    PaymentMethod.PAGE: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    PaymentMethod.WAP: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    PaymentMethod.APP: ("alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
}
"""The API method and product code of each of our methods."""

_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_FORBIDDEN_IN_SUBJECT: Final = str.maketrans("/=&", "／＝＆")
_YUAN: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,2}))?", re.ASCII)


@dataclass(frozen=True)
class Account:
    """One merchant's application at Alipay, in public-key mode."""

    app_id: str
    seller_id: str
    private_key: RSAPrivateKey
    alipay_public_key: RSAPublicKey
    gateway_url: str
    sign_scene: str = DEFAULT_SIGN_SCENE


def subject_of(order: Order) -> str:
    return order.description.translate(_FORBIDDEN_IN_SUBJECT)


def check_number(order: Order, node: Node) -> None:
    """Raises AnswerUntrusted unless the answer is about the order."""
    number = node.text("out_trade_no")
    if number != order.number:
        raise AnswerUntrusted(
            "order_mismatch", f"asked about {order.number}, Alipay's answer is about {number}"
        )


def order_parameters(order: Order) -> dict[str, object]:
    """The business parameters of an order, for any of its methods.

    `time_expire` is absolute: `timeout_express` would count from when the payer arrives, since
    precreate, page and wap create nothing before.
    """
    product_code = PRODUCTS[order.method][1]
    parameters: dict[str, object] = {
        "out_trade_no": order.number,
        "total_amount": format_minor(order.amount_minor, CURRENCY),
        "subject": subject_of(order),
        "product_code": product_code,
        "time_expire": beijing_text(order.expires_at),
    }
    if order.method is PaymentMethod.WAP and order.return_url:
        parameters["quit_url"] = order.return_url
    return parameters


def request_parameters(
    account: Account,
    method: str,
    business: Mapping[str, object],
    now: datetime,
    *,
    notify_url: str | None = None,
    return_url: str | None = None,
) -> dict[str, str]:
    """All parameters of a request with its signature. The one text of `biz_content` in it is both
    signed and sent."""
    parameters = {
        "app_id": account.app_id,
        "method": method,
        "format": "JSON",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": beijing_text(now),
        "version": "1.0",
        "biz_content": json.dumps(
            business, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        ),
    }
    if notify_url:
        parameters["notify_url"] = notify_url
    if return_url:
        parameters["return_url"] = return_url
    return signed(parameters, account.private_key)


def encoded(parameters: Mapping[str, str]) -> str:
    """The parameters as a query, a form or a mobile SDK's order string."""
    return urlencode(parameters, quote_via=quote, safe="")


def beijing_text(instant: datetime) -> str:
    """`yyyy-MM-dd HH:mm:ss` in Beijing, whatever zone this machine is in."""
    return instant.astimezone(BEIJING).strftime(_TIME_FORMAT)


def read_beijing_text(text: str | None) -> datetime | None:
    """The instant, or None where there is none to read."""
    try:
        return datetime.strptime(text or "", _TIME_FORMAT).replace(tzinfo=BEIJING)
    except ValueError:
        return None


def read_yuan(text: str | None) -> int | None:
    """An amount in yuan as integer fen (`"88.8"` is 8880), or None where it is not one."""
    match = _YUAN.fullmatch(text or "")
    return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")) if match else None
