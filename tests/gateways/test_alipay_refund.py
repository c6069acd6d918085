"""Refunds by Alipay against a scripted gateway.do."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    BalanceInsufficient,
    GatewayMisconfigured,
    GatewayThrottled,
    OutcomeUnknown,
)
from billing.payment import DeclineClass
from gateways.gateway import RefundObservation, RefundOrder, RefundState
from tests.gateways.alipay_server import AlipayServer, failure, signed_answer
from tests.gateways.parties import NOTIFY_URL, NOW, NUMBER

REFUND = "alipay.trade.refund"
QUERY = "alipay.trade.fastpay.refund.query"
REFUND_ID = "ref_01jd9q8x1zf6w8v7r3m2k4n5p6"
TRADE_NO = "2026112322001400000000000001"
ORDER = RefundOrder(
    number=REFUND_ID,
    payment_number=f"{NUMBER}02",
    payment_reference=TRADE_NO,
    paid_minor=2905,
    amount_minor=905,
    currency="CNY",
    reason='"会员" &+= 1',
    created_at=NOW,
)
_ASKED: dict[str, Any] = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": f"{NUMBER}02",
    "trade_no": TRADE_NO,
    "fund_change": "Y",
    "refund_fee": "19.05",
    "gmt_refund_pay": "2026-11-23 12:31:05",
}
_QUERIED: dict[str, Any] = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": f"{NUMBER}02",
    "trade_no": TRADE_NO,
    "out_request_no": REFUND_ID,
    "refund_status": "REFUND_SUCCESS",
    "refund_amount": "9.05",
    "total_amount": "29.05",
    "gmt_refund_pay": "2026-11-23 12:31:05",
}
_FIELDS = {"refund": _ASKED, "query_refund": _QUERIED}
_METHODS = {"refund": REFUND, "query_refund": QUERY}
_REFUNDED_AT = datetime(2026, 11, 23, 4, 31, 5, tzinfo=UTC)
_DONE = RefundObservation(RefundState.SUCCEEDED, "fund_change Y", refunded_at=_REFUNDED_AT)
_FOUND = replace(_DONE, status="REFUND_SUCCESS")
_NOTHING = {"code": "10000", "msg": "Success"}

either = pytest.mark.parametrize("operation", _METHODS)


def told(operation: str, *, owner: str = "gateway", **changes: Any) -> bytes:
    """The operation's good answer, signed; None takes a field out."""
    fields = {**_FIELDS[operation], **changes}
    return signed_answer(
        _METHODS[operation],
        {name: value for name, value in fields.items() if value is not None},
        owner=owner,
    )


async def ask(operation: str, answer: bytes | httpx.Response, **changes: Any) -> Any:
    gateway = AlipayServer(answer).gateway()
    return await getattr(gateway, operation)(replace(ORDER, **changes))


def refusing(word: str, found: bytes | httpx.Response) -> AlipayServer:
    """Refuses refunds with `word`, and answers queries with `found`."""
    return AlipayServer(failure(REFUND, "40004", f"ACQ.{word}"), answers={QUERY: found})


async def test_a_refund_is_asked_for_and_asked_after_under_its_own_id() -> None:
    server = AlipayServer(told("refund"), answers={QUERY: told("query_refund")})
    gateway = server.gateway()
    assert await gateway.refund(ORDER) == _DONE
    assert server.business == {
        "out_trade_no": f"{NUMBER}02",
        "out_request_no": REFUND_ID,
        "refund_amount": "9.05",
        "refund_reason": '"会员" &+= 1',
    }
    assert (server.calls[0]["method"], server.calls[0]["notify_url"]) == (REFUND, NOTIFY_URL)
    assert await gateway.query_refund(ORDER) == _FOUND
    assert server.business == {"out_trade_no": f"{NUMBER}02", "out_request_no": REFUND_ID}
    assert server.calls[1]["method"] == QUERY


