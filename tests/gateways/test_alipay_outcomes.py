"""Every status and code Alipay documents for the calls made here has its place."""

import pytest

from billing.payment import DeclineClass
from gateways.alipay.outcomes import TRADE_STATUSES, failure_of, meaning_of, was_paid
from gateways.gateway import ObservedState
from gateways.meaning import Meaning

_BY_CODE = {
    Meaning.UNKNOWN: "20000 10003 99999",
    Meaning.THROTTLED: "40005",
    Meaning.MISCONFIGURED: "20001 40001 40002 40003 40006",
}
_BY_SUB_CODE = {
    Meaning.UNKNOWN: "SYSTEM_ERROR BUSINESS_ERROR A_CODE_NOBODY_KNOWS",
    Meaning.THROTTLED: "SYSTEM_RATE_LIMIT USER_RATE_LIMIT",
    Meaning.ABSENT: "TRADE_NOT_EXIST",
    Meaning.INSTRUCTIONS_LOST: "APPLY_PC_MERCHANT_CODE_ERROR",
    Meaning.ORDERED: (
        "TRADE_HAS_SUCCESS TRADE_HAS_CLOSE CONTEXT_INCONSISTENT TRADE_HAS_FINISHED"
        " TRADE_STATUS_ERROR REASON_TRADE_STATUS_INVALID REASON_ILLEGAL_STATUS"
    ),
    Meaning.DECLINED: (
        "BUYER_BALANCE_NOT_ENOUGH BUYER_BANKCARD_BALANCE_NOT_ENOUGH"
        " NO_PAYMENT_INSTRUMENTS_AVAILABLE ERROR_BALANCE_PAYMENT_DISABLE"
        " BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR"
        " PRODUCT_AMOUNT_LIMIT_ERROR BUYER_BANKCARD_DECLINED BUYER_BANKCARD_INVALID"
        " BUYER_LIMIT_EXCEEDED PAYMENT_FAIL"
    ),
    Meaning.REFUSED: (
        "PAYMENT_REQUEST_HAS_RISK RISK_MERCHANT_IP_NOT_EXIST BUYER_SELLER_EQUAL"
        " EXIST_FORBIDDEN_WORD TOTAL_FEE_EXCEED INVALID_PARAMETER BUYER_ENABLE_STATUS_FORBID"
        " BUYER_NOT_EXIST"
    ),
    Meaning.MISCONFIGURED: (
        "PARTNER_ERROR ACCESS_FORBIDDEN SELLER_BEEN_BLOCKED MERCHANT_STATUS_NOT_NORMAL"
    ),
}


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(code, meaning) for meaning, codes in _BY_CODE.items() for code in codes.split()],
)
def test_a_code_means(code: str, meaning: Meaning) -> None:
    assert meaning_of(code, "isv.some-detail") is meaning
    assert meaning_of(code, None) is meaning


@pytest.mark.parametrize("prefix", ["ACQ.", "aop.ACQ.", "AQC.", ""])
@pytest.mark.parametrize(
    ("sub_code", "meaning"),
    [(code, meaning) for meaning, codes in _BY_SUB_CODE.items() for code in codes.split()],
)
def test_a_sub_code_means_the_same_under_any_prefix(
    sub_code: str, meaning: Meaning, prefix: str
) -> None:
    assert meaning_of("40004", prefix + sub_code) is meaning


def test_a_business_failure_without_a_sub_code_is_unknown() -> None:
    assert meaning_of("40004", None) is Meaning.UNKNOWN


def test_every_trade_status_has_its_state() -> None:
    assert TRADE_STATUSES == {
        "WAIT_BUYER_PAY": ObservedState.PENDING,
        "TRADE_SUCCESS": ObservedState.PAID,
        "TRADE_FINISHED": ObservedState.PAID,
        "TRADE_CLOSED": ObservedState.DEAD,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"send_pay_date": "2026-11-23 12:00:00", "receipt_amount": "0.00"},
        {"receipt_amount": "29.05"},
        {"buyer_pay_amount": "0.01"},
        {"fund_bill_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": "29.05"}]},
    ],
)
def test_a_closed_trade_that_shows_money_was_paid(fields: dict[str, object]) -> None:
    assert was_paid(fields)


def test_a_closed_trade_that_shows_none_was_never_paid() -> None:
    assert not was_paid({})
    assert not was_paid({"receipt_amount": "0.00", "buyer_pay_amount": "0.00", "trade_no": "1"})


def test_only_the_payers_own_obstacles_are_soft() -> None:
    declined = failure_of(Meaning.DECLINED, "ACQ.BUYER_BALANCE_NOT_ENOUGH")
    refused = failure_of(Meaning.REFUSED, "ACQ.PAYMENT_REQUEST_HAS_RISK")
    assert (declined.code, declined.advice) == ("payment_declined", DeclineClass.SOFT)
    assert (refused.code, refused.advice) == ("order_refused", DeclineClass.HARD)
    assert declined.decline_code == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
