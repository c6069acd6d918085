"""An order's life at the sandbox's WeChat Pay, as the merchant and the payer see it."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.wechatpay.merchant import NUMBER, TRANSACTIONS, Merchant

H5_SCENE = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}


async def refused(sandbox: SandboxProcess, deed: str, **wanted: Any) -> tuple[int, str]:
    answer = await sandbox.control.post(f"/control/{deed}", json={"gateway": "wechatpay", **wanted})
    return answer.status_code, answer.json()["detail"]


async def test_a_new_order_waits(merchant: Merchant) -> None:
    nothing = await merchant.query()
    await merchant.scan(attach="ours")

    told = await merchant.query()

    assert (nothing.status, nothing.fields["code"]) == (404, "ORDER_NOT_EXIST")
    assert told.is_signed
    assert told.fields["trade_state"] == "NOTPAY"
    assert (told.fields["appid"], told.fields["mchid"]) == (merchant.appid, merchant.mchid)
    assert told.fields["amount"]["total"] == 2900
    assert told.fields["attach"] == "ours"
    assert "transaction_id" not in told.fields


async def test_a_scanned_code_is_paid_once(merchant: Merchant, sandbox: SandboxProcess) -> None:
    code = await merchant.scan()

    declined = await sandbox.decline(gateway="wechatpay", next_action=code)
    waiting = await merchant.query()
    paid = await sandbox.pay(gateway="wechatpay", next_action=code)
    again = await refused(sandbox, "pay", next_action=code)
    late = await refused(sandbox, "decline", reference=NUMBER)
    told = await merchant.query()
    path = f"{TRANSACTIONS}/id/{told.fields['transaction_id']}?mchid={merchant.mchid}"
    by_transaction = await merchant.call("GET", path)

    assert declined["status"] == waiting.fields["trade_state"] == "NOTPAY"
    assert (paid["reference"], paid["status"]) == (NUMBER, "SUCCESS")
    assert again[0] == late[0] == 409
    assert told.fields["trade_state"] == "SUCCESS"
    assert told.fields["trade_type"] == "NATIVE"
    assert told.fields["amount"] == {
        "total": 2900,
        "payer_total": 2900,
        "currency": "CNY",
        "payer_currency": "CNY",
    }
    assert told.fields["success_time"].endswith("+08:00")
    assert by_transaction.fields == told.fields
    [charge] = await sandbox.charges()
    assert (charge["reference"], charge["attempt"]) == (NUMBER, 1)
    assert (charge["amount"], charge["currency"], charge["refunded"]) == (2900, "CNY", 0)
    assert charge["gateway_reference"] == told.fields["transaction_id"]


async def test_the_same_order_again_has_the_same_code(merchant: Merchant) -> None:
    first = await merchant.place()
    again = await merchant.place()

    assert again.fields == first.fields


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("native", {"amount": {"total": 2901, "currency": "CNY"}}),
        ("native", {"description": "Silver"}),
        ("native", {"time_expire": None}),
        ("jsapi", {"payer": {"openid": "o1"}}),
    ],
)
async def test_another_order_under_the_number_is_refused(
    merchant: Merchant, sandbox: SandboxProcess, method: str, changed: dict[str, Any]
) -> None:
    code = await merchant.scan()

    told = await merchant.place(method, **changed)

    assert (told.status, told.fields["code"]) == (403, "OUT_TRADE_NO_USED")
    assert (await sandbox.pay(gateway="wechatpay", next_action=code))["status"] == "SUCCESS"


async def test_a_closed_order_is_closed_for_good(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    code = await merchant.scan()

    closed = await merchant.close()
    again = await merchant.close()
    reopened = await merchant.place()
    late = await refused(sandbox, "pay", next_action=code)

    assert (closed.status, closed.fields, closed.is_signed) == (204, None, True)
    assert (again.status, again.fields["code"]) == (400, "ORDER_CLOSED")
    assert (reopened.status, reopened.fields["code"]) == (400, "ORDER_CLOSED")
    assert late[0] == 409
    assert (await merchant.query()).fields["trade_state"] == "CLOSED"
    assert await sandbox.charges() == []
    assert await sandbox.webhooks() == []


async def test_a_paid_order_is_neither_closed_nor_placed_again(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan())

    closed = await merchant.close()
    again = await merchant.place()

    assert (closed.status, closed.fields["code"]) == (400, "ORDERPAID")
    assert (again.status, again.fields["code"]) == (400, "ORDERPAID")
    assert (await merchant.query()).fields["trade_state"] == "SUCCESS"


async def test_an_unknown_order_is_not_closed(merchant: Merchant) -> None:
    told = await merchant.close()

    assert (told.status, told.fields["code"]) == (404, "ORDER_NOT_EXIST")


async def test_questions_for_another_merchant_are_refused(merchant: Merchant) -> None:
    await merchant.scan()
    path = f"{TRANSACTIONS}/out-trade-no/{NUMBER}"

    asked = await merchant.call("GET", f"{path}?mchid=1600000000")
    unnamed = await merchant.call("GET", path)
    closed = await merchant.call("POST", f"{path}/close", {"mchid": "1600000000"})

    assert [told.status for told in (asked, unnamed, closed)] == [400, 400, 400]
    assert (await merchant.query()).fields["trade_state"] == "NOTPAY"


async def test_closing_too_early_is_refused_where_asked_for(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    await merchant.scan()
    await sandbox.fault("wechatpay", "close", "close_too_early")

    early = await merchant.close()
    waiting = await merchant.query()
    later = await merchant.close()

    assert (early.status, early.fields["code"]) == (400, "INVALID_REQUEST")
    assert waiting.fields["trade_state"] == "NOTPAY"
    assert later.status == 204


async def test_an_app_pays_with_signed_parameters(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    told = await merchant.place("app")
    params = merchant.app_params(told.fields["prepay_id"])

    paid = await sandbox.pay(
        gateway="wechatpay", next_action={"type": "app_params", "params": params}
    )

    assert paid["status"] == "SUCCESS"
    assert (await merchant.query()).fields["trade_type"] == "APP"


async def test_a_page_inside_wechat_pays_with_signed_parameters(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    told = await merchant.place("jsapi", payer={"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"})
    params = merchant.jsapi_params(told.fields["prepay_id"])

    paid = await sandbox.pay(
        gateway="wechatpay", next_action={"type": "jsapi_params", "params": params}
    )

    told = await merchant.query()
    assert paid["status"] == "SUCCESS"
    assert told.fields["trade_type"] == "JSAPI"
    assert told.fields["payer"] == {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}


@pytest.mark.parametrize(
    "changed",
    [
        {"nonceStr": "another"},
        {"paySign": "AAAA"},
        {"signType": "MD5"},
        {"appId": "wx0000000000000000"},
        {"extra": "1"},
    ],
)
async def test_altered_parameters_are_refused(
    merchant: Merchant, sandbox: SandboxProcess, changed: dict[str, str]
) -> None:
    told = await merchant.place("jsapi", payer={"openid": "o1"})
    params = merchant.jsapi_params(told.fields["prepay_id"]) | changed

    status, _ = await refused(
        sandbox, "pay", next_action={"type": "jsapi_params", "params": params}
    )

    assert status == 422
    assert await sandbox.charges() == []


async def test_the_two_signatures_are_not_mixed_up(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    """An app signs the bare prepay id; `prepay_id=` before it is the page's manner."""
    prepay_id = (await merchant.place("app")).fields["prepay_id"]
    params = merchant.app_params(prepay_id)
    params["sign"] = merchant.sign(
        params["appid"], params["timestamp"], params["noncestr"], f"prepay_id={prepay_id}"
    )

    status, detail = await refused(
        sandbox, "pay", next_action={"type": "app_params", "params": params}
    )

    assert (status, detail.startswith("sign does not sign")) == (422, True)


