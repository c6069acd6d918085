"""APIv3 on the wire: what is signed, what is refused, how answers are signed."""

import base64
import json
import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sandbox.wechatpay.signing import (
    app_message,
    encrypted,
    jsapi_message,
    request_message,
)
from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.wechatpay.merchant import NUMBER, TRANSACTIONS, Merchant

PATH = f"{TRANSACTIONS}/native"


def test_a_request_is_signed_over_five_ended_lines() -> None:
    assert request_message(
        "GET", b"/v3/certificates", "1554208460", "593BEC0C930BF1AFEB40", b""
    ) == (b"GET\n/v3/certificates\n1554208460\n593BEC0C930BF1AFEB40\n\n")
    assert request_message("POST", b"/v3/a%7Cb?c=d", "1", "n", '{"金":1}'.encode()) == (
        'POST\n/v3/a%7Cb?c=d\n1\nn\n{"金":1}\n'.encode()
    )


def test_the_payers_messages_differ_in_the_prepay_id() -> None:
    assert jsapi_message(
        {"appId": "wx8", "timeStamp": "1414561699", "nonceStr": "5K8", "package": "prepay_id=wx20"}
    ) == (b"wx8\n1414561699\n5K8\nprepay_id=wx20\n")
    assert app_message(
        {"appid": "wx8", "timestamp": "1414561699", "noncestr": "5K8", "prepayid": "wx20"}
    ) == (b"wx8\n1414561699\n5K8\nwx20\n")


@given(st.binary(max_size=200))
def test_resources_decrypt_to_what_was_encrypted(plaintext: bytes) -> None:
    key = "0123456789abcdefghijklmnopqrstuv"

    resource = encrypted(plaintext, "transaction", key)

    opened = AESGCM(key.encode()).decrypt(
        resource["nonce"].encode(), base64.b64decode(resource["ciphertext"]), b"transaction"
    )
    assert opened == plaintext
    assert len(resource["nonce"]) == 12


async def test_a_good_call_is_answered_and_signed(merchant: Merchant) -> None:
    told = await merchant.place()

    assert (told.status, list(told.fields)) == (200, ["code_url"])
    assert told.is_signed
    assert told.headers["Request-ID"]
    assert told.headers["Wechatpay-Signature-Type"] == "WECHATPAY2-SHA256-RSA2048"


@pytest.mark.parametrize("offset", [-400, 400])
async def test_a_clock_that_is_off_is_refused(merchant: Merchant, offset: int) -> None:
    moment = int(time.time()) + offset
    path = f"{TRANSACTIONS}/out-trade-no/{NUMBER}?mchid={merchant.mchid}"

    told = await merchant.send("GET", path, "", merchant.headers("GET", path, "", timestamp=moment))

    assert (told.status, told.fields["code"]) == (401, "SIGN_ERROR")
    assert not told.is_signed


@pytest.mark.parametrize(
    "alter",
    [
        lambda header: header.replace('signature="', 'signature="A'),
        lambda header: header.replace("WECHATPAY2", "WECHATPAY3"),
        lambda header: header.replace('serial_no="', 'serial_no="0'),
        lambda header: header.replace('mchid="', 'mchid="0'),
        lambda header: header.replace('timestamp="', 'timestamp="x'),
        lambda header: header.replace('nonce_str="', 'nonce_str="x'),
        lambda header: f'{header},mchid="1"',
        lambda header: header.partition(",")[0],
        lambda header: "",
    ],
)
async def test_a_call_that_is_not_the_merchants_is_refused(
    merchant: Merchant, sandbox: SandboxProcess, alter: Any
) -> None:
    text = json.dumps(merchant.order())
    headers = merchant.headers("POST", PATH, text)
    headers["Authorization"] = alter(headers["Authorization"])

    told = await merchant.send("POST", PATH, text, headers)

    assert (told.status, told.fields["code"]) == (401, "SIGN_ERROR")
    assert (await merchant.query()).status == 404


