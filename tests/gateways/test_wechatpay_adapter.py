"""What WeChat Pay is told and what its answers come to, against a scripted host."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    InvalidRequest,
    MethodNotSupported,
    OutcomeUnknown,
)
from billing.payment import AppParams, JsapiParams, Payer, PaymentMethod, QrCode, Redirect
from gateways.gateway import AlreadyOrdered, Observation, ObservedState, Opened, Receipt, Refused
from tests.gateways.parties import NOTIFY_URL, NOW, NUMBER, key_of, make_order, sign_by_hand
from tests.gateways.wechatpay_server import (
    NONCE,
    WechatpayServer,
    error,
    signature_headers,
    signed_answer,
)

_NATIVE = make_order(PaymentMethod.NATIVE)
_PLACED = {
    "appid": "wx0000000000000001",
    "mchid": "1900000001",
    "description": "Gold membership",
    "out_trade_no": NUMBER,
    "time_expire": "2026-11-24T01:00:00+08:00",
    "notify_url": NOTIFY_URL,
    "amount": {"total": 2905, "currency": "CNY"},
}
_PAID: dict[str, Any] = {
    "appid": "wx0000000000000001",
    "mchid": "1900000001",
    "out_trade_no": NUMBER,
    "transaction_id": "4200000000202611231234567890",
    "trade_type": "NATIVE",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
    "success_time": "2026-11-23T12:31:00+08:00",
    "payer": {"openid": "o1"},
    "amount": {"total": 2905, "payer_total": 2900, "currency": "CNY", "payer_currency": "CNY"},
}
_RECEIPT = Receipt(_PAID["transaction_id"], 2905, "CNY", datetime(2026, 11, 23, 4, 31, tzinfo=UTC))


async def _observe(**changes: Any) -> Observation:
    answer = {name: value for name, value in {**_PAID, **changes}.items() if value is not None}
    return await WechatpayServer(signed_answer(answer)).gateway().query(_NATIVE)


async def test_a_native_order_is_placed_with_an_absolute_expiry() -> None:
    server = WechatpayServer(signed_answer({"code_url": "weixin://wxpay/bizpayurl?pr=abc"}))
    gateway = server.gateway()
    wanted = Opened(QrCode(code_url="weixin://wxpay/bizpayurl?pr=abc"), reference=None)
    assert await gateway.open(_NATIVE) == wanted
    assert server.path == "/v3/pay/transactions/native"
    assert server.body == _PLACED
    await gateway.open(_NATIVE)
    assert server.requests[0].content == server.requests[1].content


async def test_a_jsapi_order_names_its_payer_and_signs_for_the_page() -> None:
    server = WechatpayServer(signed_answer({"prepay_id": "wx201410272009395522657"}))
    order = make_order(PaymentMethod.JSAPI, payer=Payer(openid="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"))
    opened = await server.gateway().open(order)
    assert isinstance(opened, Opened)
    assert isinstance(opened.next_action, JsapiParams)
    assert server.path == "/v3/pay/transactions/jsapi"
    assert server.body == {**_PLACED, "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}}
    timestamp = str(int(NOW.timestamp()))
    package = "prepay_id=wx201410272009395522657"
    text = f"wx0000000000000001\n{timestamp}\n{NONCE}\n{package}\n"
    assert opened.next_action.params["package"] == package
    assert opened.next_action.params["paySign"] == sign_by_hand(text.encode(), key_of("merchant"))


async def test_an_app_order_signs_for_the_mobile_sdk() -> None:
    server = WechatpayServer(signed_answer({"prepay_id": "wx2014"}))
    opened = await server.gateway().open(make_order(PaymentMethod.APP))
    assert isinstance(opened, Opened)
    assert isinstance(opened.next_action, AppParams)
    assert server.path == "/v3/pay/transactions/app"
    assert server.body == _PLACED
    assert opened.next_action.params["partnerid"] == "1900000001"
    assert opened.next_action.params["prepayid"] == "wx2014"


@pytest.mark.parametrize(
    ("return_url", "more"),
    [
        (None, ""),
        (
            "https://shop.example.com/?a=b",
            "&redirect_url=https%3A%2F%2Fshop.example.com%2F%3Fa%3Db",
        ),
    ],
)
async def test_an_h5_order_names_the_payers_address(return_url: str | None, more: str) -> None:
    h5_url = "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx2014&package=1"
    server = WechatpayServer(signed_answer({"h5_url": h5_url}))
    payer = Payer(client_ip="203.0.113.7")
    opened = await server.gateway().open(
        make_order(PaymentMethod.H5, payer=payer, return_url=return_url)
    )
    assert opened == Opened(Redirect(url=h5_url + more), reference=None)
    scene = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    assert server.body == {**_PLACED, "scene_info": scene}


@pytest.mark.parametrize(
    ("method", "param"),
    [(PaymentMethod.JSAPI, "payer.openid"), (PaymentMethod.H5, "payer.client_ip")],
)
@pytest.mark.parametrize("payer", [None, Payer()])
async def test_a_payer_who_is_not_named_is_missed(
    method: PaymentMethod, param: str, payer: Payer | None
) -> None:
    server = WechatpayServer(signed_answer({}))
    with pytest.raises(InvalidRequest) as missed:
        await server.gateway().open(make_order(method, payer=payer))
    assert missed.value.param == param
    assert server.requests == []


async def test_a_method_that_is_not_wechats_is_refused() -> None:
    with pytest.raises(MethodNotSupported):
        await WechatpayServer(signed_answer({})).gateway().open(make_order(PaymentMethod.PAGE))


@settings(deadline=None, max_examples=25)
@given(
    description=st.text(st.sampled_from('{}",:\\/ &=+%#?汉😀ab1')) | st.text(min_size=1),
    number=st.text(st.sampled_from("0aZ_-|*"), min_size=6, max_size=32),
)
async def test_whatever_is_in_an_order_is_signed_as_it_goes_over_the_wire(
    description: str, number: str
) -> None:
    order = make_order(PaymentMethod.NATIVE, description=description, number=number)
    server = WechatpayServer(signed_answer({"code_url": "weixin://x"}))
    gateway = server.gateway()
    await gateway.open(order)
    assert (server.body["description"], server.body["out_trade_no"]) == (description, number)
    server.answer = signed_answer({**_PAID, "out_trade_no": number})
    assert (await gateway.query(order)).state is ObservedState.PAID
    server.answer = httpx.Response(204)
    await gateway.close(order)
    assert server.requests[-1].url.path.endswith(f"/out-trade-no/{number}/close")


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "OUT_TRADE_NO_USED"), (400, "ORDER_CLOSED"), (400, "ORDERPAID")],
)
async def test_a_number_in_use_is_to_be_queried(status: int, code: str) -> None:
    gateway = WechatpayServer(error(status, code)).gateway()
    assert await gateway.open(_NATIVE) == AlreadyOrdered()


@pytest.mark.parametrize("code", ["PARAM_ERROR", "RULE_LIMIT", "USER_ACCOUNT_ABNORMAL"])
async def test_a_refusal_is_a_value(code: str) -> None:
    outcome = await WechatpayServer(error(400, code)).gateway().open(_NATIVE)
    assert isinstance(outcome, Refused)
    assert (outcome.failure.code, outcome.failure.decline_code) == ("order_refused", code)


@pytest.mark.parametrize("operation", ["open", "query", "close"])
@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (error(500, "SYSTEM_ERROR"), OutcomeUnknown),
        (error(503, "SERVICE_UNAVAILABLE"), OutcomeUnknown),
        (error(400, "A_CODE_NOBODY_KNOWS"), OutcomeUnknown),
        (error(429, "FREQUENCY_LIMITED"), GatewayThrottled),
        (error(401, "SIGN_ERROR"), GatewayMisconfigured),
        (error(403, "NO_AUTH"), GatewayMisconfigured),
        (signed_answer({**_PAID, "code_url": "weixin://x"}, 202), OutcomeUnknown),
        (httpx.Response(302), OutcomeUnknown),
        (httpx.Response(502, content=b"<html>bad gateway</html>"), OutcomeUnknown),
    ],
)
async def test_what_is_no_answer_is_raised_by_every_call(
    operation: str, answer: httpx.Response, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await getattr(WechatpayServer(answer).gateway(), operation)(_NATIVE)


async def test_a_throttled_call_says_when_to_come_back() -> None:
    answer = error(429, "RATELIMIT_EXCEEDED")
    answer.headers["retry-after"] = "7"
    with pytest.raises(GatewayThrottled) as throttled:
        await WechatpayServer(answer).gateway().query(_NATIVE)
    assert throttled.value.retry_after_seconds == 7


@cache
def _unverifiable() -> dict[str, httpx.Response]:
    good = signed_answer(_PAID)
    headers = dict(good.headers)
    body = good.content
    repeated = body[:-1] + b',"trade_state":"NOTPAY"}'
    return {
        "unsigned": httpx.Response(200, content=body),
        "empty and unsigned": httpx.Response(200),
        "no content": httpx.Response(204),
        "another key": signed_answer(_PAID, owner="stranger"),
        "our own key": signed_answer(_PAID, owner="merchant"),
        "unknown serial": signed_answer(_PAID, serial="PUB_KEY_ID_other"),
        "stale": signed_answer(_PAID, at=datetime(2026, 11, 22, tzinfo=UTC)),
        "altered": httpx.Response(200, content=body.replace(b"2905", b"1905"), headers=headers),
        "truncated": httpx.Response(
            200,
            content=body[: len(body) // 2],
            headers={name: headers[name] for name in headers if name != "content-length"},
        ),
        "garbage, signed": httpx.Response(
            200, content=b"\x00\xff<<", headers=signature_headers(b"\x00\xff<<")
        ),
        "repeated key, signed": httpx.Response(
            200, content=repeated, headers=signature_headers(repeated)
        ),
        "list, signed": httpx.Response(200, content=b"[]", headers=signature_headers(b"[]")),
        "badly signed error": signed_answer({"code": "ORDER_NOT_EXIST"}, 404, owner="stranger"),
    }


@pytest.mark.parametrize("name", _unverifiable())
async def test_what_cannot_be_verified_is_an_unknown_outcome(name: str) -> None:
    gateway = WechatpayServer(_unverifiable()[name]).gateway()
    with pytest.raises(OutcomeUnknown):
        await gateway.query(_NATIVE)
    if name != "badly signed error":
        with pytest.raises(OutcomeUnknown):
            await gateway.open(_NATIVE)


async def test_a_badly_signed_close_is_unknown() -> None:
    answer = httpx.Response(204, headers=signature_headers(b"", owner="stranger"))
    with pytest.raises(OutcomeUnknown):
        await WechatpayServer(answer).gateway().close(_NATIVE)


@pytest.mark.parametrize("state", ["SUCCESS", "REFUND"])
async def test_a_paid_order_carries_its_receipt_even_once_refunded(state: str) -> None:
    assert await _observe(trade_state=state) == Observation(
        ObservedState.PAID, state, reference=_PAID["transaction_id"], receipt=_RECEIPT
    )


@pytest.mark.parametrize(
    ("trade_state", "state"),
    [
        ("NOTPAY", ObservedState.PENDING),
        ("USERPAYING", ObservedState.PENDING),
        ("ACCEPT", ObservedState.PROCESSING),
        ("CLOSED", ObservedState.DEAD),
        ("REVOKED", ObservedState.DEAD),
        ("PAYERROR", ObservedState.DEAD),
        ("NEW_STATE", ObservedState.UNRECOGNISED),
        (None, ObservedState.UNRECOGNISED),
        (7, ObservedState.UNRECOGNISED),
    ],
)
async def test_an_unpaid_order_carries_none(trade_state: object, state: ObservedState) -> None:
    seen = await _observe(trade_state=trade_state, transaction_id=None, success_time=None)
    assert (seen.state, seen.receipt, seen.reference) == (state, None, None)
    assert (seen.failure is not None) == (trade_state == "PAYERROR")


@pytest.mark.parametrize("code", ["ORDER_NOT_EXIST", "ORDERNOTEXIST", "ORDER_NOT_EXISTS"])
@pytest.mark.parametrize("is_signed", [True, False])
async def test_an_order_that_does_not_exist_is_absent(code: str, is_signed: bool) -> None:
    answer = error(404, code)
    if not is_signed:
        answer = httpx.Response(404, content=answer.content)
    seen = await WechatpayServer(answer).gateway().query(_NATIVE)
    assert seen == Observation(ObservedState.ABSENT, code)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": {"total": 2904, "currency": "CNY"}}, "amount_mismatch"),
        ({"amount": {"currency": "CNY"}}, "amount_mismatch"),
        ({"amount": {"total": "2905"}}, "amount_mismatch"),
        ({"amount": {"total": 2905.0}}, "amount_mismatch"),
        ({"amount": 2905}, "amount_mismatch"),
        ({"amount": None}, "amount_mismatch"),
        ({"amount": {"total": 2905, "currency": "USD"}}, "currency_mismatch"),
        ({"out_trade_no": NUMBER + "02"}, "order_mismatch"),
        ({"out_trade_no": None}, "order_mismatch"),
        ({"mchid": "1999999999"}, "merchant_mismatch"),
        ({"appid": "wx9999999999999999"}, "merchant_mismatch"),
    ],
)
async def test_money_that_is_not_the_orders_is_not_believed(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await _observe(**changes)
    assert untrusted.value.reason == reason


async def test_true_is_not_one_fen() -> None:
    server = WechatpayServer(signed_answer({**_PAID, "amount": {"total": True}}))
    with pytest.raises(AnswerUntrusted):
        await server.gateway().query(make_order(PaymentMethod.NATIVE, amount_minor=1))


async def test_a_paid_order_without_its_number_is_unknown() -> None:
    with pytest.raises(OutcomeUnknown, match="transaction_id"):
        await _observe(transaction_id=None)


@pytest.mark.parametrize("success_time", [None, "yesterday", "2026-11-23T12:31:00", 7])
async def test_a_paid_order_without_its_time_is_paid_now(success_time: object) -> None:
    seen = await _observe(success_time=success_time)
    assert seen.receipt is not None
    assert seen.receipt.paid_at == NOW


async def test_an_order_is_asked_for_by_our_number_or_by_an_operators() -> None:
    server = WechatpayServer(signed_answer(_PAID))
    gateway = server.gateway()
    await gateway.query(_NATIVE)
    assert server.path == f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid=1900000001"
    seen = await gateway.query(_NATIVE, gateway_number=_PAID["transaction_id"])
    assert server.path == f"/v3/pay/transactions/id/{_PAID['transaction_id']}?mchid=1900000001"
    assert seen.receipt == _RECEIPT
    with pytest.raises(AnswerUntrusted, match="asked about 42/a,"):
        await gateway.query(_NATIVE, gateway_number="42/a")
    assert server.path == "/v3/pay/transactions/id/42%2Fa?mchid=1900000001"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(204),
        httpx.Response(204, headers=signature_headers(b"")),
        error(404, "ORDER_NOT_EXIST"),
        error(400, "ORDERPAID"),
        error(400, "ORDER_CLOSED"),
        error(403, "RULE_LIMIT"),
        error(403, "TRADE_ERROR"),
        error(400, "INVALID_REQUEST"),
    ],
)
async def test_close_returns_when_closed_and_when_wechat_declines_to(
    answer: httpx.Response,
) -> None:
    server = WechatpayServer(answer)
    await server.gateway().close(_NATIVE)
    assert server.path == f"/v3/pay/transactions/out-trade-no/{NUMBER}/close"
    assert server.body == {"mchid": "1900000001"}
