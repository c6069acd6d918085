"""Deductions by contract: accepted or refused at once, done or failed in the same moment, unless a
control has them wait.

Each is an order like any other, of trade type PAP, so that it is refunded like one.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.numbers import digits, split_number
from sandbox.wechatpay import judge
from sandbox.wechatpay.contracts import IN_FORCE, Contracts
from sandbox.wechatpay.errors import WechatError, order_missing, parameter_error
from sandbox.wechatpay.notifications import deduct_notification
from sandbox.wechatpay.orders import ACCEPT, ORDER, PAY_FAIL, REFUND, STATE_WORDS, SUCCESS, Orders
from sandbox.wechatpay.parameters import NAME, check_names, check_number, check_text

PAP: Final = "PAP"
STEERING: Final = "wechatpay_steering"
"""What the next deductions of a contract come to, by contract_code."""

_REQUIRED: Final = frozenset(
    """appid mch_id nonce_str body out_trade_no total_fee spbill_create_ip notify_url trade_type
    contract_id sign""".split()
)
_KNOWN: Final = _REQUIRED | {"fee_type", "sign_type", "detail", "attach", "goods_tag", "receipt"}


class Deductions:
    """For use inside a transaction of the book; methods raise WechatError."""

    def __init__(self, sandbox: Sandbox, orders: Orders, contracts: Contracts) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._orders = orders
        self._contracts = contracts

    def apply(self, fields: Mapping[str, str]) -> dict[str, str]:
        """`POST /pay/pappayapply`: accepted is not yet paid."""
        request = _read_request(fields)
        known = self._orders.by_number(fields["out_trade_no"])
        if known is not None:
            raise _known_error(known, request)
        contract = self._contracts.by_id(fields["contract_id"])
        if contract is None or contract["state"] != IN_FORCE:
            raise WechatError(200, "CONTRACT_NOT_EXIST", "签约协议不存在，用户已解约")
        steering = self._next_steering(contract["contract_code"])
        if steering.get("refuse"):
            raise WechatError(200, steering["refuse"], "扣款申请被拒绝")
        now = self._contracts.now(contract["contract_code"])
        amount = request["amount"]["total"]
        standing = self._contracts.standing(contract)
        if objection := judge.objection_to_deduction(standing, amount, now):
            raise WechatError(200, "RULE_LIMIT", objection)
        order = _new_order(request, contract, self._sandbox.clock())
        self._book.put(ORDER, order["number"], order)
        if not steering.get("wait"):
            self.settle(order, steering.get("decline"))
        return {"out_trade_no": order["number"]}

    def settle(self, order: Document, decline: str | None = None) -> None:
        """Take the money for what was accepted, or fail with that code; tell the merchant."""
        if order["state"] != ACCEPT:
            raise WechatError(200, "ORDERPAID", "该订单已支付")
        contract = self._contracts.by_id(order["request"]["contract_id"])
        assert contract is not None
        # Money moves at wall time: business time is for windows, and for what a contract says.
        now = self._sandbox.clock()
        order |= {"transaction_id": f"4200{digits(6)}{now.astimezone(BEIJING):%Y%m%d}{digits(10)}"}
        if decline is not None:
            order |= {"state": PAY_FAIL, "decline": decline}
        else:
            order |= {"state": SUCCESS, "paid_at": now.isoformat()}
            self._contracts.has_paid(contract)
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
        self._book.put(ORDER, order["number"], order)
        deduct_notification(self._sandbox, order, _outcome_fields(order))

    def query(self, fields: Mapping[str, str]) -> dict[str, str]:
        """`POST /pay/paporderquery`, by out_trade_no or transaction_id."""
        transaction_id = fields.get("transaction_id")
        number = transaction_id or fields.get("out_trade_no", "")
        order = (
            self._orders.by_field(transaction_id=number)
            if transaction_id
            else self._orders.by_number(number)
        )
        if order is None or order["trade_type"] != PAP:
            raise order_missing(number)
        return _outcome_fields(order) | {
            "trade_state": order["state"],
            "trade_state_desc": STATE_WORDS[order["state"]],
        }

    def steer(self, contract_code: str, steering: Document) -> None:
        """What the next `times` deductions come to: `decline` fails them with that code, `refuse`
        does so before they are accepted, `wait` leaves them accepted."""
        self._book.put(STEERING, contract_code, steering)

    def _next_steering(self, contract_code: str) -> dict[str, Any]:
        steering = self._book.get(STEERING, contract_code)
        if steering is None or steering["times"] < 1:
            return {}
        self._book.put(STEERING, contract_code, steering | {"times": steering["times"] - 1})
        return steering


def _read_request(fields: Mapping[str, str]) -> Document:
    """The request in the form that orders are kept in."""
    check_names(fields, _REQUIRED, _KNOWN)
    check_number(fields["out_trade_no"])
    check_text(fields, "body", 128)
    check_text(fields, "nonce_str", 32)
    total = fields["total_fee"]
    if not total.isdecimal() or not 1 <= int(total) <= 10_000_000_000:
        raise parameter_error("total_fee", "is a whole number of fen, at least 1")
    if fields["trade_type"] != PAP or fields.get("fee_type", "CNY") != "CNY":
        raise parameter_error("trade_type", "is PAP, and fee_type CNY")
    return {
        "out_trade_no": fields["out_trade_no"],
        "contract_id": fields["contract_id"],
        "description": fields["body"],
        "notify_url": fields["notify_url"],
        "amount": {"total": int(total), "currency": "CNY"},
    }


def _known_error(order: Document, request: Document) -> WechatError:
    """Why an order of that number is not placed again."""
    if order["request"] != request:
        return WechatError(200, "OUT_TRADE_NO_USED", "商户订单号重复")
    if order["state"] in (SUCCESS, REFUND):
        return WechatError(200, "ORDERPAID", "该订单已支付")
    return WechatError(200, "ORDER_ACCEPTED", "扣款请求已受理，请勿重复发起")


def _new_order(request: Document, contract: Document, now: datetime) -> Document:
    reference, attempt = split_number(request["out_trade_no"])
    return {
        "number": request["out_trade_no"],
        "reference": reference,
        "attempt": attempt,
        "trade_type": PAP,
        "request": request,
        "state": ACCEPT,
        "created_at": now.isoformat(),
        "deadline": datetime.max.replace(tzinfo=now.tzinfo).isoformat(),
        "openid": contract["openid"],
        "prepay_id": None,
        "code": None,
        "issued_at": None,
        "transaction_id": None,
        "paid_at": None,
        "refunds_end": SUCCESS,
        "refunded": 0,
        "decline": None,
    }


def _outcome_fields(order: Document) -> dict[str, str]:
    """What became of a deduction, as its query and its notification tell it."""
    total = str(order["request"]["amount"]["total"])
    fields = {
        "out_trade_no": order["number"],
        "trade_type": PAP,
        "total_fee": total,
        "fee_type": "CNY",
        "openid": order["openid"],
        "contract_id": order["request"]["contract_id"],
        "transaction_id": order["transaction_id"] or "",
    }
    if order["paid_at"]:
        paid_at = datetime.fromisoformat(order["paid_at"]).astimezone(BEIJING)
        fields |= {"time_end": f"{paid_at:%Y%m%d%H%M%S}", "cash_fee": total, "bank_type": "OTHERS"}
    if order["decline"]:
        fields |= {"err_code": order["decline"], "err_code_des": "扣款失败"}
    return fields
