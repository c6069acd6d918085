"""What a merchant does at WeChat Pay's platform, by the controls."""

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.wechatpay.merchant import NUMBER, Merchant
from tests.sandbox.wechatpay.test_refunds import PATH


async def test_a_refund_has_a_number_of_wechat_pays(
    paid: Merchant, sandbox: SandboxProcess
) -> None:
    part = await sandbox.refund("wechatpay", NUMBER, amount=900)
    told = (await paid.call("GET", f"{PATH}/{part['number']}")).fields
    assert (told["status"], told["amount"]["refund"]) == ("SUCCESS", 900)
    assert (await paid.query()).fields["trade_state"] == "REFUND"
    await sandbox.refund("wechatpay", NUMBER)
    assert [charge["refunded"] for charge in await sandbox.charges()] == [2900]
    wanted: dict[str, object] = {"gateway": "wechatpay", "reference": NUMBER, "amount": 1}
    assert (await sandbox.control.post("/control/refund", json=wanted)).status_code == 409
    del wanted["amount"]
    assert (await sandbox.control.post("/control/close", json=wanted)).status_code == 409


async def test_an_unpaid_order_is_closed(merchant: Merchant, sandbox: SandboxProcess) -> None:
    await merchant.scan()
    assert (await sandbox.close("wechatpay", NUMBER))["status"] == "CLOSED"
    assert (await merchant.query()).fields["trade_state"] == "CLOSED"
