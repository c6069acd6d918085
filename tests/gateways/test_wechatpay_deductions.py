"""Charges by contract: what WeChat Pay is asked, and what its answers come to."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    InvalidRequest,
    MethodNotSupported,
    OutcomeUnknown,
)
from billing.payment import Payer, PaymentMethod
from gateways.gateway import AlreadyOrdered, Observation, ObservedState, Receipt, Refused
from gateways.mandates import (
    Mandate,
)
from gateways.transport import make_client
from gateways.wechatpay.adapter import WechatpayGateway
from tests.gateways.parties import (
    APIV2_KEY,
    NOTIFY_URL,
    NOW,
    NUMBER,
    make_order,
    wechatpay_account,
)
from tests.gateways.wechatpay_server import NONCE
from tests.gateways.wechatpay_v2 import (
    CONTRACT,
    FAIL,
    OURS,
    SIGNED,
    UNSIGNED,
    Host,
    message,
    refusal,
    xml,
)

_PAID = OURS | {
    "nonce_str": "abc",
    "out_trade_no": NUMBER,
    "trade_type": "PAP",
    "trade_state": "SUCCESS",
    "transaction_id": "4200000000202611231234567890",
    "total_fee": "2905",
    "fee_type": "CNY",
    "time_end": "20261123123100",
}
_RECEIPT = Receipt(_PAID["transaction_id"], 2905, "CNY", datetime(2026, 11, 23, 4, 31, tzinfo=UTC))


_ORDER = make_order(PaymentMethod.SAVED, mandate=SIGNED)


def applying(answer: httpx.Response, known: httpx.Response | None = None) -> Host:
    query = known or refusal("ORDERNOTEXIST")
    return Host({"/pay/pappayapply": [answer], "/pay/paporderquery": [query]})


async def observed(**changes: Any) -> Observation:
    host = Host({"/pay/paporderquery": [xml(_PAID, **changes)]})
    seen = await host.gateway().query(_ORDER)
    assert host.fields == {"nonce_str": NONCE, "out_trade_no": NUMBER}
    return seen


async def test_a_charge_is_asked_for() -> None:
    host = applying(xml(OURS, nonce_str="abc"))
    order = replace(_ORDER, description="1 < 2\x00", payer=Payer(client_ip="203.0.113.7"))
    assert await host.gateway().open(order) == AlreadyOrdered()
    assert host.paths == ["/pay/pappayapply"]
    assert host.fields == {
        "nonce_str": NONCE,
        "body": "1 < 2 ",
        "out_trade_no": NUMBER,
        "total_fee": "2905",
        "fee_type": "CNY",
        "spbill_create_ip": "203.0.113.7",
        "notify_url": NOTIFY_URL,
        "trade_type": "PAP",
        "contract_id": CONTRACT,
    }


@pytest.mark.parametrize("mandate", [None, UNSIGNED])
async def test_nobody_is_charged_without_a_signed_contract(mandate: Mandate | None) -> None:
    with pytest.raises(InvalidRequest):
        await Host({}).gateway().open(replace(_ORDER, mandate=mandate))


@pytest.mark.parametrize(
    "code", ["ORDERPAID", "ORDER_ACCEPTED", "ORDERCLOSED", "OUT_TRADE_NO_USED"]
)
async def test_a_number_in_use_is_queried(code: str) -> None:
    host = applying(refusal(code))
    assert await host.gateway().open(_ORDER) == AlreadyOrdered()
    assert host.paths == ["/pay/pappayapply"]


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("NOTENOUGH", "payment_declined"),
        ("CONTRACT_NOT_EXIST", "mandate_ended"),
        ("CONTRACTERROR", "mandate_ended"),
        ("RULE_LIMIT", "outside_window"),
        ("PARAM_ERROR", "order_refused"),
    ],
)
async def test_a_refusal_is_believed_once_nothing_was_taken(code: str, ours: str) -> None:
    for known in (refusal("ORDERNOTEXIST"), xml(_PAID, trade_state="PAY_FAIL")):
        outcome = await applying(refusal(code), known).gateway().open(_ORDER)
        assert isinstance(outcome, Refused)
        assert (outcome.failure.code, outcome.failure.decline_code) == (ours, code)
    for known in (xml(_PAID), xml(_PAID, trade_state="ACCEPT")):
        assert await applying(refusal(code), known).gateway().open(_ORDER) == AlreadyOrdered()
    with pytest.raises(OutcomeUnknown):
        await applying(refusal(code), xml(FAIL, status=500)).gateway().open(_ORDER)


@pytest.mark.parametrize(
    "answer",
    [
        refusal("SYSTEMERROR"),
        refusal("SOMETHING_NEW"),
        xml(FAIL),
        xml(OURS, result_code=None),
        xml(OURS, result_code="MAYBE"),
        xml(OURS, status=500),
        xml(OURS, status=302),
        httpx.Response(200, content=message(OURS, key=None)),
        httpx.Response(200, content=message(OURS, key=b"0" * 32)),
        httpx.Response(200, content=message(FAIL | {"err_code": "RULE_LIMIT"}, key=b"0" * 32)),
        httpx.Response(200, content=message(OURS)[:-9]),
        httpx.Response(200, content=b"<!DOCTYPE xml>" + message(OURS)),
        httpx.Response(200, content=b'{"return_code":"SUCCESS"}'),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=message({"return_code": "FAIL"}, key=None)),
    ],
)
async def test_an_unclear_answer_is_an_unknown_outcome(answer: httpx.Response) -> None:
    host = applying(answer)
    with pytest.raises(OutcomeUnknown) as unknown:
        await host.gateway().open(_ORDER)
    assert APIV2_KEY.decode() not in unknown.value.detail
    assert host.paths == ["/pay/pappayapply"]
    host = Host({"/papay/querycontract": [answer]})
    with pytest.raises(OutcomeUnknown):
        await host.mandates().query(SIGNED)


async def test_a_refusal_may_come_unsigned() -> None:
    answer = httpx.Response(200, content=message(FAIL | {"err_code": "NOTENOUGH"}, key=None))
    assert isinstance(await applying(answer).gateway().open(_ORDER), Refused)


async def test_what_an_operator_has_to_mend() -> None:
    unsigned = message({"return_code": "FAIL", "return_msg": "签名错误"}, key=None)
    for answer in (httpx.Response(200, content=unsigned), refusal("APPID_MCHID_NOT_MATCH")):
        with pytest.raises(GatewayMisconfigured):
            await applying(answer).gateway().open(_ORDER)


async def test_too_many_calls() -> None:
    limited = httpx.Response(429, headers={"Retry-After": "7"})
    for answer, seconds in ((limited, 7), (refusal("FREQUENCY_LIMITED"), None)):
        with pytest.raises(GatewayThrottled) as throttled:
            await applying(answer).gateway().open(_ORDER)
        assert throttled.value.retry_after_seconds == seconds


@pytest.mark.parametrize("name", ["mch_id", "appid"])
async def test_an_answer_about_another_merchant(name: str) -> None:
    with pytest.raises(AnswerUntrusted):
        await applying(xml(OURS | {name: "another"})).gateway().open(_ORDER)
    with pytest.raises(AnswerUntrusted) as untrusted:
        await observed(**{name: "another"})
    assert untrusted.value.reason == "merchant_mismatch"


async def test_a_paid_charge() -> None:
    assert await observed() == Observation(
        ObservedState.PAID, "SUCCESS", reference=_RECEIPT.gateway_reference, receipt=_RECEIPT
    )
    refunded = await observed(trade_state="REFUND", fee_type=None)
    assert (refunded.state, refunded.receipt) == (ObservedState.PAID, _RECEIPT)
    undated = await observed(time_end=None)
    assert undated.receipt == replace(_RECEIPT, paid_at=NOW)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("ACCEPT", ObservedState.PROCESSING),
        ("NOTPAY", ObservedState.PROCESSING),
        ("PONDERING", ObservedState.UNRECOGNISED),
        (None, ObservedState.UNRECOGNISED),
    ],
)
async def test_a_charge_that_has_not_ended(status: str | None, state: ObservedState) -> None:
    seen = await observed(trade_state=status, transaction_id=None)
    assert seen == Observation(state, status or "(none)")


@pytest.mark.parametrize(("code", "told"), [("NOTENOUGH", "NOTENOUGH"), (None, "PAY_FAIL")])
async def test_a_charge_that_failed_says_why(code: str | None, told: str) -> None:
    seen = await observed(trade_state="PAY_FAIL", err_code=code)
    assert seen.state is ObservedState.DEAD
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.decline_code) == ("payment_declined", told)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"total_fee": "2906"}, "amount_mismatch"),
        ({"total_fee": "29.05"}, "amount_mismatch"),
        ({"total_fee": "２９０５"}, "amount_mismatch"),
        ({"total_fee": None}, "amount_mismatch"),
        ({"fee_type": "USD"}, "currency_mismatch"),
        ({"out_trade_no": f"{NUMBER}02"}, "order_mismatch"),
        ({"out_trade_no": None}, "order_mismatch"),
    ],
)
async def test_a_charge_that_is_not_ours(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await observed(**changes)
    assert untrusted.value.reason == reason


async def test_paid_without_a_number_of_theirs_is_asked_again() -> None:
    with pytest.raises(OutcomeUnknown):
        await observed(transaction_id=None)


async def test_a_charge_is_asked_about_by_their_number() -> None:
    host = Host({"/pay/paporderquery": [xml(_PAID)]})
    number = _RECEIPT.gateway_reference
    assert (await host.gateway().query(_ORDER, gateway_number=number)).receipt == _RECEIPT
    assert host.fields == {"nonce_str": NONCE, "transaction_id": number}
    with pytest.raises(AnswerUntrusted):
        await host.gateway().query(_ORDER, gateway_number="4200")


async def test_there_is_nothing_to_close() -> None:
    host = Host({})
    await host.gateway().close(_ORDER)
    assert host.requests == []


async def test_without_the_key_nothing_is_saved() -> None:
    account = replace(wechatpay_account(), contracting=None)
    gateway = WechatpayGateway(make_client(), account, NOTIFY_URL)
    assert gateway.mandates is None
    with pytest.raises(MethodNotSupported):
        await gateway.open(_ORDER)
    await gateway.aclose()
