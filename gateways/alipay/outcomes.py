"""Alipay's statuses and error codes, and what each means to us: the one table.

Codes by which refunds fail are in `gateways.alipay.refunds`; a code not named is unknown, so that
it is asked about again and then parked.
"""

from collections.abc import Mapping
from typing import Final

from billing.payment import DeclineClass, Failure
from gateways.gateway import ObservedState
from gateways.meaning import Meaning

SUCCESS: Final = "10000"
"""The call succeeded; of money it says nothing."""

WAITS: Final = "10003"
"""A charge was accepted and is not decided."""

BUSINESS_FAILURE: Final = "40004"

CODES: Final[Mapping[str, Meaning]] = {
    "10003": Meaning.UNKNOWN,
    "20000": Meaning.UNKNOWN,
    "20001": Meaning.MISCONFIGURED,
    "40001": Meaning.MISCONFIGURED,
    "40002": Meaning.MISCONFIGURED,
    "40003": Meaning.MISCONFIGURED,
    "40005": Meaning.THROTTLED,
    "40006": Meaning.MISCONFIGURED,
}

SUB_CODES: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(
        ("SYSTEM_ERROR", "BUSINESS_ERROR", "unknow-error"),
        Meaning.UNKNOWN,
    ),
    **dict.fromkeys(
        ("SYSTEM_RATE_LIMIT", "USER_RATE_LIMIT", "app-call-limited"),
        Meaning.THROTTLED,
    ),
    **dict.fromkeys(
        (
            "TRADE_NOT_EXIST",
            "USER_AGREEMENT_NOT_EXIST",
            "AGREEMENT_NOT_EXIST",
            "AGREEMENT_NOT_EXSIT",
            "AGREEMENT_HAS_UNSIGNED",
            "USER_AGREEMENT_STATUS_NOT_NORMAL",
        ),
        Meaning.ABSENT,
    ),
    "APPLY_PC_MERCHANT_CODE_ERROR": Meaning.INSTRUCTIONS_LOST,
    **dict.fromkeys(
        (
            "TRADE_HAS_SUCCESS",
            "TRADE_HAS_CLOSE",
            "TRADE_HAS_FINISHED",
            "CONTEXT_INCONSISTENT",
            "TRADE_STATUS_ERROR",
            "REASON_TRADE_STATUS_INVALID",
            "REASON_ILLEGAL_STATUS",
        ),
        Meaning.ORDERED,
    ),
    **dict.fromkeys(
        (
            "BUYER_BALANCE_NOT_ENOUGH",
            "BUYER_BANKCARD_BALANCE_NOT_ENOUGH",
            "NO_PAYMENT_INSTRUMENTS_AVAILABLE",
            "ERROR_BALANCE_PAYMENT_DISABLE",
            "BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR",
            "BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR",
            "PRODUCT_AMOUNT_LIMIT_ERROR",
            "BUYER_BANKCARD_DECLINED",
            "BUYER_BANKCARD_INVALID",
            "BUYER_LIMIT_EXCEEDED",
            "PAYMENT_FAIL",
        ),
        Meaning.DECLINED,
    ),
    **dict.fromkeys(
        (
            "PAYMENT_REQUEST_HAS_RISK",
            "RISK_MERCHANT_IP_NOT_EXIST",
            "BUYER_SELLER_EQUAL",
            "EXIST_FORBIDDEN_WORD",
            "TOTAL_FEE_EXCEED",
            "INVALID_PARAMETER",
            "BUYER_ENABLE_STATUS_FORBID",
            "BUYER_NOT_EXIST",
        ),
        Meaning.REFUSED,
    ),
    **dict.fromkeys(
        (
            "PARTNER_ERROR",
            "ACCESS_FORBIDDEN",
            "SELLER_BEEN_BLOCKED",
            "MERCHANT_STATUS_NOT_NORMAL",
        ),
        Meaning.MISCONFIGURED,
    ),
}