async def test_a_browser_pays_on_the_h5_page(merchant: Merchant, sandbox: SandboxProcess) -> None:
    told = await merchant.place("h5", scene_info=H5_SCENE)
    url = f"{told.fields['h5_url']}&redirect_url={quote('http://127.0.0.1:9/back', safe='')}"
    async with httpx.AsyncClient(trust_env=False) as browser:
        page = await browser.get(url)
        failed = await browser.post(url, data={"deed": "fail"})
        waiting = await merchant.query()
        paid = await browser.post(url, data={"deed": "pay"})
        again = await browser.post(url, data={"deed": "pay"})

    assert ">Pay<" in page.text
    assert failed.headers["Location"] == paid.headers["Location"] == "http://127.0.0.1:9/back"
    assert waiting.fields["trade_state"] == "NOTPAY"
    assert again.status_code == 409
    assert (await merchant.query()).fields["trade_type"] == "MWEB"
    assert len(await sandbox.charges()) == 1


async def test_a_payer_opens_the_h5_page(merchant: Merchant, sandbox: SandboxProcess) -> None:
    url = (await merchant.place("h5", scene_info=H5_SCENE)).fields["h5_url"]

    wrong = await refused(sandbox, "pay", next_action={"type": "redirect", "url": url[:-1] + "~"})
    paid = await sandbox.pay(gateway="wechatpay", next_action={"type": "redirect", "url": url})

    assert wrong[0] == 404
    assert paid["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"reference": "pay_nobody"}, 404),
        ({"next_action": {"type": "qr_code", "code_url": "weixin://wxpay/bizpayurl?pr=x"}}, 404),
        ({"next_action": {"type": "qr_code", "code_url": "https://127.0.0.1/x"}}, 422),
        ({"next_action": {"type": "redirect", "url": "https://127.0.0.1/x"}}, 422),
        ({"next_action": {"type": "app_params", "params": {"order_string": "a=b"}}}, 422),
        ({"next_action": {"type": "none"}}, 422),
        ({"reference": NUMBER, "card": "4242"}, 422),
    ],
)
async def test_what_makes_no_sense_is_refused(
    sandbox: SandboxProcess, wanted: dict[str, Any], status: int
) -> None:
    assert (await refused(sandbox, "pay", **wanted))[0] == status


async def test_later_attempts_are_told_apart(merchant: Merchant, sandbox: SandboxProcess) -> None:
    await merchant.scan()
    await merchant.scan(out_trade_no=f"{NUMBER}02")

    await sandbox.pay(gateway="wechatpay", reference=NUMBER)
    await sandbox.pay(gateway="wechatpay", reference=NUMBER, attempt=1)

    charges = await sandbox.charges()
    assert [charge["attempt"] for charge in charges] == [2, 1]
    assert {charge["reference"] for charge in charges} == {NUMBER}


async def test_the_truth_outlives_a_kill(merchant: Merchant, sandbox: SandboxProcess) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan())
    before = await merchant.query()

    await sandbox.restart()

    assert (await merchant.query()).fields == before.fields
    assert len(await sandbox.charges()) == 1
