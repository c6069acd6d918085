"""Orders: NOTPAY becomes SUCCESS or CLOSED; any refund makes REFUND of SUCCESS.

A payer's failed try leaves NOTPAY, and is never told.
"""

import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.numbers import digits, split_number
from sandbox.wechatpay.errors import WechatError, order_missing
from sandbox.wechatpay.notifications import transaction_notification
from sandbox.wechatpay.parameters import H5, JSAPI, NAME, check_order, check_time, read_expiry

ORDER: Final = "wechatpay_order"

NOTPAY: Final = "NOTPAY"
SUCCESS: Final = "SUCCESS"
CLOSED: Final = "CLOSED"
REFUND: Final = "REFUND"
ACCEPT: Final = "ACCEPT"
PAY_FAIL: Final = "PAY_FAIL"
"""The last two are of deductions by contract alone."""

STATE_WORDS: Final = {
    NOTPAY: "订单未支付",
    SUCCESS: "支付成功",
    CLOSED: "订单已关闭",
    REFUND: "转入退款",
    ACCEPT: "已接收，等待扣款",
    PAY_FAIL: "支付失败",
}

_LIFE: Final = timedelta(days=7)
_INSTRUCTIONS_LIFE: Final = {H5: timedelta(minutes=5)}
_DEFAULT_INSTRUCTIONS_LIFE: Final = timedelta(hours=2)


class Orders:
    """The orders of one merchant. Every method that changes something is for use inside a
    transaction of the book; all raise WechatError."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book

    def by_number(self, number: str) -> Document | None:
        order = self._book.get(ORDER, number)
        return as_of(order, self._sandbox.clock()) if order else None

    def by_field(self, **field: str) -> Document | None:
        """By `transaction_id`, `prepay_id` or the `code` of a QR."""
        found = self._book.find(ORDER, **field)
        return as_of(found[0], self._sandbox.clock()) if found else None

    def of_payment(self, reference: str, attempt: int | None) -> Document | None:
        """The newest order of a payment, or that of one attempt."""
        found = [
            order
            for order in self._book.find(ORDER, reference=reference)
            if attempt in (None, order["attempt"])
        ]
        if not found:
            return None
        return as_of(max(found, key=lambda order: int(order["attempt"])), self._sandbox.clock())

    def newest(self, limit: int) -> list[Document]:
        """The orders placed last, newest first, as they stand now."""
        now = self._sandbox.clock()
        return [as_of(order, now) for order in self._book.newest(ORDER, limit)]

    def place(self, trade_type: str, body: dict[str, Any]) -> Document:
        """The order of this number: a new one, or the same again under identical parameters,
        with instructions that are still good."""
        check_order(trade_type, body, self._sandbox.keys[NAME])
        now = self._sandbox.clock()
        order = self.by_number(body["out_trade_no"])
        if order is None:
            check_time(body, now)
            order = _new_order(trade_type, body, now)
        else:
            _check_unpaid(order)
            if (order["trade_type"], order["request"]) != (trade_type, body):
                raise WechatError(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        if not self.is_payable_by_instructions(order):
            order |= {
                "prepay_id": f"wx{now.astimezone(BEIJING):%Y%m%d%H%M%S}{secrets.token_hex(10)}",
                "code": secrets.token_urlsafe(9),
                "issued_at": now.isoformat(),
            }
        self._book.put(ORDER, order["number"], order)
        return order

    def is_payable_by_instructions(self, order: Document) -> bool:
        """Whether what was handed out for the payer has not grown too old."""
        if order["issued_at"] is None:
            return False
        life = _INSTRUCTIONS_LIFE.get(order["trade_type"], _DEFAULT_INSTRUCTIONS_LIFE)
        return self._sandbox.clock() < datetime.fromisoformat(order["issued_at"]) + life

    def pay(self, order: Document, refunds_end: str = SUCCESS) -> None:
        """Take the money and tell the merchant. `refunds_end` is the status that refunds of it
        will come to."""
        _check_unpaid(order)
        now = self._sandbox.clock()
        order |= {
            "state": SUCCESS,
            "transaction_id": f"4200{digits(6)}{now.astimezone(BEIJING):%Y%m%d}{digits(10)}",
            "paid_at": now.isoformat(),
            "refunds_end": refunds_end,
        }
        self._book.put(ORDER, order["number"], order)
        self._book.record_charge(
            NAME,
            order["reference"],
            order["attempt"],
            order["number"],
            order["request"]["amount"]["total"],
            "CNY",
            order["transaction_id"],
            now,
        )
        transaction_notification(self._sandbox, order, paid_fields(order, self._sandbox))

    def close(self, number: str) -> None:
        order = self.by_number(number)
        if order is None:
            raise order_missing(number)
        _check_unpaid(order)
        self._book.put(ORDER, number, order | {"state": CLOSED})


def as_of(order: Document, now: datetime) -> Document:
    """The order as it stands then: unpaid, it closes by itself at its deadline."""
    is_over = now >= datetime.fromisoformat(order["deadline"])
    return order | {"state": CLOSED} if order["state"] == NOTPAY and is_over else order


def order_fields(order: Document, sandbox: Sandbox) -> dict[str, Any]:
    """The order as its query tells it."""
    if order["state"] in (SUCCESS, REFUND):
        return paid_fields(order, sandbox)
    return _common_fields(order, sandbox) | {
        "amount": {
            "currency": "CNY",
            "payer_currency": "CNY",
            "total": order["request"]["amount"]["total"],
        },
        "promotion_detail": [],
    }


def paid_fields(order: Document, sandbox: Sandbox) -> dict[str, Any]:
    """A paid order, as its query and its notification tell it."""
    total = order["request"]["amount"]["total"]
    return _common_fields(order, sandbox) | {
        "transaction_id": order["transaction_id"],
        "trade_type": order["trade_type"],
        "bank_type": "OTHERS",
        "success_time": beijing_rfc3339(order["paid_at"]),
        "payer": {"openid": order["openid"]},
        "amount": {
            "total": total,
            "payer_total": total,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }


def beijing_rfc3339(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(BEIJING).isoformat(timespec="seconds")


def _common_fields(order: Document, sandbox: Sandbox) -> dict[str, Any]:
    keys = sandbox.keys[NAME]
    fields = {
        "appid": keys["appid"],
        "mchid": keys["mchid"],
        "out_trade_no": order["number"],
        "trade_state": order["state"],
        "trade_state_desc": STATE_WORDS[order["state"]],
    }
    attach = order["request"].get("attach")
    return fields | {"attach": attach} if attach else fields


def _new_order(trade_type: str, body: dict[str, Any], now: datetime) -> Document:
    reference, attempt = split_number(body["out_trade_no"])
    payer = body["payer"]["openid"] if trade_type == JSAPI else f"o{secrets.token_urlsafe(20)}"
    return {
        "number": body["out_trade_no"],
        "reference": reference,
        "attempt": attempt,
        "trade_type": trade_type,
        "request": body,
        "state": NOTPAY,
        "created_at": now.isoformat(),
        "deadline": (read_expiry(body) or now + _LIFE).isoformat(),
        "openid": payer,
        "prepay_id": None,
        "code": None,
        "issued_at": None,
        "transaction_id": None,
        "paid_at": None,
        "refunds_end": SUCCESS,
        "refunded": 0,
    }


def _check_unpaid(order: Document) -> None:
    if order["state"] == CLOSED:
        raise WechatError(400, "ORDER_CLOSED", "订单已关闭")
    if order["state"] != NOTPAY:
        raise WechatError(400, "ORDERPAID", "该订单已支付")
