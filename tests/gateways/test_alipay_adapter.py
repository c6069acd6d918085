"""What Alipay is told and what its answers come to, against a scripted gateway.do."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    InstructionsLost,
    MethodNotSupported,
    OutcomeUnknown,
)
from billing.payment import AppParams, PaymentMethod, QrCode, Redirect
from gateways.alipay.requests import read_yuan
from gateways.gateway import AlreadyOrdered, Observation, ObservedState, Opened, Receipt, Refused
from tests.gateways.alipay_server import AlipayServer, failure, received, signed_answer
from tests.gateways.parties import NOTIFY_URL, NOW, NUMBER, make_order

_PRECREATE = "alipay.trade.precreate"
_QUERY = "alipay.trade.query"
_CLOSE = "alipay.trade.close"
_QR = make_order(PaymentMethod.QR)
_QR_URL = "https://qr.alipay.com/bax03431ljhokirwl38f00a7"
_PAID: dict[str, Any] = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": NUMBER,
    "trade_no": "2026112322001400000000000001",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "29.05",
    "send_pay_date": "2026-11-23 12:31:00",
}
_RECEIPT = Receipt(_PAID["trade_no"], 2905, "CNY", datetime(2026, 11, 23, 4, 31, tzinfo=UTC))


async def _observe(**changes: Any) -> Observation:
    answer = {name: value for name, value in {**_PAID, **changes}.items() if value is not None}
    return await AlipayServer(signed_answer(_QUERY, answer)).gateway().query(_QR)


async def test_a_qr_order_is_placed_with_an_absolute_expiry_in_beijing() -> None:
    server = AlipayServer(
        signed_answer(_PRECREATE, {"code": "10000", "out_trade_no": NUMBER, "qr_code": _QR_URL})
    )
    gateway = server.gateway()
    assert await gateway.open(_QR) == Opened(QrCode(code_url=_QR_URL), reference=None)
    assert server.business == {
        "out_trade_no": NUMBER,
        "total_amount": "29.05",
        "subject": "Gold membership",
        "product_code": "QR_CODE_OFFLINE",
        "time_expire": "2026-11-24 01:00:00",
    }
    told = server.calls[0]
    assert (told["method"], told["notify_url"]) == (_PRECREATE, NOTIFY_URL)
    assert (told["timestamp"], told["sign_type"]) == ("2026-11-23 12:30:15", "RSA2")
    await gateway.open(_QR)
    assert server.calls[0]["biz_content"] == server.calls[1]["biz_content"]


@pytest.mark.parametrize(
    ("method", "api", "product"),
    [
        (PaymentMethod.PAGE, "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
        (PaymentMethod.WAP, "alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    ],
)
async def test_a_page_is_a_signed_address_and_no_call(
    method: PaymentMethod, api: str, product: str
) -> None:
    server = AlipayServer()
    back = "https://shop.example.com/thanks?order=1&x=汉"
    opened = await server.gateway().open(make_order(method, return_url=back))
    assert isinstance(opened, Opened)
    assert isinstance(opened.next_action, Redirect)
    assert server.calls == []
    assert opened.next_action.url.startswith("http://127.0.0.1:9/gateway.do?")
    told = received(urlsplit(opened.next_action.url).query)
    assert (told["method"], told["return_url"], told["notify_url"]) == (api, back, NOTIFY_URL)
    business = json.loads(told["biz_content"])
    assert business.pop("quit_url", None) == (back if method is PaymentMethod.WAP else None)
    assert business == {
        "out_trade_no": NUMBER,
        "total_amount": "29.05",
        "subject": "Gold membership",
        "product_code": product,
        "time_expire": "2026-11-24 01:00:00",
    }


async def test_an_app_order_is_a_signed_string_without_a_return_address() -> None:
    order = make_order(PaymentMethod.APP, return_url="https://shop.example.com/")
    opened = await AlipayServer().gateway().open(order)
    assert isinstance(opened, Opened)
    assert isinstance(opened.next_action, AppParams)
    assert set(opened.next_action.params) == {"order_string"}
    told = received(opened.next_action.params["order_string"])
    assert told["method"] == "alipay.trade.app.pay"
    assert "return_url" not in told
    assert json.loads(told["biz_content"])["product_code"] == "QUICK_MSECURITY_PAY"


@settings(deadline=None, max_examples=60)
@given(
    description=st.text(st.sampled_from('{}",:\\/ &=+%#?汉😀ab1')) | st.text(min_size=1),
    amount=st.integers(1, 99_999_999),
)
async def test_any_description_and_amount_arrive_as_they_were_signed(
    description: str, amount: int
) -> None:
    order = make_order(PaymentMethod.PAGE, description=description, amount_minor=amount)
    opened = await AlipayServer().gateway().open(order)
    assert isinstance(opened, Opened)
    assert isinstance(opened.next_action, Redirect)
    business = json.loads(received(urlsplit(opened.next_action.url).query)["biz_content"])
    assert not set(business["subject"]) & set("/=&")
    assert business["subject"].translate(str.maketrans("／＝＆", "/=&")) == (
        description.translate(str.maketrans("／＝＆", "/=&"))
    )
    assert read_yuan(business["total_amount"]) == amount


async def test_a_method_that_is_not_alipays_is_refused() -> None:
    with pytest.raises(MethodNotSupported):
        await AlipayServer().gateway().open(make_order(PaymentMethod.NATIVE))


@pytest.mark.parametrize(
    "sub_code", ["ACQ.TRADE_HAS_SUCCESS", "ACQ.TRADE_HAS_CLOSE", "ACQ.CONTEXT_INCONSISTENT"]
)
async def test_a_number_in_use_is_to_be_queried(sub_code: str) -> None:
    gateway = AlipayServer(failure(_PRECREATE, "40004", sub_code)).gateway()
    assert await gateway.open(_QR) == AlreadyOrdered()


async def test_a_second_precreate_has_lost_its_instructions() -> None:
    answer = failure(_PRECREATE, "40004", "ACQ.APPLY_PC_MERCHANT_CODE_ERROR")
    with pytest.raises(InstructionsLost):
        await AlipayServer(answer).gateway().open(_QR)


@pytest.mark.parametrize(
    ("sub_code", "code"),
    [
        ("ACQ.PAYMENT_REQUEST_HAS_RISK", "order_refused"),
        ("ACQ.BUYER_BALANCE_NOT_ENOUGH", "payment_declined"),
    ],
)
async def test_a_refusal_is_a_value(sub_code: str, code: str) -> None:
    outcome = await AlipayServer(failure(_PRECREATE, "40004", sub_code)).gateway().open(_QR)
    assert isinstance(outcome, Refused)
    assert (outcome.failure.code, outcome.failure.decline_code) == (code, sub_code)


@pytest.mark.parametrize("operation", ["open", "query", "close"])
@pytest.mark.parametrize(
    ("code", "sub_code", "raised"),
    [
        ("20000", "isp.unknow-error", OutcomeUnknown),
        ("40004", "aop.ACQ.SYSTEM_ERROR", OutcomeUnknown),
        ("40004", "ACQ.A_CODE_NOBODY_KNOWS", OutcomeUnknown),
        ("40005", "isv.app-call-limited", GatewayThrottled),
        ("40002", "isv.invalid-signature", GatewayMisconfigured),
        ("40004", "ACQ.ACCESS_FORBIDDEN", GatewayMisconfigured),
    ],
)
async def test_what_is_no_answer_is_raised_by_every_call(
    operation: str, code: str, sub_code: str, raised: type[Exception]
) -> None:
    method = {"open": _PRECREATE, "query": _QUERY, "close": _CLOSE}[operation]
    gateway = AlipayServer(failure(method, code, sub_code)).gateway()
    with pytest.raises(raised, match=sub_code):
        await getattr(gateway, operation)(_QR)


@pytest.mark.parametrize("operation", ["open", "query", "close"])
@pytest.mark.parametrize("status", [301, 404, 500, 502, 503])
async def test_any_other_http_status_is_unknown(operation: str, status: int) -> None:
    body = signed_answer(_QUERY, _PAID)
    gateway = AlipayServer(httpx.Response(status, content=body)).gateway()
    with pytest.raises(OutcomeUnknown, match=str(status)):
        await getattr(gateway, operation)(_QR)


async def test_a_throttled_call_says_when_to_come_back() -> None:
    gateway = AlipayServer(httpx.Response(429, headers={"retry-after": "7"})).gateway()
    with pytest.raises(GatewayThrottled) as throttled:
        await gateway.query(_QR)
    assert throttled.value.retry_after_seconds == 7


async def test_instructions_for_another_order_are_not_given_to_the_payer() -> None:
    fields = {"code": "10000", "out_trade_no": NUMBER + "02", "qr_code": _QR_URL}
    with pytest.raises(AnswerUntrusted) as untrusted:
        await AlipayServer(signed_answer(_PRECREATE, fields)).gateway().open(_QR)
    assert untrusted.value.reason == "order_mismatch"


async def test_an_opened_order_without_a_code_is_unknown() -> None:
    answer = signed_answer(_PRECREATE, {"code": "10000", "out_trade_no": NUMBER})
    with pytest.raises(OutcomeUnknown, match="qr_code"):
        await AlipayServer(answer).gateway().open(_QR)


@pytest.mark.parametrize("status", ["TRADE_SUCCESS", "TRADE_FINISHED"])
async def test_a_paid_trade_carries_its_receipt(status: str) -> None:
    assert await _observe(trade_status=status) == Observation(
        ObservedState.PAID, status, reference=_PAID["trade_no"], receipt=_RECEIPT
    )


async def test_a_trade_closed_after_a_full_refund_was_paid_all_the_same() -> None:
    seen = await _observe(trade_status="TRADE_CLOSED")
    assert (seen.state, seen.receipt) == (ObservedState.PAID, _RECEIPT)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("WAIT_BUYER_PAY", ObservedState.PENDING),
        ("TRADE_CLOSED", ObservedState.DEAD),
        ("TRADE_PENDING_NEW", ObservedState.UNRECOGNISED),
        (None, ObservedState.UNRECOGNISED),
    ],
)
async def test_an_unpaid_trade_carries_none(status: str | None, state: ObservedState) -> None:
    seen = await _observe(trade_status=status, send_pay_date=None, receipt_amount="0.00")
    assert (seen.state, seen.receipt, seen.reference) == (state, None, _PAID["trade_no"])


async def test_a_trade_that_does_not_exist_is_absent_not_dead() -> None:
    answer = failure(_QUERY, "40004", "ACQ.TRADE_NOT_EXIST")
    seen = await AlipayServer(answer).gateway().query(_QR)
    assert seen == Observation(ObservedState.ABSENT, "ACQ.TRADE_NOT_EXIST")


async def test_an_amount_may_leave_out_its_last_zero() -> None:
    server = AlipayServer(signed_answer(_QUERY, {**_PAID, "total_amount": "88.8"}))
    seen = await server.gateway().query(make_order(PaymentMethod.QR, amount_minor=8880))
    assert seen.receipt is not None
    assert seen.receipt.amount_minor == 8880


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"total_amount": "29.04"}, "amount_mismatch"),
        ({"total_amount": None}, "amount_mismatch"),
        ({"total_amount": "29.050"}, "amount_mismatch"),
        ({"total_amount": "29,05"}, "amount_mismatch"),
        ({"total_amount": 29.05}, "amount_mismatch"),
        ({"trans_currency": "USD"}, "currency_mismatch"),
        ({"out_trade_no": NUMBER + "02"}, "order_mismatch"),
        ({"out_trade_no": None}, "order_mismatch"),
        ({"seller_id": "2088999999999999"}, "merchant_mismatch"),
        ({"app_id": "2021999999999999"}, "merchant_mismatch"),
    ],
)
async def test_money_that_is_not_the_orders_is_not_believed(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await _observe(**changes)
    assert untrusted.value.reason == reason


async def test_a_paid_trade_without_its_number_is_unknown() -> None:
    with pytest.raises(OutcomeUnknown, match="trade_no"):
        await _observe(trade_no=None)


async def test_a_paid_trade_without_its_time_is_paid_now() -> None:
    seen = await _observe(send_pay_date=None)
    assert seen.receipt is not None
    assert seen.receipt.paid_at == NOW


async def test_an_operators_number_is_asked_for_and_must_be_this_orders() -> None:
    server = AlipayServer(signed_answer(_QUERY, _PAID))
    seen = await server.gateway().query(_QR, gateway_number=_PAID["trade_no"])
    assert seen.receipt == _RECEIPT
    assert server.business == {"trade_no": _PAID["trade_no"]}
    with pytest.raises(AnswerUntrusted, match="asked for Alipay's trade 1,"):
        await server.gateway().query(_QR, gateway_number="1")


async def test_close_returns_when_closed() -> None:
    server = AlipayServer(signed_answer(_CLOSE, {"code": "10000", "out_trade_no": NUMBER}))
    await server.gateway().close(_QR)
    assert server.business == {"out_trade_no": NUMBER}


@pytest.mark.parametrize(
    "sub_code",
    [
        "ACQ.TRADE_NOT_EXIST",
        "ACQ.TRADE_STATUS_ERROR",
        "ACQ.REASON_TRADE_STATUS_INVALID",
        "ACQ.REASON_ILLEGAL_STATUS",
        "ACQ.INVALID_PARAMETER",
    ],
)
async def test_close_returns_too_when_alipay_declines_to(sub_code: str) -> None:
    server = AlipayServer(failure(_CLOSE, "40004", sub_code))
    await server.gateway().close(_QR)
    assert len(server.calls) == 1