async def test_a_repeat_is_told_with_the_same_business() -> None:
    server = AlipayServer(told("refund", fund_change="N"))
    gateway = server.gateway()
    await gateway.refund(ORDER)
    await gateway.refund(replace(ORDER, reference="whatever"))
    assert server.calls[0]["biz_content"] == server.calls[1]["biz_content"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1, "0.01"), (10, "0.10"), (100, "1.00"), (2905, "29.05"), (99_999_999, "999999.99")],
)
async def test_an_amount_is_told_in_yuan(amount: int, text: str) -> None:
    server = AlipayServer(told("refund", refund_fee=text))
    order = replace(ORDER, amount_minor=amount, paid_minor=amount)
    assert await server.gateway().refund(order) == _DONE
    assert server.business["refund_amount"] == text


async def test_a_reason_is_cut_to_256_characters() -> None:
    server = AlipayServer(told("refund"))
    await server.gateway().refund(replace(ORDER, reason="退" * 257))
    assert server.business["refund_reason"] == "退" * 256


@pytest.mark.parametrize("moved", ["N", None, "", "y", 1, True])
@pytest.mark.parametrize("refund_fee", ["9.05", "19.05", "0.00", None])
async def test_without_its_word_that_money_moved_a_refund_is_under_way(
    moved: object, refund_fee: str | None
) -> None:
    """A repeat and a refund that still waits are told alike: only a query tells them apart."""
    seen = await ask("refund", told("refund", fund_change=moved, refund_fee=refund_fee))
    assert (seen.state, seen.refunded_at) == (RefundState.PROCESSING, None)


@pytest.mark.parametrize("refund_fee", ["9.05", "19.05", "29.05", "29.1"])
async def test_the_sum_given_back_is_the_trades_and_not_this_refunds(refund_fee: str) -> None:
    seen = await ask("refund", told("refund", refund_fee=refund_fee), paid_minor=2910)
    assert seen == _DONE


@pytest.mark.parametrize("refund_fee", ["9.04", "0.00", "29.06"])
async def test_a_sum_this_refund_cannot_be_part_of_is_not_believed(refund_fee: str) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await ask("refund", told("refund", refund_fee=refund_fee))
    assert untrusted.value.reason == "amount_mismatch"


@pytest.mark.parametrize("amount", [None, "9.050", "9,05", "-9.05", 9.05, 905, True])
@pytest.mark.parametrize(
    ("operation", "name"), [("refund", "refund_fee"), ("query_refund", "refund_amount")]
)
async def test_a_refund_said_to_be_done_without_an_amount_is_unknown(
    operation: str, name: str, amount: object
) -> None:
    changes: dict[str, Any] = {name: amount}
    with pytest.raises(OutcomeUnknown, match=name):
        await ask(operation, told(operation, **changes))


@either
@pytest.mark.parametrize("at", [None, "yesterday", "2026-11-23T12:31:05+08:00", 7])
async def test_a_refund_may_be_done_at_a_time_nobody_tells(operation: str, at: object) -> None:
    seen = await ask(operation, told(operation, gmt_refund_pay=at))
    assert (seen.state, seen.refunded_at) == (RefundState.SUCCEEDED, None)


