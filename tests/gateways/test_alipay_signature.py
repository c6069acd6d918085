"""RSA2 over what is sent and what is received, whatever is in it."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import OutcomeUnknown
from gateways.alipay.signature import notification_text, read_answer, request_text, signed
from tests.gateways.alipay_server import signed_answer, signed_text
from tests.gateways.parties import key_of, sign_by_hand

_METHOD = "alipay.trade.query"
_NODE = "alipay_trade_query_response"
_KEY = key_of("gateway").public_key()
_TRICKY = st.text(st.sampled_from('{}[]",:\\/ \n&=+%汉😀\u2028ab1')) | st.text()
_FIELDS = st.dictionaries(_TRICKY.filter(bool), _TRICKY)


def test_a_request_signs_all_but_the_signature_raw_and_in_ascii_order() -> None:
    parameters = {
        "version": "1.0",
        "app_id": "2014072300007148",
        "biz_content": '{"subject":"a b&c=d+汉"}',
        "sign_type": "RSA2",
        "Upper": "first",
        "return_url": "",
        "sign": "old",
        "timestamp": "2026-11-23 12:30:15",
    }
    text = (
        'Upper=first&app_id=2014072300007148&biz_content={"subject":"a b&c=d+汉"}'
        "&sign_type=RSA2&timestamp=2026-11-23 12:30:15&version=1.0"
    )
    assert request_text(parameters) == text
    assert signed(parameters, key_of("merchant"))["sign"] == sign_by_hand(
        text.encode(), key_of("merchant")
    )


def test_a_notification_is_signed_without_its_sign_type() -> None:
    fields = {"b": "2", "sign": "x", "sign_type": "RSA2", "a": "1 +&=", "empty": ""}
    assert notification_text(fields) == "a=1 +&=&b=2"


@settings(deadline=None, max_examples=60)
@given(fields=_FIELDS, is_ascii=st.booleans(), indent=st.sampled_from([None, 1]))
def test_a_signed_answer_is_believed_whatever_its_strings_hold(
    fields: dict[str, str], is_ascii: bool, indent: int | None
) -> None:
    said = {**fields, "code": "10000"}
    node = json.dumps(said, ensure_ascii=is_ascii, indent=indent)
    read = read_answer(signed_text(_METHOD, node), _METHOD, _KEY)
    assert read.is_signed
    assert read.fields == said


@settings(deadline=None, max_examples=60)
@given(fields=_FIELDS, data=st.data())
def test_an_answer_with_one_changed_byte_is_none(
    fields: dict[str, str], data: st.DataObject
) -> None:
    body = bytearray(signed_answer(_METHOD, {"code": "10000", **fields}))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        read = read_answer(bytes(body), _METHOD, _KEY)
    except OutcomeUnknown:
        return
    # White space outside the node is not signed, and Base64 ignores the last digit's spare bits.
    assert read.is_signed
    assert read.fields == {"code": "10000", **fields}


def test_braces_and_quotes_inside_strings_end_nothing() -> None:
    node = r'{"code":"10000","body":"}},\"sign\":\"x\"}","nested":{"a":["}"]}}'
    assert read_answer(signed_text(_METHOD, node), _METHOD, _KEY).text("body") == '}},"sign":"x"}'


def test_the_signature_may_stand_before_the_node_and_other_members_around() -> None:
    node = '{"code":"10000"}'
    signature = sign_by_hand(node.encode(), key_of("gateway"))
    body = f'{{ "sign" : "{signature}" , "alipay_cert_sn":"1", "{_NODE}" : {node} }}\n'
    assert read_answer(body.encode(), _METHOD, _KEY).is_signed


def test_a_node_of_the_same_name_inside_a_string_is_not_the_node() -> None:
    node = '{"code":"10000","note":"\\"' + _NODE + '\\":{\\"code\\":\\"40004\\"}"}'
    assert read_answer(signed_text(_METHOD, node), _METHOD, _KEY).text("code") == "10000"


@cache
def _altered() -> dict[str, bytes]:
    good = signed_answer(_METHOD, {"code": "10000", "trade_no": "1"}).decode()
    paid = '{"code":"10000","trade_status":"TRADE_SUCCESS"}'
    return {
        "another key": signed_answer(_METHOD, {"code": "10000"}, owner="stranger"),
        "our own key": signed_answer(_METHOD, {"code": "10000"}, owner="merchant"),
        "unsigned success": b'{"' + _NODE.encode() + b'":{"code":"10000"}}',
        "null signature": b'{"' + _NODE.encode() + b'":{"code":"10000"},"sign":null}',
        "number for a signature": b'{"' + _NODE.encode() + b'":{"code":"10000"},"sign":1}',
        "malformed signature": b'{"' + _NODE.encode() + b'":{"code":"10000"},"sign":"%%%"}',
        "unsigned, without a code": b'{"' + _NODE.encode() + b'":{}}',
        "unsigned, code as a number": b'{"' + _NODE.encode() + b'":{"code":10000}}',
        "repeated node": good.replace("{", "{" + f'"{_NODE}":{paid},', 1).encode(),
        "repeated node after the signature": (good[:-1] + f',"{_NODE}":{paid}}}').encode(),
        "repeated key in the node": signed_text(_METHOD, '{"code":"10000","code":"40004"}'),
        "added white space": good.replace('"10000", ', '"10000",  ').encode(),
        "badly signed failure": signed_answer(_METHOD, {"code": "40004"}, owner="stranger"),
        "another method's node": signed_answer("alipay.trade.close", {"code": "10000"}),
        "encrypted node": signed_text(_METHOD, '"c2VjcmV0"'),
        "list": signed_text(_METHOD, "[]"),
        "not JSON": b"\x00\xff<<not what you asked for",
        "empty": b"",
        "truncated": good[: len(good) // 2].encode(),
        "deeply nested": b'{"a":' * 50_000,
        "not UTF-8": signed_text(_METHOD, '{"code":"10000","a":"汉"}').decode().encode("gb18030"),
    }


@pytest.mark.parametrize("name", _altered())
def test_what_cannot_be_verified_is_an_unknown_outcome(name: str) -> None:
    with pytest.raises(OutcomeUnknown):
        read_answer(_altered()[name], _METHOD, _KEY)


@pytest.mark.parametrize("node", [_NODE, "error_response"])
def test_a_failure_of_the_platform_itself_may_come_unsigned(node: str) -> None:
    body = f'{{"{node}":{{"code":"40002","sub_code":"isv.invalid-app-id"}}}}'.encode()
    read = read_answer(body, _METHOD, _KEY)
    assert not read.is_signed
    assert read.text("code") == "40002"


def test_a_key_mix_up_is_hinted_at() -> None:
    body = signed_answer(_METHOD, {"code": "10000"}, owner="stranger")
    with pytest.raises(OutcomeUnknown, match="EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY"):
        read_answer(body, _METHOD, _KEY)
