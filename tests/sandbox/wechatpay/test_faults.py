"""Faults of the sandbox's WeChat Pay: answers that lie under a good signature, and broken ones."""

import json
from typing import Any

import httpx
import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.wechatpay.merchant import NUMBER, TRANSACTIONS, Merchant


def at(fields: dict[str, Any], path: str) -> Any:
    found: Any = fields
    for name in path.split("."):
        found = found[name]
    return found


@pytest.mark.parametrize(
    ("fault", "path", "lie"),
    [
        ("wrong_amount", "amount.total", 2901),
        ("wrong_currency", "amount.currency", "USD"),
        ("wrong_merchant", "mchid", None),
        ("wrong_order", "out_trade_no", f"{NUMBER[:-1]}0"),
        ("unknown_status", "trade_state", "PONDERING"),
    ],
)
async def test_a_lie_is_signed(
    paid: Merchant, sandbox: SandboxProcess, fault: str, path: str, lie: Any
) -> None:
    true = await paid.query()
    await sandbox.fault("wechatpay", "query", fault, reference=NUMBER)

    told = await paid.query()
    after = await paid.query()

    assert told.is_signed
    assert at(told.fields, path) != at(true.fields, path)
    assert lie in (None, at(told.fields, path))
    assert after.fields == true.fields


@pytest.mark.parametrize("operation", ["open", "query", "close"])
async def test_a_bad_signature_is_on_any_answer(
    merchant: Merchant, sandbox: SandboxProcess, operation: str
) -> None:
    if operation != "open":
        await merchant.place()
    await sandbox.fault("wechatpay", operation, "bad_signature")

    if operation == "open":
        told = await merchant.place()
    else:
        told = await (merchant.query() if operation == "query" else merchant.close())

    assert told.status in (200, 204)
    assert not told.is_signed


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [("cut_before", False), ("cut_after", True), ("http_500", False), ("http_500_after", True)],
)
async def test_an_order_is_placed_or_not_whatever_is_answered(
    merchant: Merchant, sandbox: SandboxProcess, fault: str, is_done: bool
) -> None:
    await sandbox.fault("wechatpay", "open", fault, reference=NUMBER)

    try:
        told = await merchant.place()
        status, code = told.status, told.fields["code"]
    except httpx.RemoteProtocolError:
        status, code = 0, None
    query = await merchant.query()

    expected = (0, None) if fault.startswith("cut") else (500, "SYSTEM_ERROR")
    assert (status, code) == expected
    assert query.status == (200 if is_done else 404)
    assert (await merchant.place()).status == 200


@pytest.mark.parametrize("fault", ["garbage", "truncated"])
async def test_a_broken_answer_is_no_answer(
    paid: Merchant, sandbox: SandboxProcess, fault: str
) -> None:
    await sandbox.fault("wechatpay", "query", fault)
    path = f"{TRANSACTIONS}/out-trade-no/{NUMBER}?mchid={paid.mchid}"

    answer = await sandbox.control.get(path, headers=paid.headers("GET", path, ""))

    assert answer.status_code == 200
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        answer.json()


async def test_being_throttled_says_when_to_come_back(
    paid: Merchant, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("wechatpay", "query", "http_429", retry_after=7)

    told = await paid.query()

    assert (told.status, told.fields["code"]) == (429, "FREQUENCY_LIMITED")
    assert told.headers["Retry-After"] == "7"
