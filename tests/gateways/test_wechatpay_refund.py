"""Refunds by WeChat Pay against a scripted host."""

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
from gateways.gateway import RefundObservation, RefundOrder, RefundState
from tests.gateways.parties import NOTIFY_URL, NOW, NUMBER
from tests.gateways.wechatpay_server import (
    WechatpayServer,
    error,
    signature_headers,
    signed_answer,
)

REFUND_ID = "ref_01jd9q8x1zf6w8v7r3m2k4n5p6"
TRANSACTION = "4200000000202611231234567890"
PATH = "/v3/refund/domestic/refunds"
ORDER = RefundOrder(
    number=REFUND_ID,
    payment_number=f"{NUMBER}02",
    payment_reference=TRANSACTION,
    paid_minor=2905,
    amount_minor=905,
    currency="CNY",
    reason='"会员" &+= 1',
    created_at=NOW,
)
_AMOUNT = {
    "refund": 905,
    "total": 2905,
    "currency": "CNY",
    "payer_total": 2900,
    "payer_refund": 900,
}
_FIELDS: dict[str, Any] = {
    "refund_id": "50300000002026112312345678901",
    "out_refund_no": REFUND_ID,
    "transaction_id": TRANSACTION,
    "out_trade_no": f"{NUMBER}02",
    "channel": "ORIGINAL",
    "user_received_account": "支付用户零钱",
    "create_time": "2026-11-23T12:31:00+08:00",
    "success_time": "2026-11-23T12:31:05+08:00",
    "status": "SUCCESS",
    "amount": _AMOUNT,
}
_DONE = RefundObservation(
    RefundState.SUCCEEDED,
    "SUCCESS",
    reference=_FIELDS["refund_id"],
    refunded_at=datetime(2026, 11, 23, 4, 31, 5, tzinfo=UTC),
)
_ABSENT = error(404, "RESOURCE_NOT_EXISTS")


def told(**changes: Any) -> httpx.Response:
    """A refund as WeChat Pay tells it, signed; None takes a field out."""
    fields = {**_FIELDS, **changes}
    return signed_answer({name: value for name, value in fields.items() if value is not None})


def ask(server: WechatpayServer, operation: str) -> Any:
    return getattr(server.gateway(), operation)(ORDER)


either = pytest.mark.parametrize("operation", ["refund", "query_refund"])


async def test_a_refund_is_asked_for_and_asked_after_under_its_own_id() -> None:
    server = WechatpayServer(told())
    gateway = server.gateway()
    assert await gateway.refund(ORDER) == _DONE
    assert (server.requests[0].method, server.path) == ("POST", PATH)
    assert server.body == {
        "transaction_id": TRANSACTION,
        "out_refund_no": REFUND_ID,
        "reason": '"会员" &+= 1',
        "notify_url": NOTIFY_URL,
        "amount": {"refund": 905, "total": 2905, "currency": "CNY"},
    }
    assert await gateway.query_refund(replace(ORDER, reference=_DONE.reference)) == _DONE
    assert (server.requests[1].method, server.path) == ("GET", f"{PATH}/{REFUND_ID}")


async def test_a_repeat_is_told_with_the_same_bytes() -> None:
    server = WechatpayServer(told(status="PROCESSING", success_time=None))
    gateway = server.gateway()
    await gateway.refund(ORDER)
    await gateway.refund(replace(ORDER, reference=_DONE.reference))
    assert server.requests[0].content == server.requests[1].content


async def test_a_reason_is_cut_to_eighty_characters() -> None:
    server = WechatpayServer(told())
    await server.gateway().refund(replace(ORDER, reason="退" * 81))
    assert server.body["reason"] == "退" * 80