@either
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"out_trade_no": NUMBER}, "order_mismatch"),
        ({"out_trade_no": None}, "order_mismatch"),
        ({"trade_no": "2026112322001400000000000002"}, "order_mismatch"),
        ({"seller_id": "2088999999999999"}, "merchant_mismatch"),
        ({"app_id": "2021999999999999"}, "merchant_mismatch"),
        ({"refund_currency": "USD"}, "currency_mismatch"),
        ({"trans_currency": "USD"}, "currency_mismatch"),
    ],
)
async def test_an_answer_about_other_money_is_not_believed(
    operation: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await ask(operation, told(operation, **changes))
    assert untrusted.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"out_request_no": "ref_01jd9q8x1zf6w8v7r3m2k4n5p7"}, "refund_mismatch"),
        ({"refund_amount": "9.04"}, "amount_mismatch"),
        ({"refund_amount": "29.05"}, "amount_mismatch"),
        ({"total_amount": "29.04"}, "amount_mismatch"),
    ],
)
async def test_a_refund_found_is_this_one_or_not_believed(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await ask("query_refund", told("query_refund", **changes))
    assert untrusted.value.reason == reason


@pytest.mark.parametrize("left_out", ["out_request_no", "total_amount", "trade_no"])
async def test_what_a_query_leaves_out_is_no_lie(left_out: str) -> None:
    changes: dict[str, Any] = {left_out: None}
    assert await ask("query_refund", told("query_refund", **changes)) == _FOUND


async def test_an_amount_may_leave_out_its_last_zero() -> None:
    seen = await ask("query_refund", told("query_refund", refund_amount="8.8"), amount_minor=880)
    assert seen == _FOUND


@pytest.mark.parametrize("status", ["REFUND_PROCESSING", "REFUND_FAIL", "refund_success"])
async def test_a_status_nobody_knows_is_not_guessed_at(status: str) -> None:
    seen = await ask("query_refund", told("query_refund", refund_status=status))
    assert seen == RefundObservation(RefundState.UNRECOGNISED, status)


@pytest.mark.parametrize(
    "answer",
    [
        signed_answer(QUERY, _NOTHING),
        told("query_refund", refund_status=None),
        failure(QUERY, "40004", "ACQ.TRADE_NOT_EXIST"),
    ],
)
async def test_a_refund_without_a_status_is_absent(answer: bytes) -> None:
    seen = await ask("query_refund", answer)
    assert (seen.state, seen.failure) == (RefundState.ABSENT, None)


_REFUSALS = [
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
]
refusals = pytest.mark.parametrize("word", _REFUSALS)


@refusals
async def test_a_refusal_for_good_fails_the_refund(word: str) -> None:
    server = refusing(word, signed_answer(QUERY, _NOTHING))
    seen = await server.gateway().refund(ORDER)
    assert (seen.state, seen.status, seen.reference) == (RefundState.FAILED, word, None)
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.decline_code) == ("refund_refused", word)
    assert seen.failure.advice is DeclineClass.HARD
    assert [call["method"] for call in server.calls] == [REFUND, QUERY]


@pytest.mark.parametrize("prefix", ["ACQ.", "aop.ACQ.", "AQC.", ""])
async def test_a_refusal_is_known_by_the_end_of_its_code(prefix: str) -> None:
    answer = failure(REFUND, "40004", f"{prefix}TRADE_HAS_FINISHED")
    server = AlipayServer(answer, answers={QUERY: signed_answer(QUERY, _NOTHING)})
    seen = await server.gateway().refund(ORDER)
    assert (seen.state, seen.status) == (RefundState.FAILED, "TRADE_HAS_FINISHED")


@refusals
async def test_a_refund_that_is_there_is_not_refused(word: str) -> None:
    """One that gave back all there was closes its trade, and so seems refused when repeated."""
    assert await refusing(word, told("query_refund")).gateway().refund(ORDER) == _FOUND


