"""WeChat Pay's states and error codes, and what each means to us: the one table.

Codes of bills are absent, since no call made here can end in one; a code not named here is unknown,
so that it is asked about again and then parked.
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
        (
            "ORDER_NOT_EXIST",
            "ORDERNOTEXIST",
            "ORDER_NOT_EXISTS",
            "RESOURCE_NOT_EXISTS",
            "CONTRACT_NOT_EXIST",
        ),
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

CODES_V2: Final[Mapping[str, Meaning]] = {
    **CODES,
    **dict.fromkeys(("SYSTEMERROR", "BANKERROR"), Meaning.UNKNOWN),
    **dict.fromkeys(("SIGNERROR", "NOAUTH", "MCHID_NOT_EXIST"), Meaning.MISCONFIGURED),
    "ORDER_ACCEPTED": Meaning.ORDERED,
    # Where there is a payer's contract, these speak of the payer.
    **dict.fromkeys(
        ("NOT_ENOUGH", "NOTENOUGH", "ACCOUNT_ERROR", "ACCOUNTERROR", "CONTRACTERROR", "RULELIMIT"),
        Meaning.REFUSED,
    ),
}
"""The codes of APIv2, which spells some of them in its own way."""

_NO_BALANCE: Final = frozenset({"NOT_ENOUGH", "NOTENOUGH"})
_NO_CONTRACT: Final = frozenset({"CONTRACT_NOT_EXIST", "CONTRACTERROR", "RESOURCE_NOT_EXISTS"})
_NO_ACCOUNT: Final = frozenset({"ACCOUNT_ERROR", "ACCOUNTERROR", "USER_ACCOUNT_ABNORMAL"})
_AGAINST_RULES: Final = frozenset({"RULE_LIMIT", "RULELIMIT"})

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

DEDUCT_STATES: Final[Mapping[str, ObservedState]] = {
    **TRADE_STATES,
    # No payer is waited for: it is on its way.
    "NOTPAY": ObservedState.PROCESSING,
    "USERPAYING": ObservedState.PROCESSING,
    "PAY_FAIL": ObservedState.DEAD,
}
"""Those of a charge by contract."""


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


def meaning_of_v2(code: str) -> Meaning:
    return CODES_V2.get(code, Meaning.UNKNOWN)


def decline_of(code: str) -> Failure:
    """Why a contract was not charged, or will not be: `outside_window` where WeChat Pay's rules on
    notices, days, hours and amounts forbid it, `mandate_ended` where there is no contract."""
    if code in _AGAINST_RULES:
        return Failure(
            code="outside_window",
            decline_code=code,
            advice=DeclineClass.SOFT,
            message="WeChat Pay's rules do not allow this charge now.",
        )
    if code in _NO_CONTRACT:
        return Failure(
            code="mandate_ended",
            decline_code=code,
            advice=DeclineClass.HARD,
            message="The payer's contract at WeChat Pay is not in force any more.",
        )
    if code in CODES_V2 and code not in _NO_BALANCE | _NO_ACCOUNT:
        return refusal_of(code)
    return Failure(
        code="payment_declined",
        decline_code=code,
        advice=DeclineClass.HARD if code in _NO_ACCOUNT else DeclineClass.SOFT,
        message="WeChat Pay declined the payer; they may pay in another way or later.",
    )


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