@either
@pytest.mark.parametrize(
    ("status", "state", "failure"),
    [
        ("SUCCESS", RefundState.SUCCEEDED, None),
        ("PROCESSING", RefundState.PROCESSING, None),
        ("CLOSED", RefundState.FAILED, "refund_failed"),
        ("ABNORMAL", RefundState.STUCK, "refund_stuck"),
        ("NEW_STATUS", RefundState.UNRECOGNISED, None),
        (None, RefundState.UNRECOGNISED, None),
        (7, RefundState.UNRECOGNISED, None),
    ],
)
async def test_every_status_has_its_state(
    operation: str, status: object, state: RefundState, failure: str | None
) -> None:
    seen = await ask(WechatpayServer(told(status=status)), operation)
    assert (seen.state, seen.reference) == (state, _DONE.reference)
    assert seen.status == (status if isinstance(status, str) else "(none)")
    assert (seen.failure and seen.failure.code) == failure
    if seen.failure:
        assert seen.failure.decline_code == status
    assert seen.refunded_at == (_DONE.refunded_at if state is RefundState.SUCCEEDED else None)


@pytest.mark.parametrize("success_time", [None, "yesterday", "2026-11-23T12:31:00", 7])
async def test_a_refund_may_be_done_at_a_time_nobody_tells(success_time: object) -> None:
    seen = await WechatpayServer(told(success_time=success_time)).gateway().refund(ORDER)
    assert seen == replace(_DONE, refunded_at=None)


@either
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"out_refund_no": "ref_01jd9q8x1zf6w8v7r3m2k4n5p7"}, "refund_mismatch"),
        ({"out_refund_no": None}, "refund_mismatch"),
        ({"out_trade_no": NUMBER}, "order_mismatch"),
        ({"out_trade_no": None}, "order_mismatch"),
        ({"transaction_id": "4200000000202611231234567891"}, "order_mismatch"),
        ({"transaction_id": None}, "order_mismatch"),
        ({"amount": {**_AMOUNT, "refund": 904}}, "amount_mismatch"),
        ({"amount": {**_AMOUNT, "refund": "905"}}, "amount_mismatch"),
        ({"amount": {**_AMOUNT, "refund": 905.0}}, "amount_mismatch"),
        ({"amount": {**_AMOUNT, "total": 2904}}, "amount_mismatch"),
        ({"amount": {"refund": 905}}, "amount_mismatch"),
        ({"amount": {**_AMOUNT, "currency": "USD"}}, "currency_mismatch"),
        ({"amount": 905}, "amount_mismatch"),
        ({"amount": None}, "amount_mismatch"),
    ],
)
async def test_an_answer_about_other_money_is_not_believed(
    operation: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await ask(WechatpayServer(told(**changes)), operation)
    assert untrusted.value.reason == reason


async def test_true_is_not_one_fen() -> None:
    server = WechatpayServer(told(amount={**_AMOUNT, "refund": True}))
    with pytest.raises(AnswerUntrusted):
        await server.gateway().refund(replace(ORDER, amount_minor=1))


@pytest.mark.parametrize(
    "absent", ["RESOURCE_NOT_EXISTS", "ORDER_NOT_EXIST", "ORDERNOTEXIST", "ORDER_NOT_EXISTS"]
)
async def test_a_refund_never_accepted_is_absent(absent: str) -> None:
    seen = await WechatpayServer(error(404, absent)).gateway().query_refund(ORDER)
    assert seen == RefundObservation(RefundState.ABSENT, absent)


_REFUSALS = [
    (400, "INVALID_REQUEST"),
    (400, "PARAM_ERROR"),
    (400, "REFUND_FEE_MISMATCH"),
    (400, "TRADE_OVERDUE"),
    (403, "RULE_LIMIT"),
    (403, "TRADE_ERROR"),
    (403, "USER_ACCOUNT_ABNORMAL"),
    (404, "RESOURCE_NOT_EXISTS"),
    (404, "ORDER_NOT_EXIST"),
]


@pytest.mark.parametrize(("status", "code"), _REFUSALS)
async def test_a_refusal_for_good_fails_the_refund(status: int, code: str) -> None:
    server = WechatpayServer(error(status, code), answer_to_get=_ABSENT)
    seen = await server.gateway().refund(ORDER)
    assert (seen.state, seen.status, seen.reference) == (RefundState.FAILED, code, None)
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.decline_code) == ("refund_refused", code)
    assert [request.method for request in server.requests] == ["POST", "GET"]
    assert server.path == f"{PATH}/{REFUND_ID}"


