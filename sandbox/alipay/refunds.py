"""Refunds, told apart by (trade, out_request_no), and cancel, which closes or gives all back.

Between two refunds of one trade, three seconds pass; a repeat is none of them.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from sandbox.alipay.calls import beijing_text
from sandbox.alipay.errors import TradeError, invalid_parameter
from sandbox.alipay.terms import read_yuan, yuan
from sandbox.alipay.trades import (
    CLOSED,
    FINISHED,
    NAME,
    ORDER,
    SUCCESS,
    WAITING,
    Trades,
    refunded,
    terms_of,
)
from sandbox.book import Document
from sandbox.core import ControlRefused, Sandbox

PAUSE: Final = timedelta(seconds=3)


class Refunds:
    """Money given back. For use inside a transaction of the book; methods raise TradeError."""

    def __init__(self, sandbox: Sandbox, trades: Trades) -> None:
        self._sandbox = sandbox
        self._trades = trades

    def refund(
        self, order: Document, business: dict[str, Any], *, is_paced: bool = True
    ) -> tuple[Document, bool]:
        """The refund, and whether this very call moved money; a repeat does not. Not `is_paced`,
        without a pause since the last one."""
        amount = read_yuan(business.get("refund_amount"), "refund_amount")
        number = business.get("out_request_no") or order["number"]
        if not isinstance(number, str) or len(number) > 64:
            raise invalid_parameter("out_request_no", "is text of at most 64 characters")
        before = self.find(order, number)
        if before is not None:
            if before["amount"] != amount:
                raise TradeError("DISCORDANT_REPEAT_REQUEST", "同一退款请求号更换了退款金额")
            return before, False
        self._check_refundable(order, amount)
        if is_paced:
            self._check_pause(order)
        return self._give_back(order, number, amount), True

    def cancel(self, order: Document) -> str:
        """What was done: `close` for an unpaid trade, `refund` for a paid one, else nothing."""
        trade = order["trade"]
        if trade["status"] == WAITING:
            self._trades.close(order)
            return "close"
        if trade["status"] == SUCCESS:
            rest = terms_of(order).amount - refunded(order)
            self._give_back(order, f"{order['number']}_cancel"[-64:], rest)
            return "refund"
        if trade["status"] == FINISHED:
            raise _finished()
        return ""

    def age(self, order: Document, by: timedelta) -> datetime:
        """Have the trade be paid, and refunded, that much earlier; when it is paid by now."""
        trade = order["trade"]
        if trade["paid_at"] is None:
            raise ControlRefused(409, f"{order['number']} is not paid")
        for told, name in (
            (trade, "paid_at"),
            (trade, "closed_at"),
            *((refund, "at") for refund in trade["refunds"]),
        ):
            if told[name]:
                told[name] = (datetime.fromisoformat(told[name]) - by).isoformat()
        self._sandbox.book.put(ORDER, order["number"], order)
        paid_at = datetime.fromisoformat(trade["paid_at"])
        self._sandbox.book.age_charge(NAME, order["trade_no"], paid_at)
        return paid_at

    @staticmethod
    def find(order: Document, number: object) -> Document | None:
        for refund in order["trade"]["refunds"]:
            if refund["number"] == number:
                found: Document = refund
                return found
        return None

    @staticmethod
    def _check_refundable(order: Document, amount: int) -> None:
        status = order["trade"]["status"]
        if status == CLOSED:
            raise TradeError("TRADE_HAS_CLOSE", "交易已经关闭")
        if status == FINISHED:
            raise _finished()
        if status != SUCCESS:
            raise TradeError("TRADE_STATUS_ERROR", f"交易状态不合法：{status}")
        if amount > terms_of(order).amount - refunded(order):
            raise TradeError("REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超限")

    def _check_pause(self, order: Document) -> None:
        """Alipay's documents name no code for a refund that comes too soon; it is told like any
        other call of which there are too many."""
        given = (datetime.fromisoformat(refund["at"]) for refund in order["trade"]["refunds"])
        last = max(given, default=None)
        if last is not None and self._sandbox.clock() < last + PAUSE:
            raise TradeError("USER_RATE_LIMIT", "同一笔交易退款过于频繁，请稍后重试")

    def _give_back(self, order: Document, number: str, amount: int) -> Document:
        now = self._sandbox.clock().isoformat()
        refund = {"number": number, "amount": amount, "at": now}
        trade = order["trade"]
        trade["refunds"].append(refund)
        if refunded(order) == terms_of(order).amount:
            trade |= {"status": CLOSED, "closed_at": now}
        self._sandbox.book.put(ORDER, order["number"], order)
        self._sandbox.book.record_refund(NAME, order["trade_no"], amount)
        self._trades.notify(order, refund)
        return refund


def _finished() -> TradeError:
    return TradeError("TRADE_HAS_FINISHED", "交易已完结，不可退款")


def refund_fields(order: Document, refund: Document, moved: bool) -> dict[str, Any]:
    """`refund_fee` is what the trade has given back in all, `send_back_fee` this refund alone."""
    return {
        "buyer_logon_id": order["trade"]["buyer_logon_id"],
        "buyer_user_id": order["trade"]["buyer_id"],
        "fund_change": "Y" if moved else "N",
        "gmt_refund_pay": beijing_text(datetime.fromisoformat(refund["at"])),
        "out_trade_no": order["number"],
        "refund_fee": yuan(refunded(order)),
        "send_back_fee": yuan(refund["amount"] if moved else 0),
        "trade_no": order["trade_no"],
    }


def refund_query_fields(order: Document, refund: Document | None) -> dict[str, Any]:
    """Of a refund that does not exist, nothing at all."""
    if refund is None:
        return {}
    return {
        "gmt_refund_pay": beijing_text(datetime.fromisoformat(refund["at"])),
        "out_request_no": refund["number"],
        "out_trade_no": order["number"],
        "refund_amount": yuan(refund["amount"]),
        "refund_status": "REFUND_SUCCESS",
        "total_amount": yuan(terms_of(order).amount),
        "trade_no": order["trade_no"],
    }
