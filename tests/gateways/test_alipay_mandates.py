"""What Alipay is told of agreements and charges, and what its answers come to."""

import json
from dataclasses import replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import pytest

from billing.errors import (
    AnswerUntrusted,
    CurrencyNotSupported,
    GatewayMisconfigured,
    GatewayThrottled,
    InvalidRequest,
    OutcomeUnknown,
)
from billing.payment import DeclineClass, PaymentMethod, Redirect
from gateways.gateway import AlreadyOrdered, Opened, OpenOutcome, Refused
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateOrder,
    MandateRefused,
    Mandates,
    MandateState,
    MandateTerms,
)
from tests.gateways.alipay_server import AlipayServer, failure, received, signed_answer
from tests.gateways.parties import NOTIFY_URL, NOW, NUMBER, make_order

_PAY = "alipay.trade.pay"
_CLOSE = "alipay.trade.close"
_QUERY = "alipay.user.agreement.query"
_UNSIGN = "alipay.user.agreement.unsign"
_MODIFY = "alipay.user.agreement.executionplan.modify"
_OURS = "pm01jd9q8x1zf6w8v7r3m2k4n5p6"
_MANDATE = Mandate("pm_01jd9q8x1zf6w8v7r3m2k4n5p6", _OURS, "20270310000000000001", rhythm_months=1)
_ORDER = make_order(PaymentMethod.SAVED, mandate=_MANDATE)
_TERMS = MandateTerms("CNY", 5000, 3, date(2027, 3, 10))
_SETUP = MandateOrder(_MANDATE.method_id, _OURS, "user_1", _TERMS, "Gold", NOW)
_SIGNED: dict[str, Any] = {
    "code": "10000",
    "agreement_no": _MANDATE.reference,
    "external_agreement_no": _OURS,
    "status": "NORMAL",
    "next_deduct_time": "2027-03-10 00:00:00",
    "single_quota": "50.00",
    "invalid_time": "2115-02-01 00:00:00",
}
_ABSENT = failure(_CLOSE, "40004", "ACQ.TRADE_NOT_EXIST")
_CLOSED = signed_answer(_CLOSE, {"code": "10000", "out_trade_no": NUMBER})


def _mandates(server: AlipayServer) -> Mandates:
    mandates = server.gateway().mandates
    assert mandates is not None
    return mandates


def _unsigned(method: str, sub_code: str) -> bytes:
    node = f"{method.replace('.', '_')}_response"
    return json.dumps({node: {"code": "40004", "sub_code": sub_code}}).encode()


async def _charged(pay: bytes, close: bytes = _ABSENT) -> OpenOutcome:
    return await AlipayServer(answers={_PAY: pay, _CLOSE: close}).gateway().open(_ORDER)


async def _seen(mandate: Mandate = _MANDATE, **changes: Any) -> MandateObservation:
    told = {name: value for name, value in {**_SIGNED, **changes}.items() if value is not None}
    return await _mandates(AlipayServer(signed_answer(_QUERY, told))).query(mandate)


async def _page(terms: MandateTerms) -> dict[str, Any]:
    server = AlipayServer()
    outcome = await _mandates(server).set_up(replace(_SETUP, terms=terms))
    assert isinstance(outcome, Opened)
    assert isinstance(outcome.next_action, Redirect)
    assert not server.calls
    told: dict[str, Any] = received(urlsplit(outcome.next_action.url).query)
    assert told["method"] == "alipay.user.agreement.page.sign"
    business: dict[str, Any] = json.loads(told["biz_content"])
    assert business["sign_notify_url"] == NOTIFY_URL
    assert business["external_agreement_no"] == _OURS
    assert business["sign_scene"] == "INDUSTRY|DIGITAL_MEDIA"
    return business


@pytest.mark.parametrize(
    ("first", "told"), [((2027, 3, 28), "2027-03-28"), ((2027, 12, 29), "2028-01-01")]
)
async def test_a_rhythm_is_cycle_pay(first: tuple[int, int, int], told: str) -> None:
    business = await _page(replace(_TERMS, first_charge_on=date(*first)))
    assert business["personal_product_code"] == "CYCLE_PAY_AUTH_P"
    assert business["period_rule_params"] == {
        "period_type": "MONTH",
        "period": 3,
        "execute_time": told,
        "single_amount": "50.00",
    }


async def test_no_rhythm_is_general_withholding() -> None:
    business = await _page(MandateTerms("CNY"))
    assert business["personal_product_code"] == "GENERAL_WITHHOLDING_P"
    assert "period_rule_params" not in business