@pytest.mark.parametrize(
    ("status", "code"), [*_REFUSALS, (429, "FREQUENCY_LIMITED"), (429, "RATELIMIT_EXCEEDED")]
)
async def test_a_refund_that_is_there_is_not_refused(status: int, code: str) -> None:
    server = WechatpayServer(error(status, code), answer_to_get=told())
    assert await server.gateway().refund(ORDER) == _DONE


@pytest.mark.parametrize("code", ["INVALID_REQUEST", "USER_ACCOUNT_ABNORMAL"])
@pytest.mark.parametrize(
    ("found", "raised"),
    [
        (error(500, "SYSTEM_ERROR"), OutcomeUnknown),
        (error(400, "PARAM_ERROR"), OutcomeUnknown),
        (error(429, "RATELIMIT_EXCEEDED"), GatewayThrottled),
        (httpx.Response(200, content=told().content), OutcomeUnknown),
        (told(out_refund_no="ref_other"), AnswerUntrusted),
    ],
)
async def test_a_refusal_is_not_believed_while_nobody_knows_of_the_refund(
    code: str, found: httpx.Response, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await WechatpayServer(error(400, code), answer_to_get=found).gateway().refund(ORDER)


@pytest.mark.parametrize("code", ["FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED"])
async def test_a_refund_limited_for_its_rate_may_be_in_progress(code: str) -> None:
    server = WechatpayServer(error(429, code), answer_to_get=_ABSENT)
    with pytest.raises(OutcomeUnknown) as unknown:
        await server.gateway().refund(ORDER)
    assert not isinstance(unknown.value, GatewayThrottled)
    assert [request.method for request in server.requests] == ["POST", "GET"]


async def test_an_empty_account_is_told_at_once() -> None:
    server = WechatpayServer(error(403, "NOT_ENOUGH"))
    with pytest.raises(BalanceInsufficient):
        await server.gateway().refund(ORDER)
    assert len(server.requests) == 1


async def test_a_throttled_query_says_when_to_come_back() -> None:
    answer = error(429, "RATELIMIT_EXCEEDED")
    answer.headers["retry-after"] = "7"
    with pytest.raises(GatewayThrottled) as throttled:
        await WechatpayServer(answer).gateway().query_refund(ORDER)
    assert throttled.value.retry_after_seconds == 7


_UNVERIFIABLE: dict[str, Callable[[], httpx.Response]] = {
    "unsigned": lambda: httpx.Response(200, content=told().content),
    "signed by another": lambda: signed_answer(_FIELDS, owner="stranger"),
    "signed long ago": lambda: signed_answer(_FIELDS, at=datetime(2026, 11, 22, tzinfo=UTC)),
    "altered": lambda: httpx.Response(
        200, content=told().content.replace(b"905", b"906"), headers=dict(told().headers)
    ),
    "no content": lambda: httpx.Response(204),
    "no content, signed": lambda: httpx.Response(204, headers=signature_headers(b"")),
    "no object": lambda: httpx.Response(200, content=b"[]", headers=signature_headers(b"[]")),
    "a badly signed refusal": lambda: signed_answer(
        {"code": "INVALID_REQUEST"}, 400, owner="stranger"
    ),
    "still working": lambda: signed_answer(_FIELDS, 202),
    "system error": lambda: error(500, "SYSTEM_ERROR"),
    "bank error": lambda: error(502, "BANK_ERROR"),
    "gateway's gateway": lambda: httpx.Response(502, content=b"<html>bad gateway</html>"),
    "a code nobody knows": lambda: error(403, "A_CODE_NOBODY_KNOWS"),
}


@either
@pytest.mark.parametrize("name", _UNVERIFIABLE)
async def test_what_is_no_answer_is_an_unknown_outcome(operation: str, name: str) -> None:
    server = WechatpayServer(_UNVERIFIABLE[name]())
    with pytest.raises(OutcomeUnknown):
        await ask(server, operation)
    assert len(server.requests) == 1


@either
@pytest.mark.parametrize(
    ("status", "code"), [(401, "SIGN_ERROR"), (403, "NO_AUTH"), (403, "ACCOUNT_ERROR")]
)
async def test_what_only_an_operator_can_change(operation: str, status: int, code: str) -> None:
    with pytest.raises(GatewayMisconfigured):
        await ask(WechatpayServer(error(status, code)), operation)
