"""Somebody at WeChat Pay's merchant platform: refunds under its own numbers, and orders closed."""

from typing import Any

from sandbox.book import Document
from sandbox.core import ControlRefused, Sandbox, Wanted
from sandbox.numbers import digits
from sandbox.wechatpay.errors import WechatError
from sandbox.wechatpay.orders import Orders
from sandbox.wechatpay.parameters import NAME
from sandbox.wechatpay.refunds import Refunds


class WechatMerchant:
    """See `sandbox.core.Merchant`. It is told of a refund where it was told of the payment. The
    pause between two refunds is a rule of the API: here there is none."""

    def __init__(self, sandbox: Sandbox, orders: Orders) -> None:
        self._sandbox = sandbox
        self._orders = orders
        self._refunds = Refunds(sandbox, orders)

    def refund(self, wanted: Wanted, amount: int | None) -> dict[str, Any]:
        order = self._order(wanted)
        total, number = order["request"]["amount"]["total"], digits(28)
        body = {
            "out_trade_no": order["number"],
            "out_refund_no": number,
            "notify_url": order["request"]["notify_url"],
            "amount": {
                "refund": amount or total - order["refunded"],
                "total": total,
                "currency": "CNY",
            },
        }
        try:
            with self._sandbox.book.transaction():
                refund = self._refunds.refund(body, is_paced=False)
        except WechatError as problem:
            raise ControlRefused(409, str(problem)) from None
        return _told(order, number, refund["status"])

    def close(self, wanted: Wanted) -> dict[str, Any]:
        order = self._order(wanted)
        try:
            with self._sandbox.book.transaction():
                self._orders.close(order["number"])
        except WechatError as problem:
            raise ControlRefused(409, str(problem)) from None
        return _told(order, order["number"], "CLOSED")

    def _order(self, wanted: Wanted) -> Document:
        order = self._orders.of_payment(wanted.reference or "", wanted.attempt)
        if order is None:
            raise ControlRefused(404, f"WeChat Pay has no order of {wanted.reference!r}")
        return order


def _told(order: Document, number: str, status: str) -> dict[str, Any]:
    return {
        "gateway": NAME,
        "reference": order["reference"],
        "number": number,
        "status": status,
    }
