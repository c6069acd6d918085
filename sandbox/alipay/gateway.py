"""gateway.do: what each method does, and the signed answer to it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from sandbox.alipay.agreements import Agreements
from sandbox.alipay.calls import Call, beijing_text, read_call, read_parameters
from sandbox.alipay.errors import AlipayError, CallRefused, TradeError, invalid
from sandbox.alipay.notifications import fund_bills
from sandbox.alipay.refunds import Refunds, refund_fields, refund_query_fields
from sandbox.alipay.signing import answer_body
from sandbox.alipay.terms import PAY, PRECREATE, read_number, yuan
from sandbox.alipay.trades import NAME, Trades, terms_of
from sandbox.alipay.withholding import Withholding, pay_fields
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.faults import Fault, faulted
from sandbox.numbers import split_number

Fields = dict[str, Any]

_OPERATIONS: Final = {
    PRECREATE: "open",
    "alipay.trade.query": "query",
    "alipay.trade.close": "close",
    "alipay.trade.cancel": "cancel",
    "alipay.trade.refund": "refund",
    "alipay.trade.fastpay.refund.query": "refund_query",
    PAY: "open",
    "alipay.user.agreement.query": "mandate",
    "alipay.user.agreement.unsign": "mandate",
    "alipay.user.agreement.executionplan.modify": "mandate",
}

_AMOUNTS: Final = (
    "total_amount",
    "receipt_amount",
    "buyer_pay_amount",
    "refund_amount",
    "refund_fee",
)


class Gateway:
    """The calls that a merchant's server makes."""

    def __init__(self, sandbox: Sandbox, trades: Trades) -> None:
        self._sandbox = sandbox
        self._trades = trades
        self._refunds = Refunds(sandbox, trades)
        self._agreements = Agreements(sandbox)
        self._withholding = Withholding(sandbox, trades, self._agreements)
        self._methods: dict[str, Callable[[Call], Fields]] = {
            PRECREATE: self._precreate,
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.cancel": self._cancel,
            "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._refund_query,
            PAY: self._pay,
            "alipay.user.agreement.query": self._agreements.query,
            "alipay.user.agreement.unsign": self._agreements.unsign,
            "alipay.user.agreement.executionplan.modify": self._agreements.modify,
        }

    async def answer(self, parameters: Mapping[str, str]) -> Response:
        """One call of a server, with the fault waiting for it. HTTP 200 whatever came of it."""
        method = parameters.get("method", "")
        keys = self._sandbox.keys[NAME]
        node = f"{method.replace('.', '_')}_response" if method in _OPERATIONS else "error_response"
        try:
            call = read_call(parameters, keys, self._sandbox.clock())
            if call.method not in self._methods:
                raise invalid("method", f"不存在的方法名 {call.method}")
        except CallRefused as problem:
            return _respond(answer_body(node, problem.fields, None))
        except AlipayError as problem:
            return _respond(answer_body(node, problem.fields, keys["alipay_private_key"]))

        async def handle(fault: Fault | None) -> Response:
            if fault and fault.name == "balance_insufficient":
                empty = TradeError("SELLER_BALANCE_NOT_ENOUGH", "卖家余额不足，请充值后重试").fields
                return _respond(answer_body(node, empty, keys["alipay_private_key"]))
            fields = self._do(call)
            if fault and fields["code"] == "10000":
                _alter(fields, fault.name)
            forged = fault is not None and fault.name == "bad_signature"
            return _respond(answer_body(node, fields, keys["alipay_private_key"], forged=forged))

        reference = self._reference(call)
        return await faulted(
            self._sandbox, NAME, _OPERATIONS[call.method], reference, handle, _refuse
        )

    def _do(self, call: Call) -> Fields:
        try:
            with self._sandbox.book.transaction():
                return {"code": "10000", "msg": "Success", **self._methods[call.method](call)}
        except TradeError as problem:
            return problem.fields

    def _reference(self, call: Call) -> str | None:
        number = call.business.get("out_trade_no")
        if isinstance(number, str):
            return split_number(number)[0]
        if _OPERATIONS[call.method] == "mandate":
            agreement = self._agreements.named(call.business)
            return agreement["reference"] if agreement else None
        trade_no = call.business.get("trade_no")
        order = self._trades.by_field(trade_no=trade_no) if isinstance(trade_no, str) else None
        return order["reference"] if order else None

    def _precreate(self, call: Call) -> Fields:
        order = self._trades.precreate(call)
        return {
            "out_trade_no": order["number"],
            "qr_code": f"{self._sandbox.url}/alipay/qr/{order['code']}",
        }

    def _pay(self, call: Call) -> Fields:
        order, failure = self._withholding.pay(call)
        return failure or pay_fields(order, query_fields(order, ["fund_bill_list"]))

    def _query(self, call: Call) -> Fields:
        order = self._traded(call)
        return query_fields(order, call.business.get("query_options") or ())

    def _close(self, call: Call) -> Fields:
        order = self._traded(call)
        self._trades.close(order)
        return {"out_trade_no": order["number"], "trade_no": order["trade_no"]}

    def _cancel(self, call: Call) -> Fields:
        """Without a trade there is nothing to do, and nothing is."""
        try:
            order = self._traded(call)
        except TradeError as problem:
            if problem.sub_code != "ACQ.TRADE_NOT_EXIST":
                raise
            return {"out_trade_no": call.business.get("out_trade_no", ""), "retry_flag": "N"}
        action = self._refunds.cancel(order)
        done = {"action": action} if action else {}
        return {
            "out_trade_no": order["number"],
            "trade_no": order["trade_no"],
            "retry_flag": "N",
            **done,
        }

    def _refund(self, call: Call) -> Fields:
        order = self._traded(call)
        refund, moved = self._refunds.refund(order, call.business)
        return refund_fields(order, refund, moved)

    def _refund_query(self, call: Call) -> Fields:
        order = self._traded(call)
        refund = self._refunds.find(order, call.business.get("out_request_no"))
        return refund_query_fields(order, refund)

    def _traded(self, call: Call) -> Document:
        trade_no = call.business.get("trade_no")
        if isinstance(trade_no, str) and trade_no:
            return self._trades.traded(None, trade_no)
        return self._trades.traded(read_number(call.business), None)