_DECLINES: Final[Mapping[str, tuple[str, DeclineClass]]] = {
    **dict.fromkeys(
        (
            "AGREEMENT_NOT_EXIST",
            "AGREEMENT_NOT_EXSIT",
            "AGREEMENT_INVALID",
            "AGREEMENT_STATUS_NOT_NORMAL",
            "AGREEMENT_ERROR",
            "AGREEMENT_HAS_UNSIGNED",
            "MERCHANT_AGREEMENT_NOT_EXIST",
            "MERCHANT_AGREEMENT_INVALID",
            "USER_AGREEMENT_NOT_EXIST",
            "USER_AGREEMENT_STATUS_NOT_NORMAL",
            "CYCLE_PAY_TOTAL_TIMES_EXCEED",
        ),
        ("mandate_ended", DeclineClass.HARD),
    ),
    **dict.fromkeys(
        (
            "CYCLE_PAY_DATE_NOT_MATCH",
            "OVER_MAX_DEDUCT_COUNT",
            "OVER_MAX_UNDER_WAY_DEDUCT_COUNT",
            "OVER_DEDUCT_PERIOD",
            "OVER_MERCHANT_DAILY_DEDUCT_AMOUNT",
        ),
        ("outside_window", DeclineClass.SOFT),
    ),
    **dict.fromkeys(
        ("CYCLE_PAY_SINGLE_FEE_EXCEED", "CYCLE_PAY_TOTAL_FEE_EXCEED"),
        ("above_cap", DeclineClass.NEEDS_CUSTOMER),
    ),
    **dict.fromkeys(
        (
            "NO_PAYMENT_INSTRUMENTS_AVAILABLE",
            "ERROR_BALANCE_PAYMENT_DISABLE",
            "PRODUCT_AMOUNT_LIMIT_ERROR",
            "BUYER_BANKCARD_INVALID",
        ),
        ("payment_declined", DeclineClass.NEEDS_CUSTOMER),
    ),
    **dict.fromkeys(
        ("BUYER_ENABLE_STATUS_FORBID", "BUYER_NOT_EXIST"),
        ("payment_declined", DeclineClass.HARD),
    ),
}
"""Codes by which a charge by agreement fails and what they come to; those that SUB_CODES calls
declined and that are not here are soft, refused ones hard."""

_WORDS: Final[Mapping[str, str]] = {
    "mandate_ended": "The payer's agreement at Alipay is not in force any more.",
    "outside_window": "Alipay does not take this charge now: its agreement has another day.",
    "above_cap": "The charge is above what the payer's agreement at Alipay allows.",
    "payment_declined": "Alipay declined the payer; they may pay in another way or later.",
    "mandate_refused": "Alipay will not do that with this agreement.",
}

TRADE_CLOSED: Final = "TRADE_CLOSED"
TRADE_STATUSES: Final[Mapping[str, ObservedState]] = {
    "WAIT_BUYER_PAY": ObservedState.PENDING,
    "TRADE_SUCCESS": ObservedState.PAID,
    "TRADE_FINISHED": ObservedState.PAID,
    TRADE_CLOSED: ObservedState.DEAD,
}
"""TRADE_CLOSED is also where a paid trade goes once fully refunded: see `was_paid`."""


def meaning_of(code: str, sub_code: str | None) -> Meaning:
    """What a failure means: for the business code 40004 that is up to the sub_code.

    Its prefix varies (`ACQ.`, `aop.ACQ.`, the misspelt `AQC.`, none), so only what follows the
    last dot counts.
    """
    by_sub_code = SUB_CODES.get(last_word(sub_code), Meaning.UNKNOWN)
    if code == BUSINESS_FAILURE:
        return by_sub_code
    return CODES.get(code, Meaning.UNKNOWN)


def last_word(sub_code: str | None) -> str:
    """The code without its prefix."""
    return (sub_code or "").rpartition(".")[2]


def is_decline(code: str) -> bool:
    """Whether a charge by agreement that fails with this code (without prefix) is refused."""
    return code in _DECLINES or SUB_CODES.get(code) in (Meaning.DECLINED, Meaning.REFUSED)


def decline_of(code: str, *, at_charge: bool = True) -> Failure:
    """Why an agreement was not charged, or, not `at_charge`, why its plan was not changed."""
    if code in _DECLINES:
        ours, advice = _DECLINES[code]
        return Failure(code=ours, decline_code=code, advice=advice, message=_WORDS[ours])
    if at_charge:
        return failure_of(SUB_CODES.get(code, Meaning.REFUSED), code)
    return Failure(
        code="mandate_refused",
        decline_code=code,
        advice=DeclineClass.HARD,
        message=_WORDS["mandate_refused"],
    )


def was_paid(fields: Mapping[str, object]) -> bool:
    """Whether money once reached the seller, in the answer for a TRADE_CLOSED.

    A trade that closed unpaid has no `send_pay_date`, no funds and no amount received; a paid one
    keeps them after its full refund. Taking such a trade for never paid would lose its receipt.
    """
    amounts = ("receipt_amount", "buyer_pay_amount", "invoice_amount", "point_amount")
    return (
        bool(fields.get("send_pay_date"))
        or bool(fields.get("fund_bill_list"))
        or any(_is_positive(fields.get(name)) for name in amounts)
    )


def failure_of(meaning: Meaning, sub_code: str) -> Failure:
    """A refused order as the application sees it."""
    if meaning is Meaning.DECLINED:
        return Failure(
            code="payment_declined",
            decline_code=sub_code,
            advice=DeclineClass.SOFT,
            message="Alipay declined the payer; they may pay in another way or later.",
        )
    return Failure(
        code="order_refused",
        decline_code=sub_code,
        advice=DeclineClass.HARD,
        message="Alipay will not take this order.",
    )


def _is_positive(amount: object) -> bool:
    return isinstance(amount, str) and any(digit in "123456789" for digit in amount)
