"""Refunds at Alipay: `alipay.trade.refund` and `alipay.trade.fastpay.refund.query`.

A refund is told apart by the trade and `out_request_no`, our refund's id. `refund_fee` in an answer
is all that the trade has given back so far: at least this refund where it was made, at most what
was paid. Only `fund_change` Y says that this very call moved money, and anything else is settled
by the query.
"""

from collections.abc import Mapping
from typing import Final

from billing.errors import AnswerUntrusted, BalanceInsufficient, OutcomeUnknown
from billing.money import format_minor
from billing.payment import DeclineClass, Failure
from gateways.alipay.outcomes import BUSINESS_FAILURE
from gateways.alipay.requests import CURRENCY, Account, read_beijing_text, read_yuan
from gateways.alipay.signature import Node
from gateways.gateway import (
    ForeignRefund,
    Order,
    RefundObservation,
    RefundOrder,
    RefundState,
)

REFUND: Final = "alipay.trade.refund"
REFUND_QUERY: Final = "alipay.trade.fastpay.refund.query"

REFUSALS: Final = frozenset(
    {
        "REFUND_AMT_NOT_EQUAL_TOTAL",
        "REFUND_FEE_ERROR",
        "REASON_TRADE_REFUND_FEE_ERR",
        "TRADE_HAS_FINISHED",
        "TRADE_HAS_CLOSE",
        "TRADE_STATUS_ERROR",
        "REASON_TRADE_STATUS_INVALID",
        "TRADE_NOT_ALLOW_REFUND",
        "NOT_ALLOW_PARTIAL_REFUND",
        "ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND",
        "TRADE_NOT_EXIST",
        "REFUNDALLOC_UNAUTH_LIMIT",
        "INVALID_PARAMETER",
    }
)
"""Sub-codes by which Alipay refuses a refund for good."""

_BALANCE: Final = "SELLER_BALANCE_NOT_ENOUGH"
_DISCORDANT: Final = "DISCORDANT_REPEAT_REQUEST"
_DONE: Final = "REFUND_SUCCESS"
_MAX_REASON: Final = 256


def refund_parameters(order: RefundOrder) -> Mapping[str, object]:
    """The business of the request, from the refund alone: the same at every repeat."""
    return {
        "out_trade_no": order.payment_number,
        "out_request_no": order.number,
        "refund_amount": format_minor(order.amount_minor, CURRENCY),
        "refund_reason": order.reason[:_MAX_REASON],
    }


def query_parameters(order: RefundOrder) -> Mapping[str, object]:
    return {"out_trade_no": order.payment_number, "out_request_no": order.number}


def asked(order: RefundOrder, node: Node, account: Account) -> RefundObservation:
    """What a successful answer to the request says. Raises OutcomeUnknown and AnswerUntrusted."""
    _check(order, node, account)
    moved = node.text("fund_change")
    if moved != "Y":
        return RefundObservation(RefundState.PROCESSING, f"fund_change {moved or '(none)'}")
    given_back = _amount(order, node, "refund_fee")
    if not order.amount_minor <= given_back <= order.paid_minor:
        raise AnswerUntrusted(
            "amount_mismatch",
            f"{order.number} is for {order.amount_minor} of {order.paid_minor} {CURRENCY} in minor"
            f" units, and with it Alipay has given back {given_back}",
        )
    return RefundObservation(
        RefundState.SUCCEEDED,
        "fund_change Y",
        refunded_at=read_beijing_text(node.text("gmt_refund_pay")),
    )


