"""gateway.do on the wire: layouts, signatures both ways, refusals, answers hard to read."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.alipay.signing import NOTIFICATION_EXCLUDES, REQUEST_EXCLUDES, sign_content
from sandbox.rsa import is_signed, make_key_pair, sign
from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox import rsa_by_hand
from tests.sandbox.alipay.merchant import NUMBER, Merchant, beijing, terms

AWKWARD = 'Gold }"},"sign":"x", 金色会员 \\ + % {'


def test_the_signed_text_is_sorted_raw_and_without_empties() -> None:
    parameters = {
        "version": "1.0",
        "app_id": "2014072300007148",
        "sign_type": "RSA2",
        "biz_content": '{"a":"b&c=d+e 中"}',
        "passback_params": "",
        "sign": "old",
        "Z": "capitals first",
    }

    assert sign_content(parameters, REQUEST_EXCLUDES).decode() == (
        'Z=capitals first&app_id=2014072300007148&biz_content={"a":"b&c=d+e 中"}'
        "&sign_type=RSA2&version=1.0"
    )
    assert sign_content(parameters, NOTIFICATION_EXCLUDES).decode() == (
        'Z=capitals first&app_id=2014072300007148&biz_content={"a":"b&c=d+e 中"}&version=1.0'
    )


KEY_PAIR = make_key_pair()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_signatures_agree_with_the_arithmetic(content: bytes, other: bytes) -> None:
    private_key, public_key = KEY_PAIR
    signature = sign(content, private_key)

    assert signature == rsa_by_hand.sign(content, private_key)
    assert is_signed(content, signature, public_key)
    assert is_signed(other, signature, public_key) == (other == content)


@pytest.mark.parametrize("signature", ["", "====", "bm90IGEgc2lnbmF0dXJl", "签名", "A" * 344])
def test_what_is_no_signature_is_just_wrong(signature: str) -> None:
    assert not is_signed(b"content", signature, KEY_PAIR[1])


@pytest.mark.parametrize("layout", ["split", "form", "query"])
async def test_every_layout_is_taken(
    merchant: Merchant, layout: Literal["split", "form", "query"]
) -> None:
    told = await merchant.send(
        merchant.parameters("alipay.trade.precreate", terms(subject=AWKWARD.replace("=", ""))),
        layout,
    )

    assert (told.node["code"], told.node["out_trade_no"]) == ("10000", NUMBER)
    assert told.is_signed
    assert told.content_type == "text/html;charset=utf-8"


@pytest.mark.parametrize(
    ("changed", "code", "sub_code"),
    [
        ({"app_id": "2014072300007148"}, "40002", "isv.invalid-app-id"),
        ({"app_id": None}, "40001", "isv.missing-app-id"),
        ({"sign_type": "RSA"}, "40002", "isv.invalid-signature-type"),
        ({"timestamp": "yesterday"}, "40002", "isv.invalid-timestamp"),
        ({"timestamp": None}, "40001", "isv.missing-timestamp"),
        ({"version": "2.0"}, "40002", "isv.invalid-version"),
        ({"charset": "gbk"}, "40002", "isv.invalid-charset"),
        ({"format": "XML"}, "40002", "isv.invalid-format"),
    ],
)
async def test_the_frame_is_checked_and_refused_unsigned(
    merchant: Merchant, changed: dict[str, str | None], code: str, sub_code: str
) -> None:
    told = await merchant.call("alipay.trade.query", {"out_trade_no": NUMBER}, **changed)

    assert (told.node["code"], told.node["sub_code"]) == (code, sub_code)
    assert '"sign":' not in told.text


async def test_an_unknown_method_is_refused(merchant: Merchant) -> None:
    told = await merchant.call("alipay.trade.dance", {"out_trade_no": NUMBER})

    assert (told.node["code"], told.node["sub_code"]) == ("40002", "isv.invalid-method")
    assert told.text.startswith('{"error_response":')


@pytest.mark.parametrize("offset", [timedelta(hours=-1), timedelta(hours=1), timedelta(hours=8)])
async def test_a_clock_that_is_off_or_of_another_zone_is_refused(
    merchant: Merchant, offset: timedelta
) -> None:
    told = await merchant.call(
        "alipay.trade.query",
        {"out_trade_no": NUMBER},
        timestamp=beijing(datetime.now(UTC) + offset),
    )

    assert told.node["sub_code"] == "isv.invalid-timestamp"


@pytest.mark.parametrize("touched", ["biz_content", "notify_url", "timestamp", "sign_type", "sign"])
async def test_a_request_altered_after_signing_is_refused(merchant: Merchant, touched: str) -> None:
    parameters = merchant.parameters(
        "alipay.trade.precreate", terms(), notify_url="http://127.0.0.1:9/"
    )
    altered = {
        "biz_content": parameters["biz_content"].replace("29.00", "0.01"),
        "notify_url": "http://127.0.0.1:9/elsewhere",
        "timestamp": beijing(datetime.now(UTC) + timedelta(seconds=60)),
        "sign": parameters["sign"][::-1],
    }
    if touched == "sign_type":
        unsigned_type = {name: parameters[name] for name in parameters if name != "sign_type"}
        content = "&".join(f"{k}={v}" for k, v in sorted(unsigned_type.items()) if k != "sign")
        altered = {"sign": rsa_by_hand.sign(content.encode(), merchant.private_key)}
        touched = "sign"

    told = await merchant.send(parameters | {touched: altered[touched]})

    assert told.node["sub_code"] == "isv.invalid-signature"
    assert '"sign":' not in told.text
    assert (await merchant.precreate()).node["code"] == "10000"


async def test_a_parameter_in_both_places_is_refused(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    parameters = merchant.parameters("alipay.trade.query", {"out_trade_no": NUMBER})

    answer = await sandbox.control.post(merchant.gateway, params=parameters, data=parameters)

    assert merchant.read(answer).node["sub_code"] == "isv.invalid-parameter"


@pytest.mark.parametrize(
    ("changed", "sub_code"),
    [
        ({"subject": "Gold/month"}, "ACQ.INVALID_PARAMETER"),
        ({"subject": "a=b"}, "ACQ.INVALID_PARAMETER"),
        ({"subject": "you & me"}, "ACQ.INVALID_PARAMETER"),
        ({"subject": None}, "ACQ.INVALID_PARAMETER"),
        ({"subject": "x" * 257}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": 29.0}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "29.001"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "2,900"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "-1"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "0.00"}, "ACQ.TOTAL_FEE_EXCEED"),
        ({"total_amount": "100000000.01"}, "ACQ.TOTAL_FEE_EXCEED"),
        ({"out_trade_no": "with space"}, "ACQ.INVALID_PARAMETER"),
        ({"out_trade_no": "x" * 65}, "ACQ.INVALID_PARAMETER"),
        ({"product_code": "FAST_INSTANT_TRADE_PAY"}, "ACQ.INVALID_PARAMETER"),
        ({"time_expire": "2026-01-02T15:04:05+08:00"}, "ACQ.INVALID_PARAMETER"),
        ({"time_expire": "2026-01-02 15:04:05"}, "ACQ.INVALID_PARAMETER"),
        ({"timeout_express": "1.5h"}, "ACQ.INVALID_PARAMETER"),
        ({"time_expires": "soon"}, "ACQ.INVALID_PARAMETER"),
    ],
)
async def test_terms_that_alipay_refuses_are_refused_and_signed(
    merchant: Merchant, changed: dict[str, Any], sub_code: str
) -> None:
    told = await merchant.precreate(**changed)

    assert (told.node["code"], told.node["sub_code"]) == ("40004", sub_code)
    assert told.is_signed


@pytest.mark.parametrize("text", ["[]", "{", "29", '{"out_trade_no":"a","out_trade_no":"b"}'])
async def test_biz_content_that_is_no_object_is_refused(merchant: Merchant, text: str) -> None:
    told = await merchant.call("alipay.trade.query", text)

    assert told.node["sub_code"] == "ACQ.INVALID_PARAMETER"


async def test_answers_take_any_order_and_any_text(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    """The node before or after `sign`, and a subject that breaks readers who cut or count."""
    sign_comes_first = set()
    for index in range(12):
        number, subject = f"{NUMBER}_{index}", f"{AWKWARD.replace('=', '')}{index}"
        made = await merchant.precreate(out_trade_no=number, subject=subject)
        code = {"type": "qr_code", "code_url": made.node["qr_code"]}
        await sandbox.pay(gateway="alipay", next_action=code)
        told = await merchant.query(out_trade_no=number)
        assert made.is_signed
        assert told.is_signed
        assert told.node["subject"] == subject
        sign_comes_first |= {answer.text.startswith('{"sign"') for answer in (made, told)}

    assert sign_comes_first == {True, False}
