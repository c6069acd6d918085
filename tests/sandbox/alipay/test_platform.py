"""What a merchant does at Alipay's platform, by the controls."""

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.alipay.merchant import NUMBER, Merchant
from tests.sandbox.alipay.test_refunds import ask


async def test_a_refund_has_a_number_of_alipays(paid: Merchant, sandbox: SandboxProcess) -> None:
    part = await sandbox.refund("alipay", NUMBER, amount=900)
    told = await ask(paid, part["number"])
    assert (told["refund_status"], told["refund_amount"]) == ("REFUND_SUCCESS", "9.00")
    assert (await paid.query()).node["trade_status"] == "TRADE_SUCCESS"
    rest = await sandbox.refund("alipay", NUMBER)
    assert (rest["status"], rest["number"] != part["number"]) == ("TRADE_CLOSED", True)
    assert (await paid.query()).node["trade_status"] == "TRADE_CLOSED"
    assert [charge["refunded"] for charge in await sandbox.charges()] == [2900]
    wanted = {"gateway": "alipay", "reference": NUMBER, "amount": 1}
    assert (await sandbox.control.post("/control/refund", json=wanted)).status_code == 409


async def test_a_trade_is_closed_once_it_is_one(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    made = await merchant.precreate()
    wanted = {"gateway": "alipay", "reference": NUMBER}
    assert (await sandbox.control.post("/control/close", json=wanted)).status_code == 404
    code = {"type": "qr_code", "code_url": made.node["qr_code"]}
    await sandbox.decline(gateway="alipay", next_action=code)
    assert (await sandbox.close("alipay", NUMBER))["status"] == "TRADE_CLOSED"
    assert (await merchant.query()).node["trade_status"] == "TRADE_CLOSED"
    assert (await sandbox.control.post("/control/close", json=wanted)).status_code == 409