async def test_the_body_and_the_query_are_signed(merchant: Merchant) -> None:
    text = json.dumps(merchant.order())
    cheaper = text.replace("2900", "1")

    body = await merchant.send("POST", PATH, cheaper, merchant.headers("POST", PATH, text))
    path = f"{TRANSACTIONS}/out-trade-no/{NUMBER}"
    headers = merchant.headers("GET", path, "")
    query = await merchant.send("GET", f"{path}?mchid={merchant.mchid}", "", headers)

    assert [told.fields["code"] for told in (body, query)] == ["SIGN_ERROR", "SIGN_ERROR"]
    assert body.fields["detail"]["sign_information"]["url"] == PATH


async def test_the_path_is_signed_as_on_the_wire(merchant: Merchant) -> None:
    """`|` and `*` are allowed in numbers, and travel percent-encoded."""
    number = "pay|01*001"
    await merchant.place(out_trade_no=number)

    told = await merchant.query("pay%7C01%2A001")

    assert (told.status, told.fields["out_trade_no"]) == (200, number)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Accept", "text/html", 406),
        ("User-Agent", "", 400),
        ("Content-Type", "text/plain", 415),
        ("Wechatpay-Serial", "PUB_KEY_ID_of_another", 400),
    ],
)
async def test_headers_are_asked_for(
    merchant: Merchant, name: str, value: str, status: int
) -> None:
    text = json.dumps(merchant.order())

    told = await merchant.send(
        "POST", PATH, text, merchant.headers("POST", PATH, text) | {name: value}
    )

    assert (told.status, told.fields["code"]) == (status, "PARAM_ERROR")


@pytest.mark.parametrize(
    ("method", "changed", "code"),
    [
        ("native", {"appid": "wx0000000000000000"}, "APPID_MCHID_NOT_MATCH"),
        ("native", {"mchid": "1600000000"}, "APPID_MCHID_NOT_MATCH"),
        ("native", {"description": None}, "PARAM_ERROR"),
        ("native", {"description": "x" * 128}, "PARAM_ERROR"),
        ("native", {"out_trade_no": "short"}, "PARAM_ERROR"),
        ("native", {"out_trade_no": "x" * 33}, "PARAM_ERROR"),
        ("native", {"out_trade_no": "with space"}, "PARAM_ERROR"),
        ("native", {"notify_url": "http://127.0.0.1:9/n?a=b"}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 0}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": "2900"}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 29.0}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": True}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 2900, "currency": "USD"}}, "PARAM_ERROR"),
        ("native", {"time_expire": "2030-01-02 15:04:05"}, "PARAM_ERROR"),
        ("native", {"time_expire": "2020-01-02T15:04:05+08:00"}, "PARAM_ERROR"),
        ("native", {"time_expire": "2099-01-02T15:04:05+08:00"}, "PARAM_ERROR"),
        ("native", {"surprise": 1}, "PARAM_ERROR"),
        ("native", {"payer": {"openid": "o1"}}, "PARAM_ERROR"),
        ("jsapi", {}, "PARAM_ERROR"),
        ("jsapi", {"payer": {"openid": ""}}, "PARAM_ERROR"),
        ("h5", {}, "PARAM_ERROR"),
        ("h5", {"scene_info": {"payer_client_ip": "1.2.3.4"}}, "PARAM_ERROR"),
    ],
)
async def test_orders_that_wechat_pay_refuses_are_refused_and_signed(
    merchant: Merchant, method: str, changed: dict[str, Any], code: str
) -> None:
    told = await merchant.place(method, **changed)

    assert (told.status, told.fields["code"]) == (400, code)
    assert told.is_signed
    assert (await merchant.query()).status == 404


@pytest.mark.parametrize("text", ["{", "[]", '{"mchid":"1","mchid":"2"}'])
async def test_a_body_that_is_no_object_is_refused(merchant: Merchant, text: str) -> None:
    told = await merchant.send("POST", PATH, text, merchant.headers("POST", PATH, text))

    assert (told.status, told.fields["code"]) == (400, "PARAM_ERROR")


async def test_what_is_not_here_is_not_found(merchant: Merchant, sandbox: SandboxProcess) -> None:
    told = await merchant.call("GET", "/v3/certificates")
    another = await merchant.call("POST", f"{TRANSACTIONS}/micropay", merchant.order())
    async with httpx.AsyncClient(base_url=sandbox.url) as anybody:
        stranger = await anybody.get("/v3/certificates")

    assert (told.status, told.fields["code"]) == (404, "RESOURCE_NOT_EXISTS")
    assert another.status == 404
    assert stranger.status_code == 401
