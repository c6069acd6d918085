"""What the sandbox's Alipay tells the merchant by itself."""

from typing import Any

import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.alipay.merchant import NUMBER, Merchant
from tests.sandbox.conftest import WebhookReceiver


@pytest.fixture
def merchant(sandbox: SandboxProcess, receiver: WebhookReceiver) -> Merchant:
    return Merchant(sandbox, f"{receiver.url}/notify")


async def scan(merchant: Merchant, **changed: Any) -> dict[str, Any]:
    made = await merchant.precreate(**changed)
    return {"type": "qr_code", "code_url": made.node["qr_code"]}


async def test_a_payment_is_told_with_a_signature(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    code = await scan(merchant, subject='50% + "金" }', passback_params="a%3D1%26b")
    await sandbox.pay(gateway="alipay", next_action=code)

    received = await receiver.next()

    told, is_genuine = merchant.read_notification(received.body)
    assert is_genuine
    assert received.path == "/notify"
    assert received.headers["content-type"] == "application/x-www-form-urlencoded; charset=utf-8"
    expected = {
        "notify_type": "trade_status_sync",
        "app_id": merchant.app_id,
        "seller_id": merchant.seller_id,
        "out_trade_no": NUMBER,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "29.00",
        "subject": '50% + "金" }',
        "passback_params": "a%3D1%26b",
        "body": "",
    }
    assert {name: told[name] for name in expected} == expected
    assert told["trade_no"] == (await merchant.query()).node["trade_no"]
    assert "refund_fee" not in told


async def test_it_is_repeated_under_one_id_until_success_is_answered(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    receiver.answers = [(200, b"fail")]

    await sandbox.pay(gateway="alipay", next_action=await scan(merchant))
    tries = [merchant.read_notification((await receiver.next()).body) for _ in range(2)]

    assert [is_genuine for _, is_genuine in tries] == [True, True]
    assert tries[0][0]["notify_id"] == tries[1][0]["notify_id"]


@pytest.mark.parametrize("answer", [(200, b"success\n"), (200, b"SUCCESS"), (201, b"success")])
async def test_only_the_very_word_is_success(
    merchant: Merchant,
    sandbox: SandboxProcess,
    receiver: WebhookReceiver,
    answer: tuple[int, bytes],
) -> None:
    receiver.answers = [answer]

    await sandbox.pay(gateway="alipay", next_action=await scan(merchant))
    await receiver.next()
    await receiver.next()

    [webhook] = await sandbox.webhooks()
    assert webhook["tries"][0]["accepted"] is False


async def test_refunds_are_told_as_the_trades_state(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.pay(gateway="alipay", next_action=await scan(merchant))
    for number, amount in (("r1", "9.00"), ("r2", "20.00")):
        business = {"out_trade_no": NUMBER, "refund_amount": amount, "out_request_no": number}
        await merchant.call("alipay.trade.refund", business)
        await sandbox.age("alipay", NUMBER, 3)

    told = [merchant.read_notification((await receiver.next()).body) for _ in range(3)]

    assert all(is_genuine for _, is_genuine in told)
    assert [
        (each["trade_status"], each.get("refund_fee"), each.get("out_biz_no")) for each, _ in told
    ] == [
        ("TRADE_SUCCESS", None, None),
        ("TRADE_SUCCESS", "9.00", "r1"),
        ("TRADE_CLOSED", "29.00", "r2"),
    ]
    assert len({each["notify_id"] for each, _ in told}) == 3


async def test_without_an_address_nobody_is_told(sandbox: SandboxProcess) -> None:
    silent = Merchant(sandbox)

    await sandbox.pay(gateway="alipay", next_action=await scan(silent))

    assert await sandbox.webhooks() == []


async def test_a_forged_try_does_not_verify_and_the_next_does(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.fault("alipay", "webhook", "bad_signature")
    receiver.answers = [(400, b"fail")]

    await sandbox.pay(gateway="alipay", next_action=await scan(merchant))
    tries = [merchant.read_notification((await receiver.next()).body)[1] for _ in range(2)]

    assert tries == [False, True]