@pytest.mark.parametrize("word", ["TRADE_HAS_CLOSE", "INVALID_PARAMETER"])
@pytest.mark.parametrize(
    ("found", "raised"),
    [
        (httpx.Response(500), OutcomeUnknown),
        (failure(QUERY, "40004", "ACQ.SYSTEM_ERROR"), OutcomeUnknown),
        (told("query_refund", owner="stranger"), OutcomeUnknown),
        (told("query_refund", out_request_no="ref_other"), AnswerUntrusted),
        (httpx.Response(429), GatewayThrottled),
    ],
)
async def test_a_refusal_is_not_believed_while_nobody_knows_of_the_refund(
    word: str, found: bytes | httpx.Response, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await refusing(word, found).gateway().refund(ORDER)


@pytest.mark.parametrize("code", ["20000", "10003"])
async def test_only_a_failure_of_the_business_refuses(code: str) -> None:
    with pytest.raises(OutcomeUnknown):
        await ask("refund", failure(REFUND, code, "ACQ.TRADE_HAS_FINISHED"))


async def test_an_unsigned_refusal_is_not_believed() -> None:
    node = {"code": "40004", "msg": "Business Failed", "sub_code": "ACQ.TRADE_HAS_FINISHED"}
    body = json.dumps({"alipay_trade_refund_response": node}).encode()
    server = AlipayServer(body, answers={QUERY: signed_answer(QUERY, _NOTHING)})
    with pytest.raises(OutcomeUnknown):
        await server.gateway().refund(ORDER)
    assert len(server.calls) == 1


async def test_an_empty_account_is_told_at_once() -> None:
    server = AlipayServer(failure(REFUND, "40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH"))
    with pytest.raises(BalanceInsufficient):
        await server.gateway().refund(ORDER)
    assert len(server.calls) == 1


async def test_a_number_known_with_another_amount_is_for_a_person() -> None:
    server = AlipayServer(failure(REFUND, "40004", "ACQ.DISCORDANT_REPEAT_REQUEST"))
    with pytest.raises(AnswerUntrusted) as untrusted:
        await server.gateway().refund(ORDER)
    assert untrusted.value.reason == "amount_mismatch"
    assert len(server.calls) == 1


@either
@pytest.mark.parametrize(
    ("code", "sub_code", "raised"),
    [
        ("20000", "isp.unknow-error", OutcomeUnknown),
        ("40004", "ACQ.SYSTEM_ERROR", OutcomeUnknown),
        ("40004", "ACQ.REASON_TRADE_BEEN_FREEZEN", OutcomeUnknown),
        ("40004", "ACQ.A_CODE_NOBODY_KNOWS", OutcomeUnknown),
        ("40004", None, OutcomeUnknown),
        ("40005", "isv.app-call-limited", GatewayThrottled),
        ("40004", "ACQ.SYSTEM_RATE_LIMIT", GatewayThrottled),
        ("40004", "ACQ.USER_RATE_LIMIT", GatewayThrottled),
        ("40002", "isv.invalid-signature", GatewayMisconfigured),
        ("40006", "isv.insufficient-isv-permissions", GatewayMisconfigured),
        ("40004", "ACQ.ACCESS_FORBIDDEN", GatewayMisconfigured),
    ],
)
async def test_what_is_no_answer_is_raised(
    operation: str, code: str, sub_code: str | None, raised: type[Exception]
) -> None:
    with pytest.raises(raised, match=sub_code or code):
        await ask(operation, failure(_METHODS[operation], code, sub_code))


@either
async def test_a_throttled_call_says_when_to_come_back(operation: str) -> None:
    with pytest.raises(GatewayThrottled) as throttled:
        await ask(operation, httpx.Response(429, headers={"retry-after": "7"}))
    assert throttled.value.retry_after_seconds == 7


_UNVERIFIABLE: dict[str, Callable[[str], bytes | httpx.Response]] = {
    "unsigned": lambda operation: json.dumps(
        {f"{_METHODS[operation].replace('.', '_')}_response": _FIELDS[operation]}
    ).encode(),
    "signed by another": lambda operation: told(operation, owner="stranger"),
    "altered": lambda operation: told(operation).replace(b"9.05", b"9.06"),
    "of another call": lambda _: signed_answer("alipay.trade.query", _QUERIED),
    "cut short": lambda operation: told(operation)[:-40],
    "no content": lambda _: b"",
    "no object": lambda _: b"[]",
    "garbage": lambda _: b"\xff\xfe<html>",
    "the gateway's gateway": lambda _: httpx.Response(502, content=b"<html>bad gateway</html>"),
    "moved": lambda operation: httpx.Response(301, content=told(operation)),
}


@either
@pytest.mark.parametrize("name", _UNVERIFIABLE)
async def test_what_cannot_be_verified_is_an_unknown_outcome(operation: str, name: str) -> None:
    server = AlipayServer(_UNVERIFIABLE[name](operation))
    with pytest.raises(OutcomeUnknown):
        await getattr(server.gateway(), operation)(ORDER)
    assert len(server.calls) == 1
