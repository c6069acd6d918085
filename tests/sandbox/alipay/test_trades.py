"""A trade's life at the sandbox's Alipay, as the merchant and the payer see it."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.alipay.merchant import NUMBER, Merchant, terms

PAGE, WAP, APP = "alipay.trade.page.pay", "alipay.trade.wap.pay", "alipay.trade.app.pay"


async def scan(merchant: Merchant, **changed: Any) -> dict[str, Any]:
    """The next_action of a new code."""
    told = await merchant.precreate(**changed)
    assert told.node["code"] == "10000", told.text
    return {"type": "qr_code", "code_url": told.node["qr_code"]}


def page(merchant: Merchant, **changed: Any) -> dict[str, Any]:
    business = terms("FAST_INSTANT_TRADE_PAY", **changed)
    url = merchant.url(PAGE, business, return_url="http://127.0.0.1:9/back?order=1")
    return {"type": "redirect", "url": url}


async def refused(sandbox: SandboxProcess, deed: str, **wanted: Any) -> tuple[int, str]:
    answer = await sandbox.control.post(f"/control/{deed}", json={"gateway": "alipay", **wanted})
    return answer.status_code, answer.json()["detail"]


async def test_nothing_exists_until_the_payer_scans(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    code = await scan(merchant)

    before = await merchant.query()
    closed = await merchant.call("alipay.trade.close", {"out_trade_no": NUMBER})
    declined = await sandbox.decline(gateway="alipay", next_action=code)
    after = await merchant.query()

    assert (before.node["code"], before.node["sub_code"]) == ("40004", "ACQ.TRADE_NOT_EXIST")
    assert closed.node["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert before.is_signed
    assert (declined["reference"], declined["status"]) == (NUMBER, "WAIT_BUYER_PAY")
    assert after.node["trade_status"] == "WAIT_BUYER_PAY"
    assert "send_pay_date" not in after.node
    assert await sandbox.charges() == []


async def test_a_scanned_code_is_paid_once(merchant: Merchant, sandbox: SandboxProcess) -> None:
    code = await scan(merchant)

    paid = await sandbox.pay(gateway="alipay", next_action=code)
    again = await refused(sandbox, "pay", next_action=code)
    late = await refused(sandbox, "decline", reference=NUMBER)
    told = await merchant.query()
    by_trade_no = await merchant.query(trade_no=told.node["trade_no"], out_trade_no="another")

    assert paid["status"] == "TRADE_SUCCESS"
    assert again[0] == late[0] == 409
    assert "ACQ.TRADE_HAS_SUCCESS" in again[1]
    assert told.node["total_amount"] == told.node["receipt_amount"] == "29.00"
    assert told.node["trade_status"] == "TRADE_SUCCESS"
    assert told.node["send_pay_date"]
    assert by_trade_no.node == told.node
    [charge] = await sandbox.charges()
    assert (charge["reference"], charge["attempt"]) == (NUMBER, 1)
    assert (charge["amount"], charge["currency"], charge["refunded"]) == (2900, "CNY", 0)
    assert charge["gateway_reference"] == told.node["trade_no"]


@pytest.mark.parametrize(("text", "fen"), [("88.8", 8880), ("1", 100), ("0.01", 1)])
async def test_yuan_become_fen_exactly(
    merchant: Merchant, sandbox: SandboxProcess, text: str, fen: int
) -> None:
    await sandbox.pay(gateway="alipay", next_action=await scan(merchant, total_amount=text))

    assert [charge["amount"] for charge in await sandbox.charges()] == [fen]


async def test_later_attempts_are_told_apart(merchant: Merchant, sandbox: SandboxProcess) -> None:
    await scan(merchant)
    await scan(merchant, out_trade_no=f"{NUMBER}02")

    await sandbox.pay(gateway="alipay", reference=NUMBER)
    await sandbox.pay(gateway="alipay", reference=NUMBER, attempt=1)

    charges = await sandbox.charges()
    assert [(charge["reference"], charge["attempt"]) for charge in charges] == [
        (NUMBER, 2),
        (NUMBER, 1),
    ]


@pytest.mark.parametrize(
    ("changed", "sub_code"),
    [
        ({}, "ACQ.APPLY_PC_MERCHANT_CODE_ERROR"),
        ({"total_amount": "30.00"}, "ACQ.CONTEXT_INCONSISTENT"),
        ({"subject": "Silver"}, "ACQ.CONTEXT_INCONSISTENT"),
    ],
)
async def test_a_number_is_precreated_once(
    merchant: Merchant, sandbox: SandboxProcess, changed: dict[str, Any], sub_code: str
) -> None:
    code = await scan(merchant)

    again = await merchant.precreate(**changed)

    assert again.node["sub_code"] == sub_code
    assert (await sandbox.pay(gateway="alipay", next_action=code))["status"] == "TRADE_SUCCESS"
    paid = await merchant.precreate(total_amount="29.00")
    assert paid.node["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"


async def test_a_waiting_trade_is_closed_for_good(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    code = await scan(merchant)
    await sandbox.decline(gateway="alipay", next_action=code)

    closed = await merchant.call("alipay.trade.close", {"out_trade_no": NUMBER})
    again = await merchant.call("alipay.trade.close", {"out_trade_no": NUMBER})
    told = await merchant.query()
    late = await refused(sandbox, "pay", next_action=code)
    reopened = await merchant.precreate()

    assert (closed.node["code"], closed.node["trade_no"]) == ("10000", told.node["trade_no"])
    assert again.node["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    assert told.node["trade_status"] == "TRADE_CLOSED"
    assert late[0] == 409
    assert "ACQ.TRADE_HAS_CLOSE" in late[1]
    assert reopened.node["sub_code"] == "ACQ.TRADE_HAS_CLOSE"
    assert await sandbox.charges() == []
    assert await sandbox.webhooks() == []


async def test_a_paid_trade_is_not_closed(merchant: Merchant, sandbox: SandboxProcess) -> None:
    await sandbox.pay(gateway="alipay", next_action=await scan(merchant))

    closed = await merchant.call("alipay.trade.close", {"out_trade_no": NUMBER})

    assert closed.node["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    assert (await merchant.query()).node["trade_status"] == "TRADE_SUCCESS"


@pytest.mark.parametrize(
    ("method", "product_code", "kind"),
    [
        (PAGE, "FAST_INSTANT_TRADE_PAY", "redirect"),
        (WAP, "QUICK_WAP_WAY", "redirect"),
        (APP, "QUICK_MSECURITY_PAY", "app_params"),
    ],
)
async def test_signed_instructions_are_opened_and_paid(
    merchant: Merchant, sandbox: SandboxProcess, method: str, product_code: str, kind: str
) -> None:
    url = merchant.url(method, terms(product_code, subject="Gold 金 + 50%"))
    instructions: dict[str, Any] = {"type": kind, "url": url}
    if kind == "app_params":
        instructions = {"type": kind, "params": {"order_string": urlsplit(url).query}}

    before = await merchant.query()
    declined = await sandbox.decline(gateway="alipay", next_action=instructions)
    paid = await sandbox.pay(gateway="alipay", next_action=instructions)

    assert before.node["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert (declined["status"], paid["status"]) == ("WAIT_BUYER_PAY", "TRADE_SUCCESS")
    assert (await merchant.query()).node["subject"] == "Gold 金 + 50%"
    assert len(await sandbox.charges()) == 1


@pytest.mark.parametrize(
    ("altered", "status"),
    [
        (lambda url: url.replace("29.00", "0.01"), 422),
        (lambda url: url.replace("sign=", "sign=A"), 422),
        (lambda url: url.replace("/gateway.do", "/elsewhere"), 422),
        (lambda url: url.replace("page.pay", "app.pay"), 422),
    ],
)
async def test_altered_instructions_are_refused(
    merchant: Merchant, sandbox: SandboxProcess, altered: Any, status: int
) -> None:
    url = altered(page(merchant)["url"])

    told = await refused(sandbox, "pay", next_action={"type": "redirect", "url": url})

    assert told[0] == status
    assert await sandbox.charges() == []


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"reference": "pay_nobody"}, 404),
        ({"next_action": {"type": "qr_code", "code_url": "https://127.0.0.1/alipay/qr/x"}}, 404),
        ({"next_action": {"type": "none"}}, 422),
        ({"next_action": {"type": "app_params", "params": {"order_string": "a=b"}}}, 422),
        ({"reference": NUMBER, "card": "4242"}, 422),
    ],
)
async def test_what_makes_no_sense_is_refused(
    sandbox: SandboxProcess, wanted: dict[str, Any], status: int
) -> None:
    assert (await refused(sandbox, "pay", **wanted))[0] == status


async def test_other_terms_under_a_number_in_use_are_refused(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    await sandbox.decline(gateway="alipay", next_action=page(merchant))

    status, detail = await refused(sandbox, "pay", next_action=page(merchant, total_amount="30.00"))

    assert (status, "ACQ.CONTEXT_INCONSISTENT" in detail) == (409, True)


async def test_a_browser_signs_in_pays_and_returns(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    url = page(merchant)["url"]
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as browser:
        cashier = await browser.get(url)
        unsigned = await merchant.query()
        signed_in = await browser.post(cashier.url, data={"deed": "begin"})
        waiting = await merchant.query()
        paid = await browser.post(cashier.url, data={"deed": "pay"}, follow_redirects=False)

    back = urlsplit(paid.headers["Location"])
    returned, is_genuine = merchant.read_notification(back.query.split("&", 1)[1].encode())
    assert "Sign in" in cashier.text
    assert unsigned.node["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert ">Pay<" in signed_in.text
    assert waiting.node["trade_status"] == "WAIT_BUYER_PAY"
    assert (back.netloc, back.path) == ("127.0.0.1:9", "/back")
    assert back.query.startswith("order=1&")
    assert is_genuine
    assert returned["method"] == "alipay.trade.page.pay.return"
    assert returned["out_trade_no"] == NUMBER
    assert returned["seller_id"] == merchant.seller_id
    assert "trade_status" not in returned
    assert (await merchant.query()).node["trade_status"] == "TRADE_SUCCESS"


async def test_a_browser_scans_a_code(merchant: Merchant, sandbox: SandboxProcess) -> None:
    code = await scan(merchant)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as browser:
        shown = await browser.get(code["code_url"])
        seen = await merchant.query()
        await browser.post(code["code_url"], data={"deed": "begin"})
        await browser.post(code["code_url"], data={"deed": "pay"})

    assert "Scan" in shown.text
    assert seen.node["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert (await merchant.query()).node["trade_status"] == "TRADE_SUCCESS"


async def test_a_browser_is_told_what_is_wrong(merchant: Merchant, sandbox: SandboxProcess) -> None:
    answer = await sandbox.control.get(page(merchant)["url"].replace("29.00", "0.01"))

    assert "isv.invalid-signature" in answer.text
    assert (await sandbox.control.get("/alipay/cashier/nowhere")).status_code == 404


async def test_the_truth_outlives_a_kill(merchant: Merchant, sandbox: SandboxProcess) -> None:
    await sandbox.pay(gateway="alipay", next_action=await scan(merchant))
    before = await merchant.query()

    await sandbox.restart()

    assert (await merchant.query()).node == before.node
    assert len(await sandbox.charges()) == 1