def refusal_of(order: RefundOrder, node: Node) -> RefundObservation | None:
    """What a failure of the request says of the refund; None where it says nothing certain.

    Raises BalanceInsufficient and AnswerUntrusted.
    """
    if node.text("code") != BUSINESS_FAILURE or not node.is_signed:
        return None
    word = (node.text("sub_code") or "").rpartition(".")[2]
    if word == _BALANCE:
        raise BalanceInsufficient(f"Alipay: the merchant's account does not cover {order.number}")
    if word == _DISCORDANT:
        raise AnswerUntrusted(
            "amount_mismatch", f"Alipay knows {order.number} as a refund of another amount"
        )
    if word not in REFUSALS:
        return None
    failure = Failure(
        code="refund_refused",
        decline_code=word,
        advice=DeclineClass.HARD,
        message="Alipay will not give this money back.",
    )
    return RefundObservation(RefundState.FAILED, word, failure=failure)


def queried(order: RefundOrder, node: Node, account: Account) -> RefundObservation:
    """What a successful answer to the query says; without a status there is no such refund.

    Raises OutcomeUnknown and AnswerUntrusted.
    """
    status = node.text("refund_status")
    if status is None:
        return RefundObservation(RefundState.ABSENT, "(none)")
    _check(order, node, account)
    number = node.text("out_request_no")
    if number not in (None, order.number):
        raise AnswerUntrusted(
            "refund_mismatch", f"asked about {order.number}, Alipay's answer is about {number}"
        )
    if status != _DONE:
        return RefundObservation(RefundState.UNRECOGNISED, status)
    expected = {"refund_amount": order.amount_minor}
    if node.text("total_amount") is not None:
        expected["total_amount"] = order.paid_minor
    for name, ours in expected.items():
        amount = _amount(order, node, name)
        if amount != ours:
            raise AnswerUntrusted(
                "amount_mismatch",
                f"{order.number} has {name} {ours} {CURRENCY} in minor units, Alipay says {amount}",
            )
    return RefundObservation(
        RefundState.SUCCEEDED, status, refunded_at=read_beijing_text(node.text("gmt_refund_pay"))
    )


def _amount(order: RefundOrder, node: Node, name: str) -> int:
    amount = read_yuan(node.text(name))
    if amount is None:
        raise OutcomeUnknown(f"Alipay calls {order.number} done, without a {name} to be read")
    return amount


def foreign(order: Order, number: str, node: Node) -> ForeignRefund | None:
    """What a successful answer to the query says of a refund that is not ours; None where there
    is no such refund. Raises AnswerUntrusted."""
    status = node.text("refund_status")
    if status is None:
        return None
    told = node.text("out_trade_no"), node.text("out_request_no") or number
    if told != (order.number, number):
        raise AnswerUntrusted(
            "order_mismatch",
            f"asked about refund {number} of {order.number}, Alipay's answer is about {told[1]} of"
            f" {told[0]}",
        )
    amount = read_yuan(node.text("refund_amount"))
    if amount is None or amount < 1:
        raise AnswerUntrusted(
            "amount_mismatch", f"Alipay reports refund {number} of {order.number} without an amount"
        )
    state = RefundState.SUCCEEDED if status == _DONE else RefundState.UNRECOGNISED
    at = read_beijing_text(node.text("gmt_refund_pay")) if status == _DONE else None
    return ForeignRefund(
        number, amount, RefundObservation(state, status, reference=number, refunded_at=at)
    )


def _check(order: RefundOrder, node: Node, account: Account) -> None:
    """The trade is always named by our number; whatever else is named must be ours too."""
    number = node.text("out_trade_no")
    if number != order.payment_number:
        raise AnswerUntrusted(
            "order_mismatch",
            f"asked about {order.payment_number}, Alipay's answer is about {number}",
        )
    for name, ours, reason in (
        ("trade_no", order.payment_reference, "order_mismatch"),
        ("seller_id", account.seller_id, "merchant_mismatch"),
        ("app_id", account.app_id, "merchant_mismatch"),
        ("refund_currency", CURRENCY, "currency_mismatch"),
        ("trans_currency", CURRENCY, "currency_mismatch"),
    ):
        theirs = node.text(name)
        if theirs not in (None, ours):
            raise AnswerUntrusted(
                reason, f"{order.number} has {name} {ours}, Alipay's answer {theirs}"
            )