@pytest.mark.parametrize(
    "terms", [replace(_TERMS, most_minor=None), replace(_TERMS, first_charge_on=None)]
)
async def test_cycle_pay_takes_a_limit_and_a_first_day(terms: MandateTerms) -> None:
    outcome = await _mandates(AlipayServer()).set_up(replace(_SETUP, terms=terms))
    assert isinstance(outcome, Refused)
    assert (outcome.failure.code, outcome.failure.advice) == ("mandate_refused", DeclineClass.HARD)


async def test_another_currency_is_not_taken() -> None:
    order = replace(_SETUP, terms=replace(_TERMS, currency="USD"))
    with pytest.raises(CurrencyNotSupported):
        await _mandates(AlipayServer()).set_up(order)


async def test_a_charge_names_the_agreement_and_is_the_same_at_each_repeat() -> None:
    paid = signed_answer(_PAY, {"code": "10000", "out_trade_no": NUMBER})
    server = AlipayServer(paid)
    gateway = server.gateway()
    assert await gateway.open(_ORDER) == await gateway.open(_ORDER) == AlreadyOrdered()
    assert server.business == {
        "out_trade_no": NUMBER,
        "total_amount": "29.05",
        "subject": "Gold membership",
        "product_code": "CYCLE_PAY_AUTH",
        "agreement_params": {"agreement_no": _MANDATE.reference},
        "time_expire": "2026-11-24 01:00:00",
    }
    assert server.calls[0]["notify_url"] == NOTIFY_URL
    assert server.calls[0]["biz_content"] == server.calls[1]["biz_content"]


@pytest.mark.parametrize(
    "answer",
    [
        signed_answer(_PAY, {"code": "10003"}),
        failure(_PAY, "40004", "ACQ.TRADE_HAS_SUCCESS"),
        failure(_PAY, "40004", "ACQ.TRADE_HAS_CLOSE"),
    ],
)
async def test_a_charge_under_way_or_known_is_asked_about(answer: bytes) -> None:
    assert await _charged(answer) == AlreadyOrdered()


_REFUSALS = [
    ("CYCLE_PAY_DATE_NOT_MATCH", "outside_window", DeclineClass.SOFT),
    ("CYCLE_PAY_SINGLE_FEE_EXCEED", "above_cap", DeclineClass.NEEDS_CUSTOMER),
    ("AGREEMENT_NOT_EXIST", "mandate_ended", DeclineClass.HARD),
    ("BUYER_BALANCE_NOT_ENOUGH", "payment_declined", DeclineClass.SOFT),
    ("BUYER_BANKCARD_INVALID", "payment_declined", DeclineClass.NEEDS_CUSTOMER),
    ("BUYER_ENABLE_STATUS_FORBID", "payment_declined", DeclineClass.HARD),
    ("PAYMENT_REQUEST_HAS_RISK", "order_refused", DeclineClass.HARD),
]


@pytest.mark.parametrize("close", [_ABSENT, _CLOSED])
@pytest.mark.parametrize(("code", "ours", "advice"), _REFUSALS)
async def test_a_refused_charge_is_one_whose_trade_is_closed(
    code: str, ours: str, advice: DeclineClass, close: bytes
) -> None:
    outcome = await _charged(failure(_PAY, "40004", f"ACQ.{code}"), close)
    assert isinstance(outcome, Refused)
    told = outcome.failure
    assert (told.code, told.decline_code, told.advice) == (ours, code, advice)


