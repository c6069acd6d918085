"""Alipay's notifications: genuine ones are read, everything else is refused and nothing more."""

import hashlib
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways.alipay.webhook import AlipayWebhookVerifier
from gateways.gateway import Notification, Reply, WebhookRefused
from tests.gateways.parties import NOW, NUMBER, alipay_account, key_of, sign_by_hand

_VERIFIER = AlipayWebhookVerifier(alipay_account())
_FIELDS = {
    "notify_time": "2026-11-23 12:31:01",
    "notify_type": "trade_status_sync",
    "notify_id": "2026112300222123101000000000000001",
    "app_id": "2021000000000001",
    "auth_app_id": "2021000000000001",
    "seller_id": "2088000000000001",
    "charset": "utf-8",
    "version": "1.0",
    "trade_no": "2026112322001400000000000001",
    "out_trade_no": NUMBER,
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "29.05",
    "subject": "Gold & more = 会员+",
    "fund_bill_list": '[{"amount":"29.05","fundChannel":"ALIPAYACCOUNT"}]',
    "sign_type": "RSA2",
}
_WANTED = Notification(_FIELDS["notify_id"], "TRADE_SUCCESS", NUMBER)


def _body(*, owner: str = "gateway", encoding: str = "utf-8", **changes: str | None) -> bytes:
    return _form({**_FIELDS, **changes}, owner, encoding)


def _form(given: dict[str, str | None], owner: str = "gateway", encoding: str = "utf-8") -> bytes:
    fields = {name: value for name, value in given.items() if value is not None}
    signed = {name: value for name, value in fields.items() if value and name != "sign_type"}
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    fields["sign"] = sign_by_hand(text.encode(encoding), key_of(owner))
    return urlencode(fields, encoding=encoding).encode()


def _verify(body: bytes) -> Notification:
    return _VERIFIER.verify({"content-type": "application/x-www-form-urlencoded"}, body, NOW)


def _refusal(body: bytes) -> str:
    with pytest.raises(WebhookRefused) as refused:
        _verify(body)
    return refused.value.reason


def test_a_genuine_notification_is_read() -> None:
    assert _verify(_body()) == _WANTED


def test_empty_fields_are_not_signed() -> None:
    assert _verify(_body(body="", passback_params="")) == _WANTED


def test_one_sent_in_gbk_is_read_in_gbk() -> None:
    body = _body(encoding="gbk", charset="gbk")
    assert quote_plus("会员", encoding="gbk").encode() in body
    assert _verify(body) == _WANTED


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name not in {*_FIELDS, "sign", "charset"}),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_whatever_else_a_genuine_one_holds(more: dict[str, str]) -> None:
    assert _verify(_form({**_FIELDS, **more})) == _WANTED


def test_without_an_id_the_body_itself_is_the_id() -> None:
    body = _body(notify_id=None)
    assert _verify(body).event_id == hashlib.sha256(body).hexdigest()
    assert _verify(body).event_id != _verify(_body(notify_id=None, gmt_close="1")).event_id


def test_a_message_about_no_order_names_none() -> None:
    body = _body(
        notify_type="dut_user_unsign", out_trade_no=None, trade_status=None, seller_id=None
    )
    assert _verify(body) == Notification(_FIELDS["notify_id"], "dut_user_unsign", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"app_id": "2021999999999999"}, "app_id"),
        ({"app_id": None}, "app_id"),
        ({"seller_id": "2088999999999999"}, "seller_id"),
        ({"seller_id": None}, "seller_id"),
        ({"sign_type": "RSA"}, "sign_type"),
        ({"sign_type": None}, "sign_type"),
        ({"subject": "a\0b"}, "NUL"),
    ],
)
def test_a_signed_message_for_somebody_else_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    assert reason in _refusal(_body(**changes))


def test_the_payers_return_address_is_no_notification() -> None:
    body = _body(
        notify_type=None, notify_id=None, trade_status=None, method="alipay.trade.page.pay"
    )
    assert "no notification" in _refusal(body)