def query_fields(order: Document, options: object) -> Fields:
    """The trade as alipay.trade.query tells it. `options` as in query_options."""
    terms, trade = terms_of(order), order["trade"]
    received = terms.amount if trade["paid_at"] else 0
    fields: Fields = {
        "buyer_logon_id": trade["buyer_logon_id"],
        "buyer_pay_amount": yuan(received),
        "buyer_user_id": trade["buyer_id"],
        "invoice_amount": yuan(received),
        "out_trade_no": order["number"],
        "point_amount": "0.00",
        "receipt_amount": yuan(received),
        "subject": terms.subject,
        "total_amount": yuan(terms.amount),
        "trade_no": order["trade_no"],
        "trade_status": trade["status"],
    }
    if trade["paid_at"]:
        fields["send_pay_date"] = beijing_text(datetime.fromisoformat(trade["paid_at"]))
    if terms.passback_params:
        fields["passback_params"] = terms.passback_params
    if trade["paid_at"] and isinstance(options, list) and "fund_bill_list" in options:
        fields["fund_bill_list"] = [
            {"amount": bill["amount"], "fund_channel": bill["fundChannel"]}
            for bill in fund_bills(terms)
        ]
    return fields


async def parameters_of(request: Request) -> dict[str, str]:
    """Those of the query and the form. Raises CallRefused."""
    body = await request.body() if request.method == "POST" else b""
    try:
        form = body.decode()
    except UnicodeDecodeError:
        raise invalid("charset", "the form is not UTF-8") from None
    return read_parameters(request.url.query, form)


def refusal(problem: CallRefused) -> Response:
    return _respond(answer_body("error_response", problem.fields, None))


def _alter(fields: Fields, fault: str) -> None:
    """Make the answer speak of something else, before it is signed."""
    if fault == "wrong_amount":
        for name in _AMOUNTS:
            if fields.get(name, "0.00") != "0.00":
                fields[name] = yuan(int(fields[name].replace(".", "")) + 1)
    elif fault == "wrong_currency" and ("refund_fee" in fields or "refund_amount" in fields):
        fields["refund_currency"] = "USD"
    elif fault == "wrong_currency" and "total_amount" in fields:
        fields |= dict.fromkeys(("trans_currency", "settle_currency", "pay_currency"), "USD")
    elif fault == "wrong_merchant":
        fields["seller_id"] = "2088000000000000"
    elif fault == "wrong_order" and fields.get("out_trade_no"):
        last = fields["out_trade_no"][-1]
        fields["out_trade_no"] = fields["out_trade_no"][:-1] + ("1" if last == "0" else "0")
    elif fault == "wrong_order" and fields.get("external_agreement_no"):
        fields["external_agreement_no"] = "pm00000000000000000000000000"
    elif fault == "unknown_status" and "status" in fields:
        fields["status"] = "PONDERING"
    elif fault == "unknown_status" and "trade_status" in fields:
        fields["trade_status"] = "TRADE_PONDERING"
    elif fault == "unknown_status" and "refund_status" in fields:
        fields["refund_status"] = "REFUND_PONDERING"


def _refuse(status: int) -> Response:
    """Alipay's front servers, in HTML and unsigned."""
    return _html(f"<html><body><h1>{status}</h1></body></html>".encode(), status)


def _respond(content: bytes) -> Response:
    return _html(content, 200)


def _html(content: bytes, status: int) -> Response:
    """JSON comes as text/html too: that is how Alipay answers."""
    return Response(content, status, {"Content-Type": "text/html;charset=utf-8"})