async def test_a_refused_repeat_of_what_was_taken_is_no_refusal() -> None:
    refused = failure(_PAY, "40004", "ACQ.CYCLE_PAY_DATE_NOT_MATCH")
    paid = failure(_CLOSE, "40004", "ACQ.TRADE_STATUS_ERROR")
    assert await _charged(refused, paid) == AlreadyOrdered()
    for unknown in (failure(_CLOSE, "20000", "aop.unknow-error"), b"", _unsigned(_CLOSE, "X")):
        with pytest.raises(OutcomeUnknown):
            await _charged(refused, unknown)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (failure(_PAY, "20000", "aop.ACQ.SYSTEM_ERROR"), OutcomeUnknown),
        (failure(_PAY, "40004", "ACQ.SYSTEM_ERROR"), OutcomeUnknown),
        (failure(_PAY, "40004", "ACQ.NOBODY_KNOWS"), OutcomeUnknown),
        (_unsigned(_PAY, "ACQ.BUYER_BALANCE_NOT_ENOUGH"), OutcomeUnknown),
        (failure(_PAY, "40005", "isv.app-call-limited"), GatewayThrottled),
        (failure(_PAY, "40006", "isv.insufficient-isv-permissions"), GatewayMisconfigured),
        (signed_answer(_PAY, {"code": "10000", "out_trade_no": "other"}), AnswerUntrusted),
    ],
)
async def test_a_charge_that_is_not_answered(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await _charged(answer)


async def test_without_a_signed_agreement_there_is_nothing_to_charge() -> None:
    server = AlipayServer()
    for mandate in (None, replace(_MANDATE, reference=None)):
        with pytest.raises(InvalidRequest):
            await server.gateway().open(replace(_ORDER, mandate=mandate))
    assert not server.calls


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("TEMP", MandateState.PENDING),
        ("NORMAL", MandateState.ACTIVE),
        ("STOP", MandateState.ENDED),
        ("PONDERING", MandateState.UNRECOGNISED),
    ],
)
async def test_a_status_has_its_state(status: str, state: MandateState) -> None:
    seen = await _seen(status=status)
    assert (seen.state, seen.status, seen.reference) == (state, status, _MANDATE.reference)
    assert (seen.charge_on, seen.most_minor, seen.ends_at) == (date(2027, 3, 10), 5000, None)


@pytest.mark.parametrize(
    ("is_known", "code", "state"),
    [
        (False, "USER_AGREEMENT_NOT_EXIST", MandateState.ABSENT),
        (True, "USER_AGREEMENT_NOT_EXIST", MandateState.ENDED),
        (False, "AGREEMENT_HAS_UNSIGNED", MandateState.ENDED),
    ],
)
async def test_no_such_agreement(is_known: bool, code: str, state: MandateState) -> None:
    mandate = _MANDATE if is_known else replace(_MANDATE, reference=None)
    server = AlipayServer(failure(_QUERY, "40004", code))
    assert (await _mandates(server).query(mandate)).state is state
    assert ("agreement_no" in server.business) is is_known
    with pytest.raises(OutcomeUnknown):
        await _mandates(AlipayServer(_unsigned(_QUERY, code))).query(mandate)


@pytest.mark.parametrize("changes", [{"external_agreement_no": "x"}, {"agreement_no": "2"}])
async def test_an_answer_about_another_agreement(changes: dict[str, str]) -> None:
    with pytest.raises(AnswerUntrusted):
        await _seen(_MANDATE, **changes)


async def test_signed_without_a_number_of_alipays_is_unknown() -> None:
    with pytest.raises(OutcomeUnknown):
        await _seen(replace(_MANDATE, reference=None), agreement_no=None)


@pytest.mark.parametrize("code", ["AGREEMENT_NOT_EXSIT", "USER_AGREEMENT_STATUS_NOT_NORMAL"])
async def test_ending_what_has_ended_is_fine(code: str) -> None:
    server = AlipayServer(failure(_UNSIGN, "40004", code))
    await _mandates(server).revoke(_MANDATE)
    assert server.calls[0]["notify_url"] == NOTIFY_URL
    with pytest.raises(OutcomeUnknown):
        await _mandates(AlipayServer(failure(_UNSIGN, "40004", "SYSTEM_ERROR"))).revoke(_MANDATE)


async def test_a_move_that_is_refused_or_unknown() -> None:
    asked = signed_answer(_QUERY, _SIGNED)
    refused = AlipayServer(answers={_MODIFY: failure(_MODIFY, "40004", "ANY"), _QUERY: asked})
    with pytest.raises(MandateRefused) as problem:
        await _mandates(refused).postpone(_MANDATE, date(2027, 3, 12))
    assert problem.value.failure.code == "mandate_refused"
    await _mandates(refused).postpone(_MANDATE, date(2027, 3, 10))
    unknown = AlipayServer(
        answers={_MODIFY: failure(_MODIFY, "40004", "SYSTEM_ERROR"), _QUERY: asked}
    )
    with pytest.raises(OutcomeUnknown):
        await _mandates(unknown).postpone(_MANDATE, date(2027, 3, 12))
    other = signed_answer(_MODIFY, {"code": "10000", "agreement_no": "2"})
    with pytest.raises(AnswerUntrusted):
        await _mandates(AlipayServer(other)).postpone(_MANDATE, date(2027, 3, 12))
