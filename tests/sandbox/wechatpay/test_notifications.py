"""What the sandbox's WeChat Pay tells the merchant by itself."""

import json
from typing import Any

import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import Received, WebhookReceiver
from tests.sandbox.wechatpay.merchant import NUMBER, Merchant


@pytest.fixture
def merchant(sandbox: SandboxProcess, receiver: WebhookReceiver) -> Merchant:
    return Merchant(sandbox, f"{receiver.url}/notify")


def is_genuine(merchant: Merchant, received: Received) -> bool:
    return merchant.is_signed(received.headers, received.body)


def event(received: Received) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(received.body)
    return told


async def test_a_payment_is_told_encrypted_and_signed(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan(attach="金"))

    received = await receiver.next()

    told = event(received)
    plain = merchant.decrypted(told["resource"])
    assert received.path == "/notify"
    assert is_genuine(merchant, received)
    assert (told["event_type"], told["resource_type"]) == (
        "TRANSACTION.SUCCESS",
        "encrypt-resource",
    )
    assert told["resource"]["original_type"] == "transaction"
    assert NUMBER.encode() not in received.body
    assert plain == (await merchant.query()).fields
    assert (plain["out_trade_no"], plain["trade_state"], plain["attach"]) == (
        NUMBER,
        "SUCCESS",
        "金",
    )


async def test_a_failed_try_is_not_told(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    code = await merchant.scan()
    await sandbox.decline(gateway="wechatpay", next_action=code)
    await sandbox.pay(gateway="wechatpay", next_action=code)

    assert event(await receiver.next())["event_type"] == "TRANSACTION.SUCCESS"
    assert len(await sandbox.webhooks()) == 1


@pytest.mark.parametrize("status", [201, 302, 400, 500])
async def test_it_is_repeated_under_one_id_with_a_fresh_signature(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver, status: int
) -> None:
    receiver.answers = [(status, b"")]

    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan())
    tries = [await receiver.next() for _ in range(2)]

    assert all(is_genuine(merchant, each) for each in tries)
    assert event(tries[0])["id"] == event(tries[1])["id"]
    assert tries[0].headers["wechatpay-nonce"] != tries[1].headers["wechatpay-nonce"]


@pytest.mark.parametrize(
    ("fault", "prefix"), [("bad_signature", ""), ("signtest", "WECHATPAY/SIGNTEST/")]
)
async def test_a_forged_try_or_a_probe_does_not_verify_and_the_next_does(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver, fault: str, prefix: str
) -> None:
    await sandbox.fault("wechatpay", "webhook", fault, reference=NUMBER)
    receiver.answers = [(401, b"")]

    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan())
    first, second = await receiver.next(), await receiver.next()

    signature = first.headers["wechatpay-signature"]
    assert signature.startswith("WECHATPAY/SIGNTEST/") == bool(prefix)
    if not prefix:
        assert not is_genuine(merchant, first)
    assert is_genuine(merchant, second)
    assert event(first)["id"] == event(second)["id"]


async def test_a_refund_is_told_to_its_own_address(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan())
    await receiver.next()
    body = {
        "out_trade_no": NUMBER,
        "out_refund_no": "r1",
        "notify_url": f"{receiver.url}/refunds",
        "amount": {"refund": 900, "total": 2900, "currency": "CNY"},
    }
    await merchant.call("POST", "/v3/refund/domestic/refunds", body)

    received = await receiver.next()

    plain = merchant.decrypted(event(received)["resource"])
    assert received.path == "/refunds"
    assert is_genuine(merchant, received)
    assert event(received)["event_type"] == "REFUND.SUCCESS"
    assert (plain["refund_status"], plain["amount"]["refund"]) == ("SUCCESS", 900)
    assert "status" not in plain
    assert plain["mchid"] == merchant.mchid


@pytest.mark.parametrize("end", ["ABNORMAL", "CLOSED"])
async def test_a_refund_that_did_not_succeed_is_told_too(
    merchant: Merchant, sandbox: SandboxProcess, receiver: WebhookReceiver, end: str
) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan(), refunds=end)
    await receiver.next()
    body = {
        "out_trade_no": NUMBER,
        "out_refund_no": "r1",
        "notify_url": f"{receiver.url}/refunds",
        "amount": {"refund": 900, "total": 2900, "currency": "CNY"},
    }
    await merchant.call("POST", "/v3/refund/domestic/refunds", body)

    received = await receiver.next()

    plain = merchant.decrypted(event(received)["resource"])
    assert event(received)["event_type"] == f"REFUND.{end}"
    assert (plain["refund_status"], plain["out_refund_no"]) == (end, "r1")
    assert "success_time" not in plain
