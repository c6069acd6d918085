"""Refunds, told apart by out_refund_no. Accepted as PROCESSING, ended at once, told when ended.

An order is refunded for 365 days after its payment, by 50 refunds at the most, a minute between
any two. A repeat of one that was accepted is none of them.

SUCCESS has given the money back. ABNORMAL keeps it for the payer until somebody repairs the refund
at the merchant platform. CLOSED leaves it to the merchant, and a new number may ask again.
"""

import re
from datetime import datetime, timedelta
from typing import Any, Final

from sandbox.book import Document
from sandbox.core import ControlRefused, Sandbox
from sandbox.numbers import digits, split_number
from sandbox.wechatpay.errors import WechatError, order_missing, parameter_error
from sandbox.wechatpay.notifications import refund_notification
from sandbox.wechatpay.orders import ORDER, REFUND, SUCCESS, Orders, beijing_rfc3339
from sandbox.wechatpay.parameters import NAME, check_names, check_text

REFUND_KIND: Final = "wechatpay_refund"

PROCESSING: Final = "PROCESSING"
ABNORMAL: Final = "ABNORMAL"
CLOSED: Final = "CLOSED"
REFUND_STATUSES: Final = (SUCCESS, ABNORMAL, CLOSED)
"""How a refund can end."""

REFUNDABLE_FOR: Final = timedelta(days=365)
MOST_REFUNDS: Final = 50
PAUSE: Final = timedelta(minutes=1)

_KNOWN: Final = frozenset(
    """transaction_id out_trade_no out_refund_no reason notify_url amount funds_account
    goods_detail""".split()
)
_NUMBER: Final = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}", re.ASCII)


class Refunds:
    """Money given back; methods raise WechatError."""

    def __init__(self, sandbox: Sandbox, orders: Orders) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._orders = orders

    def refund(self, body: dict[str, Any], *, is_paced: bool = True) -> dict[str, Any]:
        """Give back, or tell of the refund that has this number; not `is_paced`, without a pause
        since the last one. Inside a transaction."""
        _check(body)
        before = self._book.get(REFUND_KIND, body["out_refund_no"])
        if before is not None:
            if before["request"] != body:
                raise WechatError(400, "INVALID_REQUEST", "同一退款单号的参数与首次请求不一致")
            return _fields(before, self._order(before["request"]), before["status"])
        order = self._order(body)
        _check_refundable(order, body["amount"])
        self._check_limits(order, is_paced=is_paced)
        refund = {
            "request": body,
            "reference": split_number(order["number"])[0],
            "refund_id": f"503{digits(26)}",
            "at": self._sandbox.clock().isoformat(),
        }
        order["state"] = REFUND
        if order["refunds_end"] != CLOSED:
            order["refunded"] += body["amount"]["refund"]
        self._book.put(ORDER, order["number"], order)
        self._end(refund, order, order["refunds_end"])
        return _fields(refund, order, PROCESSING)

    def repair(self, number: str) -> dict[str, Any]:
        """Give the money of an ABNORMAL refund back after all. Inside a transaction."""
        refund = self._book.get(REFUND_KIND, number)
        if refund is None or refund["status"] != ABNORMAL:
            raise ControlRefused(409, f"no refund {number} waits to be repaired")
        order = self._order(refund["request"])
        self._end(refund, order, SUCCESS)
        return _fields(refund, order, SUCCESS)

    def age(self, order: Document, by: timedelta) -> datetime:
        """Have the order be paid, and refunded, that much earlier; when it is paid by now. Inside a
        transaction."""
        if order["paid_at"] is None:
            raise ControlRefused(409, f"{order['number']} is not paid")
        for refund in self._of(order):
            earlier = {name: _earlier(refund[name], by) for name in ("at", "ended_at")}
            self._book.put(REFUND_KIND, refund["request"]["out_refund_no"], refund | earlier)
        order |= {"paid_at": _earlier(order["paid_at"], by)}
        self._book.put(ORDER, order["number"], order)
        paid_at = datetime.fromisoformat(order["paid_at"])
        self._book.age_charge(NAME, order["transaction_id"], paid_at)
        return paid_at

    def find(self, number: str) -> dict[str, Any]:
        refund = self._book.get(REFUND_KIND, number)
        if refund is None:
            raise WechatError(404, "RESOURCE_NOT_EXISTS", f"退款单不存在：{number}")
        return _fields(refund, self._order(refund["request"]), refund["status"])

    def _end(self, refund: Document, order: Document, status: str) -> None:
        """Keep what became of it, and tell the merchant."""
        request = refund["request"]
        refund |= {"status": status, "ended_at": self._sandbox.clock().isoformat()}
        self._book.put(REFUND_KIND, request["out_refund_no"], refund)
        if status == SUCCESS:
            self._book.record_refund(NAME, order["transaction_id"], request["amount"]["refund"])
        if "notify_url" in request:
            told = _notification_fields(refund, order, self._sandbox)
            refund_notification(self._sandbox, order, request["notify_url"], told)

    def _check_limits(self, order: Document, *, is_paced: bool) -> None:
        """WeChat Pay's documents name no code for one refund too many; it is told like any other
        rule of the business that a well-formed request breaks."""
        now = self._sandbox.clock()
        if now > datetime.fromisoformat(order["paid_at"]) + REFUNDABLE_FOR:
            raise WechatError(400, "TRADE_OVERDUE", "订单已经超过可退款的最大期限")
        accepted = self._of(order)
        if sum(refund["status"] != CLOSED for refund in accepted) >= MOST_REFUNDS:
            raise WechatError(400, "INVALID_REQUEST", f"订单部分退款次数超过{MOST_REFUNDS}次")
        last = max((datetime.fromisoformat(refund["at"]) for refund in accepted), default=None)
        if is_paced and last is not None and now < last + PAUSE:
            raise WechatError(429, "FREQUENCY_LIMITED", "同一笔订单多次退款需间隔1分钟")

    def _of(self, order: Document) -> list[Document]:
        """The refunds of one order, in the order in which they were accepted."""
        number, transaction_id = order["number"], order["transaction_id"]
        return [
            refund
            for refund in self._book.find(REFUND_KIND, reference=order["reference"])
            if refund["request"].get("out_trade_no", number) == number
            and refund["request"].get("transaction_id", transaction_id) == transaction_id
        ]

    def _order(self, request: dict[str, Any]) -> Document:
        transaction_id = request.get("transaction_id")
        number = transaction_id or request["out_trade_no"]
        order = (
            self._orders.by_field(transaction_id=number)
            if transaction_id
            else self._orders.by_number(number)
        )
        if order is None:
            raise order_missing(number)
        return order


