"""Trades and what comes before them: a code nobody has scanned, a page nobody has signed in to.

WAIT_BUYER_PAY becomes TRADE_SUCCESS or TRADE_CLOSED; a full refund makes TRADE_CLOSED of
TRADE_SUCCESS, and 365 days make TRADE_FINISHED of it, which is refunded no more. Precreate, page,
wap and app create nothing: the trade begins when the payer scans or signs in.
"""

import secrets
from datetime import datetime, timedelta
from typing import Final

from sandbox.alipay.calls import Call
from sandbox.alipay.errors import TradeError, invalid_parameter
from sandbox.alipay.notifications import paid_notification
from sandbox.alipay.terms import PRECREATE, Terms, read_terms
from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.numbers import digits, split_number

NAME: Final = "alipay"
ORDER: Final = "alipay_order"

WAITING: Final = "WAIT_BUYER_PAY"
SUCCESS: Final = "TRADE_SUCCESS"
CLOSED: Final = "TRADE_CLOSED"
FINISHED: Final = "TRADE_FINISHED"

REFUNDABLE_FOR: Final = timedelta(days=365)

_CODE_LIFE: Final = timedelta(hours=2)


class Trades:
    """The orders of one seller. Every method that changes something is for use inside a
    transaction of the book; all raise TradeError."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book

    def by_number(self, number: str) -> Document | None:
        order = self._book.get(ORDER, number)
        return as_of(order, self._sandbox.clock()) if order else None

    def by_field(self, **field: str) -> Document | None:
        """By `trade_no`, by the `code` of a QR, or by the `visit` of a cashier page."""
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
        """The orders seen last, newest first, as they stand now."""
        now = self._sandbox.clock()
        return [as_of(order, now) for order in self._book.newest(ORDER, limit)]

    def traded(self, number: str | None, trade_no: str | None) -> Document:
        """The order whose trade exists. Of two numbers, Alipay's own one counts."""
        order = self.by_field(trade_no=trade_no) if trade_no else self.by_number(number or "")
        if order is None or order["trade"] is None:
            raise TradeError("TRADE_NOT_EXIST", "交易不存在")
        return order

    def precreate(self, call: Call) -> Document:
        """Make a code. The same number again fails, whether its terms are the same or not."""
        terms = read_terms(PRECREATE, call.business)
        order = self.by_number(terms.number)
        if order is not None and (order["trade"] is not None or order["code"] is not None):
            self.check_payable(order, terms)
            raise TradeError("APPLY_PC_MERCHANT_CODE_ERROR", "此订单号已申请过二维码")
        now = self._sandbox.clock()
        if terms.is_over(now):
            raise invalid_parameter("time_expire", "is in the past")
        order = self._order(call, terms, now) | {
            "code": f"bax{secrets.token_hex(12)}",
            "code_until": (now + _CODE_LIFE).isoformat(),
        }
        self._book.put(ORDER, terms.number, order)
        return order

    def arrive(self, call: Call) -> Document:
        """A payer comes with a signed page or app order; the trade is for `begin`."""
        terms = read_terms(call.method, call.business)
        now = self._sandbox.clock()
        known = self.by_number(terms.number)
        if known is not None and (known["trade"] is not None or known["code"] is not None):
            self.check_payable(known, terms)
        elif terms.is_over(now):
            raise TradeError("TRADE_HAS_CLOSE", "订单已超过付款截止时间")
        order = self._order(call, terms, now) | {"visit": secrets.token_hex(16)}
        if known is not None:
            kept = ("code", "code_until", "visit", "trade_no", "trade")
            order |= {name: known[name] for name in kept if known[name] is not None}
        self._book.put(ORDER, terms.number, order)
        return order

    def begin(self, order: Document) -> None:
        """The payer scans or signs in: the trade exists from now on."""
        now = self._sandbox.clock()
        terms = terms_of(order)
        if order["trade"] is not None:
            self.check_payable(order, terms)
            return
        if terms.is_over(now):
            raise TradeError("TRADE_HAS_CLOSE", "订单已超过付款截止时间")
        if (
            order["code_until"]
            and order["visit"] is None
            and now >= datetime.fromisoformat(order["code_until"])
        ):
            raise TradeError("TRADE_HAS_CLOSE", "二维码已过期")
        order["trade_no"] = (
            f"{now.astimezone(BEIJING):%Y%m%d}22001{digits(15)}"  # as long as Alipay's own
        )
        order["trade"] = {
            "status": WAITING,
            "created_at": now.isoformat(),
            "deadline": terms.deadline(now).isoformat(),
            "paid_at": None,
            "closed_at": None,
            "buyer_id": f"2088{digits(12)}",
            "buyer_logon_id": f"159****{digits(4)}",
            "refunds": [],
        }
        self._book.put(ORDER, order["number"], order)

    def pay(self, order: Document) -> None:
        """Take the money and tell the merchant."""
        self.begin(order)
        terms, trade, now = terms_of(order), order["trade"], self._sandbox.clock()
        trade |= {"status": SUCCESS, "paid_at": now.isoformat()}
        self._book.put(ORDER, order["number"], order)
        self._book.record_charge(
            NAME,
            order["reference"],
            order["attempt"],
            order["number"],
            terms.amount,
            "CNY",
            order["trade_no"],
            now,
        )
        self.notify(order)

    def notify(self, order: Document, refund: Document | None = None) -> None:
        """Tell the order's notify_url how the trade stands; without one, nobody."""
        if order["notify_url"]:
            keys = self._sandbox.keys[NAME]
            self._sandbox.delivery.enqueue(
                NAME,
                url=order["notify_url"],
                number=order["number"],
                reference=order["reference"],
                event_type=order["trade"]["status"],
                payload=paid_notification(order, terms_of(order), keys, refund),
            )

    def withhold(self, call: Call, terms: Terms, agreement: Document) -> Document:
        """A trade that is to be charged by agreement; it is unpaid so far."""
        order = self._order(call, terms, self._sandbox.clock())
        self.begin(order)
        order["trade"]["buyer_id"] = agreement["user_id"]
        self._book.put(ORDER, terms.number, order)
        return order

    def close(self, order: Document) -> None:
        """End an unpaid trade; nobody is notified."""
        trade = order["trade"]
        if trade["status"] != WAITING:
            raise TradeError("TRADE_STATUS_ERROR", f"交易状态不合法：{trade['status']}")
        trade |= {"status": CLOSED, "closed_at": self._sandbox.clock().isoformat()}
        self._book.put(ORDER, order["number"], order)

    def _order(self, call: Call, terms: Terms, now: datetime) -> Document:
        reference, attempt = split_number(terms.number)
        return {
            "number": terms.number,
            "reference": reference,
            "attempt": attempt,
            "method": call.method,
            "business": call.business,
            "notify_url": call.notify_url,
            "return_url": call.return_url,
            "seen_at": now.isoformat(),
            "code": None,
            "code_until": None,
            "visit": None,
            "trade_no": None,
            "trade": None,
        }

    def check_payable(self, order: Document, terms: Terms) -> None:
        """The number is in use: only the same terms may go on, and only while unpaid."""
        if terms.differs_from(terms_of(order)):
            raise TradeError("CONTEXT_INCONSISTENT", "交易信息被篡改：与该订单号首次请求不一致")
        status = order["trade"]["status"] if order["trade"] else WAITING
        if status in (SUCCESS, FINISHED):
            raise TradeError("TRADE_HAS_SUCCESS", "交易已被支付")
        if status == CLOSED:
            raise TradeError("TRADE_HAS_CLOSE", "交易已经关闭")


def as_of(order: Document, now: datetime) -> Document:
    """The order as it stands then: an unpaid trade closes by itself at its deadline, and a paid
    one finishes once it can be refunded no more."""
    trade = order["trade"]
    if trade is None:
        return order
    if trade["status"] == SUCCESS:
        is_over = now > datetime.fromisoformat(trade["paid_at"]) + REFUNDABLE_FOR
        return order | {"trade": trade | {"status": FINISHED}} if is_over else order
    if trade["status"] != WAITING:
        return order
    if now < datetime.fromisoformat(trade["deadline"]):
        return order
    return order | {"trade": trade | {"status": CLOSED, "closed_at": trade["deadline"]}}


def terms_of(order: Document) -> Terms:
    return read_terms(order["method"], order["business"])


def refunded(order: Document) -> int:
    """The fen given back so far."""
    return sum(int(refund["amount"]) for refund in order["trade"]["refunds"])
