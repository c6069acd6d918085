"""Every state and code WeChat Pay documents for the calls made here has its place."""

import pytest

from billing.payment import DeclineClass
from gateways.gateway import ObservedState
from gateways.meaning import Meaning
from gateways.wechatpay.outcomes import (
    DEDUCT_STATES,
    TRADE_STATES,
    decline_of,
    failure_of,
    meaning_of,
    meaning_of_v2,
    refusal_of,
)

_DOCUMENTED = {
    Meaning.REFUSED: (
        "400 PARAM_ERROR,400 INVALID_REQUEST,400 OPENID_MISMATCH,403 RULE_LIMIT,403 TRADE_ERROR,"
        "403 USER_ACCOUNT_ABNORMAL"
    ),
    Meaning.MISCONFIGURED: (
        "400 APPID_MCHID_NOT_MATCH,400 MCH_NOT_EXISTS,404 MCH_NOT_EXISTS,401 SIGN_ERROR,"
        "403 NO_AUTH,403 ACCOUNT_ERROR"
    ),
    Meaning.ORDERED: (
        "400 ORDER_CLOSED,400 ORDERPAID,400 TRADE_OVERDUE,400 REFUND_FEE_MISMATCH,"
        "403 OUT_TRADE_NO_USED"
    ),
    Meaning.ABSENT: (
        "404 ORDER_NOT_EXIST,404 ORDERNOTEXIST,404 ORDER_NOT_EXISTS,404 RESOURCE_NOT_EXISTS,"
        "403 CONTRACT_NOT_EXIST"
    ),
    Meaning.THROTTLED: "429 FREQUENCY_LIMITED,429 RATELIMIT_EXCEEDED",
    Meaning.UNKNOWN: "500 SYSTEM_ERROR,502 BANK_ERROR,503 SERVICE_UNAVAILABLE",
}


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (int(entry.split()[0]), entry.split()[1], meaning)
        for meaning, entries in _DOCUMENTED.items()
        for entry in entries.split(",")
    ],
)
def test_a_code_means(status: int, code: str, meaning: Meaning) -> None:
    assert meaning_of(status, code) is meaning


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (400, Meaning.UNKNOWN),
        (401, Meaning.MISCONFIGURED),
        (403, Meaning.UNKNOWN),
        (404, Meaning.UNKNOWN),
        (429, Meaning.THROTTLED),
        (500, Meaning.UNKNOWN),
        (503, Meaning.UNKNOWN),
    ],
)
@pytest.mark.parametrize("code", [None, "", "A_CODE_NOBODY_KNOWS"])
def test_without_a_code_we_know_the_http_status_decides(
    status: int, code: str | None, meaning: Meaning
) -> None:
    assert meaning_of(status, code) is meaning


def test_every_trade_state_has_its_own() -> None:
    assert TRADE_STATES == {
        "NOTPAY": ObservedState.PENDING,
        "USERPAYING": ObservedState.PENDING,
        "ACCEPT": ObservedState.PROCESSING,
        "SUCCESS": ObservedState.PAID,
        "REFUND": ObservedState.PAID,
        "CLOSED": ObservedState.DEAD,
        "REVOKED": ObservedState.DEAD,
        "PAYERROR": ObservedState.DEAD,
    }


def test_only_a_failed_try_of_the_payer_is_a_decline() -> None:
    declined = failure_of("PAYERROR")
    assert declined is not None
    assert (declined.code, declined.advice) == ("payment_declined", DeclineClass.SOFT)
    assert [failure_of(state) for state in TRADE_STATES if state != "PAYERROR"] == [None] * 7
    refused = refusal_of("RULE_LIMIT")
    assert (refused.code, refused.advice) == ("order_refused", DeclineClass.HARD)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("SYSTEMERROR", Meaning.UNKNOWN),
        ("SOMETHING_NEW", Meaning.UNKNOWN),
        ("", Meaning.UNKNOWN),
        ("ORDERPAID", Meaning.ORDERED),
        ("ORDERCLOSED", Meaning.ORDERED),
        ("ORDER_ACCEPTED", Meaning.ORDERED),
        ("ORDERNOTEXIST", Meaning.ABSENT),
        ("CONTRACT_NOT_EXIST", Meaning.ABSENT),
        ("CONTRACTERROR", Meaning.REFUSED),
        ("NOTENOUGH", Meaning.REFUSED),
        ("RULE_LIMIT", Meaning.REFUSED),
        ("PARAM_ERROR", Meaning.REFUSED),
        ("SIGN_ERROR", Meaning.MISCONFIGURED),
        ("SIGNERROR", Meaning.MISCONFIGURED),
        ("APPID_MCHID_NOT_MATCH", Meaning.MISCONFIGURED),
        ("FREQUENCY_LIMITED", Meaning.THROTTLED),
    ],
)
def test_a_code_of_the_older_interface_means(code: str, meaning: Meaning) -> None:
    assert meaning_of_v2(code) is meaning


@pytest.mark.parametrize(
    ("given", "code", "advice"),
    [
        ("NOTENOUGH", "payment_declined", DeclineClass.SOFT),
        ("NOT_ENOUGH", "payment_declined", DeclineClass.SOFT),
        ("PAY_FAIL", "payment_declined", DeclineClass.SOFT),
        ("ACCOUNT_ERROR", "payment_declined", DeclineClass.HARD),
        ("USER_ACCOUNT_ABNORMAL", "payment_declined", DeclineClass.HARD),
        ("CONTRACT_NOT_EXIST", "mandate_ended", DeclineClass.HARD),
        ("CONTRACTERROR", "mandate_ended", DeclineClass.HARD),
        ("RULE_LIMIT", "outside_window", DeclineClass.SOFT),
        ("RULELIMIT", "outside_window", DeclineClass.SOFT),
        ("PARAM_ERROR", "order_refused", DeclineClass.HARD),
    ],
)
def test_why_a_contract_was_not_charged(given: str, code: str, advice: DeclineClass) -> None:
    failure = decline_of(given)
    assert (failure.code, failure.decline_code, failure.advice) == (code, given, advice)


def test_the_states_of_a_charge_by_contract() -> None:
    assert {status for status in DEDUCT_STATES if DEDUCT_STATES[status] is ObservedState.PAID} == {
        "SUCCESS",
        "REFUND",
    }
    for status in ("ACCEPT", "NOTPAY", "USERPAYING"):
        assert DEDUCT_STATES[status] is ObservedState.PROCESSING
    for status in ("PAY_FAIL", "PAYERROR", "CLOSED", "REVOKED"):
        assert DEDUCT_STATES[status] is ObservedState.DEAD
