"""Charges by agreement: alipay.trade.pay without the payer."""

from datetime import datetime
from typing import Any

from sandbox.alipay.agreements import NORMAL, PRODUCTS, Agreements, plan_of
from sandbox.alipay.calls import Call, beijing_text
from sandbox.alipay.errors import TradeError, invalid_parameter
from sandbox.alipay.terms import PAY, Terms, read_terms
from sandbox.alipay.trades import Trades
from sandbox.book import Document
from sandbox.core import Sandbox

WAITS = "10003"


class Withholding:
    """For use inside a transaction of the book; methods raise TradeError."""

    def __init__(self, sandbox: Sandbox, trades: Trades, agreements: Agreements) -> None:
        self._sandbox = sandbox
        self._trades = trades
        self._agreements = agreements

    def pay(self, call: Call) -> tuple[Document, dict[str, Any]]:
        """The order, and the fields by which a charge that did not succeed is answered. A payer's
        own obstacle leaves a trade that waits; the agreement's refusals leave nothing."""
        terms = read_terms(PAY, call.business)
        order = self._trades.by_number(terms.number)
        if order is not None:
            self._trades.check_payable(order, terms)
        elif terms.is_over(self._sandbox.clock()):
            raise invalid_parameter("time_expire", "is in the past")
        agreement = self._chargeable(call, terms)
        steering = agreement["steering"]
        if order is None:
            order = self._trades.withhold(call, terms, agreement)
        if steering is None:
            self.settle(order)
            return order, {}
        left = steering["times"] - 1
        agreement["steering"] = steering | {"times": left} if left else None
        self._agreements.keep(agreement)
        if steering["decline"] == WAITS:
            return order, {"code": WAITS, "msg": "order success pay inprocess"}
        return order, TradeError(steering["decline"], "付款失败").fields

    def settle(self, order: Document) -> None:
        """Take the money, now or once it had waited."""
        self._trades.pay(order)
        agreement = self._agreements.by_agreement_no(_agreement_no(order["business"]))
        assert agreement is not None
        self._agreements.has_paid(agreement)

    def _chargeable(self, call: Call, terms: Terms) -> Document:
        agreement = self._agreements.by_agreement_no(_agreement_no(call.business))
        if agreement is None:
            raise TradeError("AGREEMENT_NOT_EXIST", "用户协议不存在")
        if agreement["status"] != NORMAL:
            raise TradeError("AGREEMENT_STATUS_NOT_NORMAL", "用户协议状态非NORMAL")
        if PRODUCTS[agreement["personal_product_code"]] != call.business["product_code"]:
            raise TradeError("AGREEMENT_INVALID", "用户协议与产品不匹配")
        plan = plan_of(agreement)
        objection = plan and plan.objection(terms.amount, self._agreements.now(agreement["number"]))
        if objection:
            raise TradeError(objection, "周期扣款规则校验不通过")
        return agreement


def pay_fields(order: Document, fields: dict[str, Any]) -> dict[str, Any]:
    """The answer to a charge that succeeded, from the fields of its query."""
    paid = {name: value for name, value in fields.items() if name != "trade_status"}
    paid["gmt_payment"] = beijing_text(datetime.fromisoformat(order["trade"]["paid_at"]))
    return paid


def _agreement_no(business: dict[str, Any]) -> str:
    parameters = business.get("agreement_params")
    number = parameters.get("agreement_no") if isinstance(parameters, dict) else None
    if not isinstance(number, str) or not number:
        raise invalid_parameter("agreement_params", "has an agreement_no")
    return number
