"""Faults of the sandbox's Alipay: answers that lie under a good signature, and broken ones."""

import json
from typing import Any

import httpx
import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.alipay.merchant import NUMBER, Merchant, terms


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        ("wrong_amount", {"total_amount": "29.01"}),
        ("wrong_currency", {"trans_currency": "USD"}),
        ("wrong_merchant", {"seller_id": "2088000000000000"}),
        ("wrong_order", {"out_trade_no": f"{NUMBER[:-1]}0"}),
        ("unknown_status", {"trade_status": "TRADE_PONDERING"}),
    ],
)
async def test_a_lie_is_signed(
    paid: Merchant, sandbox: SandboxProcess, fault: str, changed: dict[str, Any]
) -> None:
    true = await paid.query()
    await sandbox.fault("alipay", "query", fault)

    lie = await paid.query()
    after = await paid.query()

    assert lie.is_signed
    assert {name: lie.node[name] for name in changed} == changed
    assert all(true.node.get(name) != value for name, value in changed.items())
    assert after.node == true.node


async def test_a_bad_signature_leaves_the_truth_unsigned(
    paid: Merchant, sandbox: SandboxProcess
) -> None:
    true = await paid.query()
    await sandbox.fault("alipay", "query", "bad_signature")

    told = await paid.query()

    assert told.node == true.node
    assert not told.is_signed


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [("cut_before", False), ("cut_after", True), ("http_500", False), ("http_500_after", True)],
)
async def test_an_order_is_made_or_not_whatever_is_answered(
    merchant: Merchant, sandbox: SandboxProcess, fault: str, is_done: bool
) -> None:
    await sandbox.fault("alipay", "open", fault, reference=NUMBER)
    parameters = merchant.parameters("alipay.trade.precreate", terms())

    try:
        status = (await sandbox.control.post(merchant.gateway, data=parameters)).status_code
    except httpx.RemoteProtocolError:
        status = 0
    again = await merchant.precreate()

    assert status == (0 if fault.startswith("cut") else 500)
    code = "ACQ.APPLY_PC_MERCHANT_CODE_ERROR" if is_done else None
    assert again.node.get("sub_code") == code


@pytest.mark.parametrize("fault", ["garbage", "truncated"])
async def test_a_broken_answer_is_no_answer(
    merchant: Merchant, sandbox: SandboxProcess, fault: str
) -> None:
    await sandbox.fault("alipay", "close", fault)
    parameters = merchant.parameters("alipay.trade.close", {"out_trade_no": NUMBER})

    answer = await sandbox.control.post(merchant.gateway, data=parameters)

    assert answer.status_code == 200
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        answer.json()


async def test_being_throttled_says_when_to_come_back(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("alipay", "query", "http_429", retry_after=7)
    parameters = merchant.parameters("alipay.trade.query", {"out_trade_no": NUMBER})

    answer = await sandbox.control.post(merchant.gateway, data=parameters)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("operation", "fault"), [("close", "close_too_early"), ("webhook", "signtest")]
)
async def test_faults_of_wechatpay_alone_are_refused_elsewhere(
    sandbox: SandboxProcess, operation: str, fault: str
) -> None:
    for gateway, at in (("alipay", operation), ("stripe", operation), ("wechatpay", "query")):
        wanted = {"gateway": gateway, "operation": at, "fault": fault}
        assert (await sandbox.control.post("/control/faults", json=wanted)).status_code == 422
