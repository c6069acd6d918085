"""What Alipay tells the merchant by itself: notifications and the payer's return."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from sandbox.alipay.calls import beijing_text
from sandbox.alipay.signing import signed_parameters
from sandbox.alipay.terms import Terms, yuan
from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Keys
from sandbox.delivery import Message

RETRY_DELAYS: Final = (1.0, 2.5, 2.5, 15.0, 30.0, 90.0, 225.0)
"""Alipay's own 4 m, 10 m, 10 m, 1 h, 2 h, 6 h and 15 h, 240 times as fast."""


def paid_notification(
    order: Document, terms: Terms, keys: Keys, refund: Document | None
) -> dict[str, str]:
    """The parameters of a trade_status_sync without signature; with `refund`, of that refund.

    `notify_id` stays the same at each try, `notify_time` is set by `signed_message`.
    """
    trade = order["trade"]
    parameters = {
        "notify_type": "trade_status_sync",
        "notify_id": f"{datetime.now(UTC):%Y%m%d}{secrets.token_hex(13)}",
        "app_id": keys["app_id"],
        "auth_app_id": keys["app_id"],
        "charset": "utf-8",
        "version": "1.0",
        "trade_no": order["trade_no"],
        "out_trade_no": order["number"],
        "buyer_id": trade["buyer_id"],
        "buyer_logon_id": trade["buyer_logon_id"],
        "seller_id": keys["seller_id"],
        "seller_email": "seller@sandbox.example",
        "trade_status": trade["status"],
        "total_amount": yuan(terms.amount),
        "receipt_amount": yuan(terms.amount),
        "invoice_amount": yuan(terms.amount),
        "buyer_pay_amount": yuan(terms.amount),
        "point_amount": "0.00",
        "subject": terms.subject,
        "body": terms.body,
        "passback_params": terms.passback_params,
        "gmt_create": _time(trade["created_at"]),
        "gmt_payment": _time(trade["paid_at"]),
        "fund_bill_list": json.dumps(fund_bills(terms), separators=(",", ":")),
    }
    if refund is not None:
        total = sum(int(each["amount"]) for each in trade["refunds"])
        parameters |= {
            "out_biz_no": refund["number"],
            "refund_fee": yuan(total),
            "send_back_fee": yuan(refund["amount"]),
            "gmt_refund": _milliseconds(refund["at"]),
        }
    if trade["closed_at"]:
        parameters["gmt_close"] = _time(trade["closed_at"])
    return parameters


def agreement_notification(
    agreement: Document, notify_type: str, invalid_time: str, keys: Keys
) -> dict[str, str]:
    """The parameters of a dut_user_sign or dut_user_unsign without signature."""
    parameters = {
        "notify_type": notify_type,
        "notify_id": f"{datetime.now(UTC):%Y%m%d}{secrets.token_hex(13)}",
        "app_id": keys["app_id"],
        "auth_app_id": keys["app_id"],
        "charset": "utf-8",
        "version": "1.0",
        "agreement_no": agreement["agreement_no"],
        "external_agreement_no": agreement["number"],
        "alipay_user_id": agreement["user_id"],
        "personal_product_code": agreement["personal_product_code"],
        "sign_scene": agreement["sign_scene"],
    }
    if notify_type == "dut_user_unsign":
        return parameters | {"status": "UNSIGN", "unsign_time": _time(agreement["ended_at"])}
    signed = _time(agreement["signed_at"])
    return parameters | {
        "status": "NORMAL",
        "sign_time": signed,
        "valid_time": signed,
        "invalid_time": invalid_time,
    }


def fund_bills(terms: Terms) -> list[dict[str, str]]:
    return [{"amount": yuan(terms.amount), "fundChannel": "ALIPAYACCOUNT"}]


def signed_message(parameters: dict[str, Any], forged: bool, keys: Keys) -> Message:
    """The notification as it goes out; forged, its signature is of another amount."""
    fresh = parameters | {"notify_time": beijing_text(datetime.now(UTC))}
    signed = signed_parameters(
        fresh | {"total_amount": "0.01", "forged": "1"} if forged else fresh,
        keys["alipay_private_key"],
    )
    form = fresh | {"sign": signed["sign"], "sign_type": signed["sign_type"]}
    return Message(
        {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        urlencode(form).encode(),
    )


def return_address(order: Document, terms: Terms, keys: Keys, now: datetime) -> str | None:
    """Where the payer's browser goes after paying, signed; it does not say whether they paid."""
    if not order["return_url"]:
        return None
    parameters = {
        "app_id": keys["app_id"],
        "auth_app_id": keys["app_id"],
        "charset": "utf-8",
        "method": f"{order['method']}.return",
        "out_trade_no": order["number"],
        "seller_id": keys["seller_id"],
        "timestamp": beijing_text(now),
        "total_amount": yuan(terms.amount),
        "trade_no": order["trade_no"],
        "version": "1.0",
    }
    signed = signed_parameters(parameters, keys["alipay_private_key"])
    joint = "&" if "?" in order["return_url"] else "?"
    return f"{order['return_url']}{joint}{urlencode(signed)}"


def _time(text: str) -> str:
    return beijing_text(datetime.fromisoformat(text))


def _milliseconds(text: str) -> str:
    moment = datetime.fromisoformat(text).astimezone(BEIJING)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
