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
from gateways.gateway import RefundObservation, RefundOrder, RefundState
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
    return f"{REFUNDS_PATH}/{quote(order.number, safe='')}"


def observed(order: RefundOrder, fields: Mapping[str, object]) -> RefundObservation:
    """What a verified answer says of the refund. Raises AnswerUntrusted."""
    _check(order, fields)
    given = fields.get("status")
    status = given if isinstance(given, str) and given else "(none)"
    state = STATES.get(status, RefundState.UNRECOGNISED)
    reference = fields.get("refund_id")
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
        reference=reference if isinstance(reference, str) and reference else None,
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


def _check(order: RefundOrder, fields: Mapping[str, object]) -> None:
    for name, ours in (
        ("out_refund_no", order.number),
        ("out_trade_no", order.payment_number),
    ):
        if fields.get(name) != ours:
            raise AnswerUntrusted(
                "order_mismatch",
                f"asked about {ours}, WeChat Pay's answer is about {name} {fields.get(name)}",
            )
    amount = fields.get("amount")
    amount = amount if isinstance(amount, dict) else {}
    told = amount.get("refund"), amount.get("total"), amount.get("currency", CURRENCY)
    if told != (order.amount_minor, order.paid_minor, order.currency):
        raise AnswerUntrusted(
            "amount_mismatch",
            f"{order.number} asks for {order.amount_minor} of {order.paid_minor} {order.currency}"
            f" in minor units, WeChat Pay's answer is about {told[0]} of {told[1]} {told[2]}",
        )
