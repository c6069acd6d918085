"""Refunds at WeChat Pay (APIv3): asked for under `out_refund_no`, our refund's id.

The answer 200 means that a refund was accepted; what became of it is in `status`.
"""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from billing.errors import AnswerUntrusted
from billing.payment import DeclineClass, Failure
from gateways.clock import read_rfc3339
from gateways.gateway import (
    ForeignRefund,
    Order,
    RefundObservation,
    RefundOrder,
    RefundState,
)
from gateways.wechatpay.requests import CURRENCY

REFUNDS_PATH: Final = "/v3/refund/domestic/refunds"

STATES: Final[Mapping[str, RefundState]] = {
    "SUCCESS": RefundState.SUCCEEDED,
    "PROCESSING": RefundState.PROCESSING,
    "CLOSED": RefundState.FAILED,
    "ABNORMAL": RefundState.STUCK,
}
"""ABNORMAL: the payer's card is gone; a person repairs it in the merchant platform."""

_MAX_REASON: Final = 80
_FAILURES: Final[Mapping[RefundState, str]] = {
    RefundState.FAILED: "WeChat Pay closed the refund; nothing was given back.",
    RefundState.STUCK: "The payer's card takes no refund; repair it in WeChat Pay's merchant"
    " platform.",
}


def refund_body(order: RefundOrder, notify_url: str) -> bytes:
    """The body that asks for a refund, from the refund alone: these bytes are signed and sent."""
    body = {
        "transaction_id": order.payment_reference,
        "out_refund_no": order.number,
        "reason": order.reason[:_MAX_REASON],
        "notify_url": notify_url,
        "amount": {
            "refund": order.amount_minor,
            "total": order.paid_minor,
            "currency": CURRENCY,
        },
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def refund_path(order: RefundOrder) -> str:
    return path_of(order.number)


def path_of(number: str) -> str:
    return f"{REFUNDS_PATH}/{quote(number, safe='')}"


def observed(order: RefundOrder, fields: Mapping[str, object]) -> RefundObservation:
    """What a verified answer says of the refund. Raises AnswerUntrusted."""
    _check_identity(order, fields)
    _check_money(order, fields.get("amount"))
    reference = fields.get("refund_id")
    return _observation(fields, reference if isinstance(reference, str) and reference else None)


def foreign(order: Order, number: str, fields: Mapping[str, object]) -> ForeignRefund:
    """What a verified answer says of a refund that is not ours. Raises AnswerUntrusted."""
    told = fields.get("out_trade_no"), fields.get("out_refund_no")
    if told != (order.number, number):
        raise AnswerUntrusted(
            "order_mismatch",
            f"asked about refund {number} of {order.number}, WeChat Pay's answer is about"
            f" {told[1]} of {told[0]}",
        )
    money = fields.get("amount")
    money = money if isinstance(money, dict) else {}
    currency, amount = money.get("currency", CURRENCY), money.get("refund")
    if currency != order.currency:
        raise AnswerUntrusted(
            "currency_mismatch",
            f"{order.number} was paid in {order.currency}, its refund {number} is in {currency}",
        )
    if type(amount) is not int or amount < 1:
        raise AnswerUntrusted(
            "amount_mismatch", f"WeChat Pay reports refund {number} without an amount"
        )
    return ForeignRefund(number, amount, _observation(fields, number))


def _observation(fields: Mapping[str, object], reference: str | None) -> RefundObservation:
    given = fields.get("status")
    status = given if isinstance(given, str) and given else "(none)"
    state = STATES.get(status, RefundState.UNRECOGNISED)
    failure = None
    if state in _FAILURES:
        failure = Failure(
            code="refund_stuck" if state is RefundState.STUCK else "refund_failed",
            decline_code=status,
            message=_FAILURES[state],
        )
    return RefundObservation(
        state,
        status,
        reference=reference,
        failure=failure,
        refunded_at=read_rfc3339(fields.get("success_time"))
        if state is RefundState.SUCCEEDED
        else None,
    )


def refused(code: str) -> RefundObservation:
    """WeChat Pay will not give this money back."""
    failure = Failure(
        code="refund_refused",
        decline_code=code,
        advice=DeclineClass.HARD,
        message="WeChat Pay will not give this money back.",
    )
    return RefundObservation(RefundState.FAILED, code, failure=failure)


def _check_identity(order: RefundOrder, fields: Mapping[str, object]) -> None:
    number = fields.get("out_refund_no")
    if number != order.number:
        raise AnswerUntrusted(
            "refund_mismatch", f"asked about {order.number}, WeChat Pay's answer is about {number}"
        )
    payment_number, reference = fields.get("out_trade_no"), fields.get("transaction_id")
    if (payment_number, reference) != (order.payment_number, order.payment_reference):
        raise AnswerUntrusted(
            "order_mismatch",
            f"{order.number} is of {order.payment_number}, WeChat Pay's answer of"
            f" {payment_number}, transaction {reference}",
        )


def _check_money(order: RefundOrder, amount: object) -> None:
    amount = amount if isinstance(amount, dict) else {}
    currency = amount.get("currency", CURRENCY)
    if currency != order.currency:
        raise AnswerUntrusted(
            "currency_mismatch",
            f"{order.number} asks for {order.currency}, the gateway reports {currency}",
        )
    for name, ours in (("refund", order.amount_minor), ("total", order.paid_minor)):
        given = amount.get(name)
        if type(given) is not int or given != ours:
            raise AnswerUntrusted(
                "amount_mismatch",
                f"{order.number} has amount.{name} {ours} in fen, the gateway reports {given}",
            )
