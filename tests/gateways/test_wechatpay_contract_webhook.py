"""WeChat Pay's XML messages: genuine ones are read, all else is refused and nothing more."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.gateway import Notification, Reply, WebhookRefused
from gateways.wechatpay import v2
from gateways.wechatpay.webhook import WechatpayWebhookVerifier
from tests.gateways.parties import APIV2_KEY, NOW, NUMBER, wechatpay_account
from tests.gateways.wechatpay_v2 import CODE, CONTRACT, OURS, message, signature_of

_VERIFIER = WechatpayWebhookVerifier(wechatpay_account())
_ACCEPTED = Reply(200, b"<xml><return_code><![CDATA[SUCCESS]]></return_code></xml>", "text/xml")
_CHANGE = {
    "return_code": "SUCCESS",
    "result_code": "SUCCESS",
    "mch_id": "1900000001",
    "contract_code": CODE,
    "plan_id": "12535",
    "openid": "oHZx6uMbIG46UXQ3SKxVYEgw1LZs",
    "change_type": "ADD",
    "operate_time": "2015-07-01 10:00:00",
    "contract_id": CONTRACT,
    "contract_expired_time": "2035-07-01 10:00:00",
    "contract_termination_mode": "0",
    "request_serial": "1695",
}
_DEDUCTED = OURS | {
    "nonce_str": "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
    "out_trade_no": NUMBER,
    "trade_type": "PAP",
    "total_fee": "2905",
    "transaction_id": "4200000000202611231234567890",
    "time_end": "20261123123100",
    "contract_id": CONTRACT,
}


def read(fields: dict[str, Any], **changes: Any) -> Notification:
    return _VERIFIER.verify({}, message({**fields, **changes}), NOW)


def refusal(body: bytes, verifier: WechatpayWebhookVerifier = _VERIFIER) -> str:
    with pytest.raises(WebhookRefused) as refused:
        verifier.verify({"content-type": "text/xml"}, body, NOW)
    assert APIV2_KEY.decode() not in refused.value.reason
    return refused.value.reason


@pytest.mark.parametrize("change", ["ADD", "DELETE"])
def test_a_contract_is_named_by_both_numbers(change: str) -> None:
    seen = read(_CHANGE, change_type=change)
    assert seen == Notification(
        seen.event_id,
        f"CONTRACT.{change}",
        None,
        mandate_number=CODE,
        mandate_reference=CONTRACT,
        reply=_ACCEPTED,
    )
    foreign = read(_CHANGE, change_type=change, contract_code="somebody1")
    assert (foreign.mandate_number, foreign.mandate_reference) == (None, CONTRACT)


@pytest.mark.parametrize("result", ["SUCCESS", "FAIL"])
def test_a_charge_is_named_by_our_number(result: str) -> None:
    seen = read(_DEDUCTED, result_code=result)
    assert seen == Notification(seen.event_id, f"DEDUCT.{result}", NUMBER, reply=_ACCEPTED)


def test_either_signature_will_do() -> None:
    signed = _CHANGE | {"sign": v2.hmac_signature(_CHANGE, APIV2_KEY)}
    assert read(signed) == read(_CHANGE)


def test_one_message_has_one_id_however_often_it_is_sent() -> None:
    first = read(_DEDUCTED)
    assert read(dict(reversed(_DEDUCTED.items())), nonce_str="another") == first
    ids = {
        first.event_id,
        read(_DEDUCTED, result_code="FAIL").event_id,
        read(_DEDUCTED, out_trade_no=f"{NUMBER}02").event_id,
        read(_CHANGE).event_id,
        read(_CHANGE, change_type="DELETE").event_id,
    }
    assert len(ids) == 5
    assert all(len(each) <= 64 and each.isascii() for each in ids)


@given(st.dictionaries(st.from_regex(r"[a-z]{12,20}", fullmatch=True), st.text("a&=<会]>")))
def test_whatever_else_a_genuine_one_holds(more: dict[str, str]) -> None:
    fields = v2.signed({**_CHANGE, **more}, APIV2_KEY)
    seen = _VERIFIER.verify({}, b"\n " + v2.write_xml(fields), NOW)
    assert (seen.mandate_number, seen.event_type) == (CODE, "CONTRACT.ADD")


@given(st.sampled_from(sorted(_CHANGE)), st.text("a1", min_size=1, max_size=9))
def test_no_field_can_be_changed(name: str, value: str) -> None:
    sign = signature_of(_CHANGE)
    if _CHANGE[name] != value:
        assert "signature" in refusal(message({**_CHANGE, name: value, "sign": sign}))
    gone = {kept: told for kept, told in _CHANGE.items() if kept != name}
    assert "signature" in refusal(message(gone | {"sign": sign}))


@given(st.integers(0, 500))
def test_a_message_cut_short_is_refused(length: int) -> None:
    body = message(_CHANGE)
    assert refusal(body[: min(length, len(body) - 1)])


@pytest.mark.parametrize(
    "body",
    [
        message(_CHANGE, key=None),
        message(_CHANGE, key=b"0" * 32),
        message(_CHANGE | {"sign": "0" * 32}),
        message(_CHANGE | {"sign": "签" * 32}),
        message(_CHANGE | {"sign": signature_of(_CHANGE).lower()}),
    ],
)
def test_a_forged_message_is_refused(body: bytes) -> None:
    assert refusal(body) == "the signature is not of EVERBILL_WECHATPAY_API_V2_KEY"


@pytest.mark.parametrize(
    "prefix",
    [
        b'<!DOCTYPE xml [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
        b'<!DOCTYPE xml [<!ENTITY % e SYSTEM "http://127.0.0.1:9/x">%e;]>',
        b'<!DOCTYPE xml [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        b"<!DOCTYPE xml>",
        b"<?pi?>",
    ],
)
def test_a_signed_message_that_declares_anything_is_refused(prefix: bytes) -> None:
    assert refusal(prefix + message(_CHANGE)).startswith("it cannot be read: ")
    body = message(_CHANGE).replace(b"<![CDATA[ADD]]>", b"&e;")
    assert refusal(prefix + body).startswith("it cannot be read: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mch_id": "1900000002"}, "mch_id"),
        ({"mch_id": None}, "mch_id"),
        ({"appid": "wx1"}, "appid"),
        ({"change_type": "MODIFY"}, "speaks neither"),
        ({"change_type": None}, "speaks neither"),
    ],
)
def test_what_is_not_ours_or_unheard_of_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(message(_CHANGE | changes))


@pytest.mark.parametrize("changes", [{"result_code": "MAYBE"}, {"out_trade_no": None}])
def test_a_charge_without_a_result_or_a_number_is_refused(changes: dict[str, Any]) -> None:
    assert "speaks neither" in refusal(message(_DEDUCTED | changes))


def test_without_the_key_no_xml_is_taken() -> None:
    verifier = WechatpayWebhookVerifier(replace(wechatpay_account(), contracting=None))
    assert "EVERBILL_WECHATPAY_API_V2_KEY" in refusal(message(_CHANGE), verifier)
    unsigned = message({**_CHANGE, "sign": signature_of(_CHANGE, b"")})
    assert "EVERBILL_WECHATPAY_API_V2_KEY" in refusal(unsigned, verifier)