def _check(body: dict[str, Any]) -> None:
    check_names(body, {"out_refund_no", "amount"}, _KNOWN)
    if ("transaction_id" in body) == ("out_trade_no" in body):
        raise parameter_error("out_trade_no", "or transaction_id is given, and one of them")
    for name in ("transaction_id", "out_trade_no", "reason", "notify_url"):
        if name in body:
            check_text(body, name, 80 if name == "reason" else 256)
    if not isinstance(body["out_refund_no"], str) or not _NUMBER.fullmatch(body["out_refund_no"]):
        raise parameter_error("out_refund_no", "is 1 to 64 of 0-9 A-Z a-z _ - | * @")
    amount = body["amount"]
    if not isinstance(amount, dict):
        raise parameter_error("amount", "is an object")
    check_names(amount, {"refund", "total", "currency"}, {"refund", "total", "currency", "from"})
    for name in ("refund", "total"):
        if type(amount[name]) is not int or amount[name] < 1:
            raise parameter_error(f"amount.{name}", "is a whole number of fen, at least 1")
    if amount["currency"] != "CNY":
        raise parameter_error("amount.currency", "is CNY")


def _check_refundable(order: Document, amount: dict[str, Any]) -> None:
    if order["state"] not in (SUCCESS, REFUND):
        raise WechatError(400, "INVALID_REQUEST", "订单未支付，不能退款")
    if amount["total"] != order["request"]["amount"]["total"]:
        raise WechatError(400, "REFUND_FEE_MISMATCH", "订单金额与首次请求不一致")
    if amount["refund"] > amount["total"] - order["refunded"]:
        raise WechatError(400, "INVALID_REQUEST", "退款金额大于可退金额")


def _earlier(text: str, by: timedelta) -> str:
    return (datetime.fromisoformat(text) - by).isoformat()


def _fields(refund: Document, order: Document, status: str) -> dict[str, Any]:
    amount = refund["request"]["amount"]
    fields = {
        "refund_id": refund["refund_id"],
        "out_refund_no": refund["request"]["out_refund_no"],
        "transaction_id": order["transaction_id"],
        "out_trade_no": order["number"],
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": beijing_rfc3339(refund["at"]),
        "status": status,
        "funds_account": "AVAILABLE",
        "amount": {
            "total": amount["total"],
            "refund": amount["refund"],
            "payer_total": amount["total"],
            "payer_refund": amount["refund"],
            "settlement_total": amount["total"],
            "settlement_refund": amount["refund"],
            "discount_refund": 0,
            "currency": "CNY",
        },
    }
    if status == SUCCESS:
        fields["success_time"] = beijing_rfc3339(refund["ended_at"])
    return fields


def _notification_fields(refund: Document, order: Document, sandbox: Sandbox) -> dict[str, Any]:
    """Here the status is called refund_status, and there is no channel."""
    told = _fields(refund, order, refund["status"])
    names = (
        "out_trade_no",
        "transaction_id",
        "out_refund_no",
        "refund_id",
        "success_time",
        "user_received_account",
    )
    amount = {
        name: told["amount"][name] for name in ("total", "refund", "payer_total", "payer_refund")
    }
    return {
        "mchid": sandbox.keys[NAME]["mchid"],
        **{name: told[name] for name in names if name in told},
        "refund_status": refund["status"],
        "amount": amount,
    }
