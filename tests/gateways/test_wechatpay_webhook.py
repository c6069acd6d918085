"""WeChat Pay's notifications: genuine ones are read, all else is refused and nothing more."""

import base64
import json
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways.gateway import Notification, Reply, WebhookRefused
from gateways.wechatpay.webhook import WechatpayWebhookVerifier
from tests.gateways.parties import APIV3_KEY, NOW, NUMBER, wechatpay_account
from tests.gateways.wechatpay_server import signature_headers

_VERIFIER = WechatpayWebhookVerifier(wechatpay_account())
_NONCE = "fdasflkja484"
_REFUND = "ref_01jd9q8x1zf6w8v7r3m2k4n5p6"
_TRANSACTION = {
    "mchid": "1900000001",
    "appid": "wx0000000000000001",
    "out_trade_no": NUMBER,
    "transaction_id": "4200000000202611231234567890",
    "trade_state": "SUCCESS",
    "attach": "会员 & = +",
}
_SEALED_ELSEWHERE = (
    "bz1kVndYkCFlgKSe7VZeuBxCb6jr2XsCUhw9dEHzO9M6s3oBzDj0ufBEnZenPKWRi0sbFiP7HsHKfJhCIMNmvF5niCYM"
    "VmG3rly3gd3vTeVdKIDJnyjPnydfN6lQzpxhJU5dLauRceqIoOYhg3uvjXpd9c47RpErZtXELko2/IbeMgQ+E+cSwdKe"
    "Cv3Fb9jvWKqehvF9ZclhteKiaDzxIz84KfOwOimfvDczAQ8VkYP/00YFNgLLjEPaAHkKbQOIruzxw6PcaXBg5XKu6G+W"
    "ncs4Iw=="
)
"""`_TRANSACTION` under APIV3_KEY, `_NONCE` and `transaction`, by an implementation of GCM (NIST
SP 800-38D) that shares nothing with the library used here."""

_WANTED = Notification("EV-2018022511223320873", "TRANSACTION.SUCCESS", NUMBER)


def _seal(plain: bytes, *, key: bytes = APIV3_KEY, associated: str = "transaction") -> str:
    sealed = AESGCM(key).encrypt(_NONCE.encode(), plain, associated.encode())
    return base64.b64encode(sealed).decode()


def _body(
    resource: dict[str, Any] | None = None, plain: bytes | None = None, **changes: Any
) -> bytes:
    content = json.dumps(_TRANSACTION).encode() if plain is None else plain
    event = {
        "id": "EV-2018022511223320873",
        "create_time": "2026-11-23T12:31:00+08:00",
        "event_type": "TRANSACTION.SUCCESS",
        "resource_type": "encrypt-resource",
        "summary": "支付成功",
        "resource": {
            "original_type": "transaction",
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": _seal(content),
            "associated_data": "transaction",
            "nonce": _NONCE,
            **(resource or {}),
        },
        **changes,
    }
    return json.dumps(
        {name: value for name, value in event.items() if value is not None}, ensure_ascii=False
    ).encode()


def _verify(body: bytes, now: datetime = NOW, **how: Any) -> Notification:
    return _VERIFIER.verify(signature_headers(body, **how), body, now)


def _refusal(body: bytes, **how: Any) -> str:
    with pytest.raises(WebhookRefused) as refused:
        _verify(body, **how)
    return refused.value.reason


def _plain(**changes: Any) -> bytes:
    content = {**_TRANSACTION, **changes}
    return json.dumps(
        {name: value for name, value in content.items() if value is not None}
    ).encode()


def test_a_genuine_notification_is_decrypted_and_read() -> None:
    assert _verify(_body(resource={"ciphertext": _SEALED_ELSEWHERE})) == _WANTED
    assert _verify(_body()) == _WANTED


@pytest.mark.parametrize("associated", [None, ""])
def test_associated_data_may_be_missing(associated: str | None) -> None:
    ciphertext = _seal(_plain(), associated="")
    resource = {"associated_data": associated, "ciphertext": ciphertext}
    assert _verify(_body(resource=resource)) == _WANTED


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text().filter(lambda name: name not in _TRANSACTION), st.text()))
def test_whatever_else_a_genuine_one_holds(more: dict[str, str]) -> None:
    plain = json.dumps({**_TRANSACTION, **more}, ensure_ascii=False).encode()
    assert _verify(_body(plain=plain)) == _WANTED


def test_a_refund_names_its_order_and_no_app() -> None:
    plain = _plain(appid=None, refund_status="SUCCESS")
    seen = _verify(_body(plain=plain, event_type="REFUND.SUCCESS"))
    assert seen == Notification(_WANTED.event_id, "REFUND.SUCCESS", NUMBER)


@pytest.mark.parametrize("status", ["SUCCESS", "ABNORMAL", "CLOSED"])
@pytest.mark.parametrize(
    ("number", "ours"),
    [(_REFUND, _REFUND), (NUMBER, None), (f"{_REFUND}x", None), ("made at the console", None)],
)
def test_a_refund_of_ours_is_named(status: str, number: str, ours: str | None) -> None:
    plain = _plain(appid=None, refund_status=status, out_refund_no=number)
    seen = _verify(_body(plain=plain, event_type=f"REFUND.{status}"))
    foreign = None if ours else number
    assert seen == Notification(
        _WANTED.event_id, f"REFUND.{status}", NUMBER, ours, foreign_refund=foreign
    )