@cache
def _forgeries() -> dict[str, bytes]:
    good = _body()
    return {
        "unsigned": urlencode(_FIELDS).encode(),
        "another key": _body(owner="stranger"),
        "our own key": _body(owner="merchant"),
        "another amount": good.replace(b"29.05", b"0.01"),
        "another order": good.replace(NUMBER.encode(), NUMBER.encode() + b"02"),
        "a field more": good + b"&refund_fee=1",
        "a field twice": good + b"&app_id=2021000000000001",
        "a field again, without a value": good + b"&app_id=",
        "a second amount in front": b"total_amount=0.01&" + good,
        "truncated": good[: len(good) // 2],
        "signature cut short": good[:-4],
        "malformed Base64": good + b"%%%",
        "signature of spaces": good.replace(b"sign=", b"sign=++++"),
        "empty": b"",
        "JSON": b'{"notify_type":"trade_status_sync","sign":"x"}',
        "nested JSON": b'{"a":' * 20_000,
        "binary": bytes(range(256)),
        "huge": good + b"&x=" + b"y" * 1_000_000,
        "a thousand fields": good + b"&a=1" * 1_000,
        "not UTF-8": good + b"&x=%ff%fe",
        "an unknown charset": _body(charset="utf-7"),
        "raw bytes": good + "&x=汉".encode(),
    }


@pytest.mark.parametrize("name", _forgeries())
def test_a_forgery_is_refused(name: str) -> None:
    assert _refusal(_forgeries()[name])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_one_changed_byte_is_refused_or_means_the_same(data: st.DataObject) -> None:
    body = bytearray(_body())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        assert _verify(bytes(body)) == _WANTED
    except WebhookRefused:
        return


@settings(deadline=None)
@given(body=st.binary() | st.text(st.sampled_from("&=%+sign_type=RSA2charset;gbk")).map(str.encode))
def test_nothing_but_a_refusal_comes_of_any_bytes(body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        _verify(body)


def test_the_replies_are_alipays_to_the_byte() -> None:
    assert _VERIFIER.accepted == Reply(200, b"success", "text/plain")
    assert _VERIFIER.refused(400, "the signature is not Alipay's") == Reply(
        400, b"fail", "text/plain"
    )


def test_an_order_of_ours_may_come_again_a_day_later() -> None:
    assert _VERIFIER.verify({}, _body(), NOW + timedelta(hours=25)) == _WANTED


@pytest.mark.parametrize(
    ("told", "ours", "foreign"),
    [
        ({"out_biz_no": "ref_01jd9q8x1zf6w8v7r3m2k4n5p6"}, "ref_01jd9q8x1zf6w8v7r3m2k4n5p6", None),
        ({"out_biz_no": "2026112300000000000000000001"}, None, "2026112300000000000000000001"),
        ({"out_biz_no": "9" * 65}, None, None),
        ({"refund_fee": "9.00"}, None, _FIELDS["out_trade_no"]),
    ],
)
def test_a_refund_is_named(told: dict[str, str], ours: str | None, foreign: str | None) -> None:
    seen = _verify(_body(**told))
    assert (seen.refund_number, seen.foreign_refund) == (ours, foreign)
    assert seen.number == _WANTED.number


_AGREEMENT: dict[str, str | None] = {
    "notify_type": "dut_user_sign",
    "notify_id": "2027031000222123101000000000000001",
    "app_id": "2021000000000001",
    "charset": "utf-8",
    "status": "NORMAL",
    "agreement_no": "20270310000000000001",
    "external_agreement_no": "pm01jd9q8x1zf6w8v7r3m2k4n5p6",
    "sign_type": "RSA2",
}


@pytest.mark.parametrize("notify_type", ["dut_user_sign", "dut_user_unsign"])
@pytest.mark.parametrize("number", [_AGREEMENT["external_agreement_no"], "another-shop's", None])
def test_a_notification_of_an_agreement_names_it(notify_type: str, number: str | None) -> None:
    changes = {"notify_type": notify_type, "external_agreement_no": number}
    told = _verify(_form(_AGREEMENT | changes))
    ours = number if number == _AGREEMENT["external_agreement_no"] else None
    assert (told.event_type, told.number) == (notify_type, None)
    assert (told.mandate_number, told.mandate_reference) == (ours, "20270310000000000001")
