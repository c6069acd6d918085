"""WeChat Pay's states and error codes, and what each means to us: the one table.

Codes of bills and contracts are absent, since no call made here can end in one; a code not named
here is unknown, so that it is asked about again and then parked.
"""

from collections.abc import Mapping
from typing import Final

from billing.payment import DeclineClass, Failure
from gateways.gateway import ObservedState
from gateways.meaning import Meaning

CODES: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(
        ("PARAM_ERROR", "INVALID_REQUEST", "OPENID_MISMATCH"),
        Meaning.REFUSED,
    ),
    **dict.fromkeys(
        ("RULE_LIMIT", "TRADE_ERROR", "USER_ACCOUNT_ABNORMAL"),
        Meaning.REFUSED,
    ),
    **dict.fromkeys(
        ("APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "SIGN_ERROR", "NO_AUTH", "ACCOUNT_ERROR"),
        Meaning.MISCONFIGURED,
    ),
    **dict.fromkeys(
        (
            "OUT_TRADE_NO_USED",
            "ORDER_CLOSED",
            "ORDERCLOSED",
            "ORDERPAID",
            "TRADE_OVERDUE",
            "REFUND_FEE_MISMATCH",
        ),
        Meaning.ORDERED,
    ),
    **dict.fromkeys(
        ("ORDER_NOT_EXIST", "ORDERNOTEXIST", "ORDER_NOT_EXISTS", "RESOURCE_NOT_EXISTS"),
        Meaning.ABSENT,
    ),
    **dict.fromkeys(
        ("FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED"),
        Meaning.THROTTLED,
    ),
    **dict.fromkeys(
        ("SYSTEM_ERROR", "SERVICE_UNAVAILABLE", "BANK_ERROR"),
        Meaning.UNKNOWN,
    ),
}

BALANCE_CODE: Final = "NOT_ENOUGH"
"""The merchant's account does not cover a refund."""

REFUNDED: Final = "REFUND"
TRADE_STATES: Final[Mapping[str, ObservedState]] = {
    "NOTPAY": ObservedState.PENDING,
    "USERPAYING": ObservedState.PENDING,
    "ACCEPT": ObservedState.PROCESSING,
    "SUCCESS": ObservedState.PAID,
    # As soon as any part of a paid order was refunded: the money was taken all the same.
    REFUNDED: ObservedState.PAID,
    "CLOSED": ObservedState.DEAD,
    "REVOKED": ObservedState.DEAD,
    "PAYERROR": ObservedState.DEAD,
}


def meaning_of(status_code: int, code: str | None) -> Meaning:
    """What an error answer means, by its code; without one we know, by its HTTP status."""
    known = CODES.get(code or "")
    if known is not None:
        return known
    if status_code == 429:
        return Meaning.THROTTLED
    if status_code == 401:
        return Meaning.MISCONFIGURED
    return Meaning.UNKNOWN


def refusal_of(code: str) -> Failure:
    """An order that WeChat Pay will not take, as the application sees it."""
    return Failure(
        code="order_refused",
        decline_code=code,
        advice=DeclineClass.HARD,
        message="WeChat Pay will not take this order.",
    )


def failure_of(trade_state: str) -> Failure | None:
    """Why a dead order died, where the payer's own try was the reason."""
    if trade_state != "PAYERROR":
        return None
    return Failure(
        code="payment_declined",
        decline_code=trade_state,
        advice=DeclineClass.SOFT,
        message="WeChat Pay declined the payer; they may pay in another way or later.",
    )
