"""The lines WeChat Pay signs, one by one, and what is refused."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways.wechatpay.signature import (
    SignatureRefused,
    app_parameters,
    authorization,
    check_signature,
    jsapi_parameters,
    signed_text,
)
from tests.gateways.parties import KEY_ID, NOW, key_of, sign_by_hand
from tests.gateways.wechatpay_server import signature_headers

_KEYS = {KEY_ID: key_of("gateway").public_key()}
_BODY = '{"code":"SUCCESS","say":"汉 & = + } \\" \\n"}'.encode()


def _check(headers: dict[str, str], body: bytes = _BODY) -> None:
    check_signature(headers, body, _KEYS, NOW)


def test_every_line_ends_in_a_line_feed_even_an_empty_last_one() -> None:
    assert signed_text(b"GET", b"/v3/certificates", b"1554208460", b"nonce", b"") == (
        b"GET\n/v3/certificates\n1554208460\nnonce\n\n"
    )


def test_the_authorization_header_is_word_for_word() -> None:
    message = b'POST\n/v3/pay?mchid=1\n1554208460\n593BEC\n{"a":"\xe6\xb1\x89"}\n'
    header = authorization(
        mchid="1900009191",
        serial="1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C",
        key=key_of("merchant"),
        method="POST",
        raw_path=b"/v3/pay?mchid=1",
        body='{"a":"汉"}'.encode(),
        timestamp=1554208460,
        nonce="593BEC",
    )
    assert header == (
        'WECHATPAY2-SHA256-RSA2048 mchid="1900009191",nonce_str="593BEC",'
        f'signature="{sign_by_hand(message, key_of("merchant"))}",timestamp="1554208460",'
        'serial_no="1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C"'
    )


def test_jsapi_signs_the_package_and_not_the_sign_type() -> None:
    params = jsapi_parameters(
        appid="wx1", prepay_id="wx26112221", key=key_of("merchant"), timestamp=1, nonce="n"
    )
    signature = sign_by_hand(b"wx1\n1\nn\nprepay_id=wx26112221\n", key_of("merchant"))
    assert params == {
        "appId": "wx1",
        "timeStamp": "1",
        "nonceStr": "n",
        "package": "prepay_id=wx26112221",
        "signType": "RSA",
        "paySign": signature,
    }


def test_an_app_signs_the_bare_prepay_id() -> None:
    params = app_parameters(
        appid="wx1", mchid="19", prepay_id="wx26", key=key_of("merchant"), timestamp=1, nonce="n"
    )
    assert params == {
        "appid": "wx1",
        "partnerid": "19",
        "prepayid": "wx26",
        "package": "Sign=WXPay",
        "noncestr": "n",
        "timestamp": "1",
        "sign": sign_by_hand(b"wx1\n1\nn\nwx26\n", key_of("merchant")),
    }


@settings(deadline=None, max_examples=60)
@given(body=st.binary(), data=st.data())
def test_any_bytes_are_verified_as_they_came(body: bytes, data: st.DataObject) -> None:
    headers = signature_headers(body)
    _check(headers, body)
    at = data.draw(st.integers(0, len(body)))
    with pytest.raises(SignatureRefused):
        _check(headers, body[:at] + b"x" + body[at:])


@pytest.mark.parametrize("seconds", [-299, 0, 299])
def test_a_timestamp_within_five_minutes_either_way_is_fresh(seconds: int) -> None:
    _check(signature_headers(_BODY, at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [-300, 300, -86_400, 86_400])
def test_one_five_minutes_away_is_not(seconds: int) -> None:
    with pytest.raises(SignatureRefused, match="clock right"):
        _check(signature_headers(_BODY, at=NOW + timedelta(seconds=seconds)))


def test_a_signature_without_its_type_is_of_the_only_type() -> None:
    headers = signature_headers(_BODY)
    del headers["wechatpay-signature-type"]
    _check(headers)


@pytest.mark.parametrize(
    "changes",
    [
        {"wechatpay-serial": "PUB_KEY_ID_other"},
        {"wechatpay-serial": ""},
        {"wechatpay-signature-type": "WECHATPAY2-SM2-WITH-SM3"},
        {"wechatpay-signature": ""},
        {"wechatpay-signature": "%%%"},
        {"wechatpay-signature": "汉字"},
        {"wechatpay-signature": "WECHATPAY/SIGNTEST/0123456789abcdef"},
        {"wechatpay-timestamp": ""},
        {"wechatpay-timestamp": "soon"},
        {"wechatpay-timestamp": "-1"},
        {"wechatpay-timestamp": "1e9"},
        {"wechatpay-timestamp": "²"},
        {"wechatpay-timestamp": "9" * 5_000},
        {"wechatpay-nonce": "another"},
        {"wechatpay-nonce": "\udcff"},
    ],
)
def test_altered_headers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        _check({**signature_headers(_BODY), **changes})


@pytest.mark.parametrize("name", ["timestamp", "nonce", "signature", "serial"])
def test_missing_headers_are_refused(name: str) -> None:
    headers = signature_headers(_BODY)
    del headers[f"wechatpay-{name}"]
    with pytest.raises(SignatureRefused):
        _check(headers)


@pytest.mark.parametrize("owner", ["stranger", "merchant"])
def test_another_key_under_wechats_id_is_refused(owner: str) -> None:
    with pytest.raises(SignatureRefused, match="not WeChat Pay's"):
        _check(signature_headers(_BODY, owner=owner))