def test_a_number_that_no_refund_can_have_is_none() -> None:
    plain = _plain(appid=None, refund_status="SUCCESS", out_refund_no="9" * 65)
    assert _verify(_body(plain=plain, event_type="REFUND.SUCCESS")).foreign_refund is None


def test_a_message_about_no_order_names_none() -> None:
    seen = _verify(_body(plain=_plain(out_trade_no=None), event_type="ENTRUST.SIGN"))
    assert seen == Notification(_WANTED.event_id, "ENTRUST.SIGN", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mchid": "1999999999"}, "mchid"),
        ({"mchid": None}, "mchid"),
        ({"appid": "wx9999999999999999"}, "appid"),
    ],
)
def test_a_message_for_somebody_else_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert reason in _refusal(_body(plain=_plain(**changes)))


@pytest.mark.parametrize("seconds", [-300, 300, 86_400])
def test_a_stale_or_early_one_is_refused(seconds: int) -> None:
    assert "clock" in _refusal(_body(), now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-299, 299])
def test_a_fresh_one_is_read(seconds: int) -> None:
    assert _verify(_body(), now=NOW + timedelta(seconds=seconds)) == _WANTED


@pytest.mark.parametrize(
    "how", [{"owner": "stranger"}, {"owner": "merchant"}, {"serial": "PUB_KEY_ID_other"}]
)
def test_one_signed_by_anybody_else_is_refused(how: dict[str, str]) -> None:
    assert _refusal(_body(), **how)


def test_a_probe_of_wechats_is_refused_like_any_forgery() -> None:
    body = _body()
    headers = signature_headers(body) | {"wechatpay-signature": "WECHATPAY/SIGNTEST/" + "A" * 325}
    with pytest.raises(WebhookRefused, match="not WeChat Pay's"):
        _VERIFIER.verify(headers, body, NOW)


@cache
def _unreadable() -> dict[str, bytes]:
    good = _body()
    other_key = b"f" * 32
    tampered = "A" + _SEALED_ELSEWHERE[1:]
    return {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "not JSON": b"\x00\xff<<not what you asked for",
        "list": b"[]",
        "nested": b'{"id":' * 50_000,
        "nested inside": _body(plain=b'{"mchid":' * 50_000),
        "repeated key": b'{"id":"1",' + good[1:],
        "no resource": good.replace(b'"resource":', b'"else":'),
        "resource is a number": good.replace(b'"resource":', b'"resource":1,"else":'),
        "another algorithm": _body(resource={"algorithm": "AEAD_SM4_GCM"}),
        "another APIv3 key": _body(resource={"ciphertext": _seal(_plain(), key=other_key)}),
        "other associated data": _body(resource={"associated_data": "refund"}),
        "associated data is no text": _body(resource={"associated_data": 7}),
        "tampered": _body(resource={"ciphertext": tampered}),
        "not Base64": _body(resource={"ciphertext": "%%%"}),
        "empty ciphertext": _body(resource={"ciphertext": ""}),
        "ciphertext of a tag's half": _body(resource={"ciphertext": "AAAAAAAA"}),
        "no nonce": _body(resource={"nonce": None}),
        "short nonce": _body(resource={"nonce": "abc"}),
        "huge nonce": _body(resource={"nonce": "a" * 10_000}),
        "a lone surrogate": _body(resource={"nonce": "x"}).replace(b'"x"', b'"\\ud800"'),
        "plaintext is no JSON": _body(plain=b"\xff\xfe"),
        "plaintext is a list": _body(plain=b"[]"),
        "no id": _body(id=None),
        "id is a number": _body(id=7),
        "a control character in the id": _body(id="EV\u0000"),
        "a huge id": _body(id="E" * 10_000),
        "no event type": _body(event_type=None),
    }


@pytest.mark.parametrize("name", _unreadable())
def test_one_that_cannot_be_read_is_refused_even_when_signed(name: str) -> None:
    assert _refusal(_unreadable()[name])


@pytest.mark.parametrize("name", _unreadable())
def test_and_so_it_is_unsigned(name: str) -> None:
    with pytest.raises(WebhookRefused):
        _VERIFIER.verify({}, _unreadable()[name], NOW)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_one_changed_byte_is_refused(data: st.DataObject) -> None:
    good = _body()
    body = bytearray(good)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WebhookRefused):
        _VERIFIER.verify(signature_headers(good), bytes(body), NOW)


@settings(deadline=None)
@given(
    body=st.binary(),
    headers=st.dictionaries(
        st.sampled_from([*signature_headers(b""), "content-type"]),
        st.text() | st.sampled_from([str(int(NOW.timestamp())), *wechatpay_account().public_keys]),
    ),
)
def test_nothing_but_a_refusal_comes_of_any_bytes(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(WebhookRefused):
        _VERIFIER.verify(headers, body, NOW)


def test_a_huge_one_is_read_to_its_end() -> None:
    assert _verify(_body(plain=_plain(attach="汉" * 100_000))) == _WANTED
    assert _refusal(_body(plain=_plain(attach="汉" * 100_000)), owner="stranger")


def test_an_order_number_that_is_no_plain_text_is_nobodys() -> None:
    assert _verify(_body(plain=_plain(out_trade_no="a\0b"))).number is None
    assert _verify(_body(plain=_plain(out_trade_no=7))).number is None


def test_the_replies_are_wechats_to_the_byte() -> None:
    assert _VERIFIER.accepted == Reply(204, b"", "application/json")
    assert _VERIFIER.refused(401, "the signature is not WeChat Pay's") == Reply(
        401,
        b'{"code": "FAIL", "message": "the signature is not WeChat Pay\'s"}',
        "application/json",
    )
