"""What the time does to orders and instructions at the sandbox's WeChat Pay."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.book import Document
from sandbox.core import ControlRefused, Wanted
from sandbox.wechatpay.errors import WechatError
from sandbox.wechatpay.orders import Orders
from sandbox.wechatpay.payer import WechatPayer
from tests.sandbox.clocked import START, ClockedSandbox, clocked_sandbox
from tests.sandbox.wechatpay.merchant import NUMBER


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[ClockedSandbox]:
    made = clocked_sandbox(tmp_path)
    yield made
    made.book.close()


def place(sandbox: ClockedSandbox, trade_type: str = "NATIVE", **changed: Any) -> Document:
    keys = sandbox.keys["wechatpay"]
    body = {
        "appid": keys["appid"],
        "mchid": keys["mchid"],
        "description": "Gold",
        "out_trade_no": NUMBER,
        "notify_url": "http://127.0.0.1:9/n",
        "amount": {"total": 2900, "currency": "CNY"},
        **changed,
    }
    if trade_type == "MWEB":
        body["scene_info"] = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    with sandbox.book.transaction():
        return Orders(sandbox).place(trade_type, body)


def state(sandbox: ClockedSandbox) -> str:
    order = Orders(sandbox).by_number(NUMBER)
    assert order is not None
    return str(order["state"])


async def pay(sandbox: ClockedSandbox, order: Document) -> int:
    """The payer's answer, in HTTP's numbers."""
    if order["trade_type"] == "MWEB":
        query = f"prepay_id={order['prepay_id']}&package={order['code']}"
        url = f"http://sandbox.example/wechatpay/h5/checkmweb?{query}"
        action = {"type": "redirect", "url": url}
    else:
        action = {"type": "qr_code", "code_url": f"weixin://wxpay/bizpayurl?pr={order['code']}"}
    try:
        await WechatPayer(sandbox, Orders(sandbox)).pay(Wanted(action))
    except ControlRefused as problem:
        return problem.status
    return 200


async def test_an_unpaid_order_closes_at_its_time(sandbox: ClockedSandbox) -> None:
    expiry = (START + timedelta(seconds=60)).isoformat()
    order = place(sandbox, time_expire=expiry)

    sandbox.wait(seconds=59)
    before = state(sandbox)
    sandbox.wait(seconds=1)

    assert (before, state(sandbox)) == ("NOTPAY", "CLOSED")
    assert await pay(sandbox, order) == 409
    with pytest.raises(WechatError, match="ORDER_CLOSED"):
        place(sandbox, time_expire=expiry)
    with sandbox.book.transaction(), pytest.raises(WechatError, match="ORDER_CLOSED"):
        Orders(sandbox).close(NUMBER)
    assert sandbox.book.charges() == []


async def test_a_paid_order_stays_paid(sandbox: ClockedSandbox) -> None:
    order = place(sandbox, time_expire=(START + timedelta(seconds=60)).isoformat())
    assert await pay(sandbox, order) == 200

    sandbox.wait(days=30)

    assert state(sandbox) == "SUCCESS"


@pytest.mark.parametrize(("trade_type", "minutes"), [("NATIVE", 120), ("MWEB", 5)])
async def test_instructions_grow_old_and_are_made_anew(
    sandbox: ClockedSandbox, trade_type: str, minutes: int
) -> None:
    first = place(sandbox, trade_type)

    sandbox.wait(minutes=minutes, seconds=-1)
    same = place(sandbox, trade_type)
    sandbox.wait(seconds=1)
    too_old = await pay(sandbox, first)
    fresh = place(sandbox, trade_type)

    assert same["prepay_id"] == first["prepay_id"] != fresh["prepay_id"]
    assert too_old == 409
    assert await pay(sandbox, first) == 404
    assert await pay(sandbox, fresh) == 200
