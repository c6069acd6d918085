"""Somebody at Alipay's merchant platform: refunds under its own numbers, and trades it closes."""

from typing import Any

from sandbox.alipay.errors import TradeError
from sandbox.alipay.refunds import Refunds
from sandbox.alipay.terms import yuan
from sandbox.alipay.trades import NAME, Trades, refunded, terms_of
from sandbox.book import Document
from sandbox.core import ControlRefused, Sandbox, Wanted
from sandbox.numbers import digits


class AlipayMerchant:
    """See `sandbox.core.Merchant`. The pause between two refunds is a rule of the API: here there
    is none."""

    def __init__(self, sandbox: Sandbox, trades: Trades) -> None:
        self._sandbox = sandbox
        self._trades = trades
        self._refunds = Refunds(sandbox, trades)

    def refund(self, wanted: Wanted, amount: int | None) -> dict[str, Any]:
        order = self._traded(wanted)
        rest = terms_of(order).amount - refunded(order)
        number = digits(28)
        business = {"out_request_no": number, "refund_amount": yuan(amount or rest)}
        try:
            with self._sandbox.book.transaction():
                self._refunds.refund(order, business, is_paced=False)
        except TradeError as problem:
            raise ControlRefused(409, str(problem)) from None
        return _told(order, number)

    def close(self, wanted: Wanted) -> dict[str, Any]:
        order = self._traded(wanted)
        try:
            with self._sandbox.book.transaction():
                self._trades.close(order)
        except TradeError as problem:
            raise ControlRefused(409, str(problem)) from None
        return _told(order, order["trade_no"])

    def _traded(self, wanted: Wanted) -> Document:
        order = self._trades.of_payment(wanted.reference or "", wanted.attempt)
        if order is None or order["trade"] is None:
            raise ControlRefused(404, f"Alipay has no trade of {wanted.reference!r}")
        return order


def _told(order: Document, number: str) -> dict[str, Any]:
    return {
        "gateway": NAME,
        "reference": order["reference"],
        "number": number,
        "status": order["trade"]["status"],
    }
