"""What the time does to codes, pages and trades at the sandbox's Alipay."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.alipay.calls import Call
from sandbox.alipay.errors import TradeError
from sandbox.alipay.payer import AlipayPayer, order_lines
from sandbox.alipay.trades import Trades
from sandbox.book import Document
from sandbox.core import ControlRefused, Wanted
from tests.sandbox.alipay.merchant import NUMBER, beijing
from tests.sandbox.clocked import START, ClockedSandbox, clocked_sandbox

PAGE = "alipay.trade.page.pay"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[ClockedSandbox]:
    made = clocked_sandbox(tmp_path)
    yield made
    made.book.close()


@pytest.fixture
def trades(sandbox: ClockedSandbox) -> Trades:
    return Trades(sandbox)


def call(method: str = "alipay.trade.precreate", **deadline: Any) -> Call:
    page = method == PAGE
    business = {
        "out_trade_no": NUMBER,
        "total_amount": "29.00",
        "subject": "Gold",
        "product_code": "FAST_INSTANT_TRADE_PAY" if page else "QR_CODE_OFFLINE",
        **deadline,
    }
    return Call(method, business, None, None)


def expire(seconds: float) -> str:
    return beijing(START + timedelta(seconds=seconds))


def precreated(sandbox: ClockedSandbox, trades: Trades, **deadline: Any) -> Document:
    with sandbox.book.transaction():
        return trades.precreate(call(**deadline))


def begun(sandbox: ClockedSandbox, trades: Trades, **deadline: Any) -> Document:
    order = precreated(sandbox, trades, **deadline)
    with sandbox.book.transaction():
        trades.begin(order)
    return order


def status(trades: Trades) -> str:
    return str(trades.traded(NUMBER, None)["trade"]["status"])


async def refusal(sandbox: ClockedSandbox, order: Document) -> ControlRefused:
    url = f"http://sandbox.example/alipay/qr/{order['code']}"
    with pytest.raises(ControlRefused) as problem:
        await AlipayPayer(sandbox, Trades(sandbox)).pay(
            Wanted({"type": "qr_code", "code_url": url})
        )
    return problem.value


async def test_a_waiting_trade_closes_at_its_time(sandbox: ClockedSandbox, trades: Trades) -> None:
    order = begun(sandbox, trades, time_expire=expire(60))

    sandbox.wait(seconds=59)
    before = status(trades)
    sandbox.wait(seconds=1)

    assert (before, status(trades)) == ("WAIT_BUYER_PAY", "TRADE_CLOSED")
    problem = await refusal(sandbox, order)
    assert (problem.status, "ACQ.TRADE_HAS_CLOSE" in problem.detail) == (409, True)
    with sandbox.book.transaction(), pytest.raises(TradeError, match="TRADE_STATUS_ERROR"):
        trades.close(trades.traded(NUMBER, None))
    assert sandbox.book.charges() == []


async def test_a_code_nobody_scanned_in_time_never_becomes_a_trade(
    sandbox: ClockedSandbox, trades: Trades
) -> None:
    order = precreated(sandbox, trades, time_expire=expire(60))
    [before] = order_lines(sandbox, trades, 1)

    sandbox.wait(seconds=60)

    [after] = order_lines(sandbox, trades, 1)
    assert (before.is_open, after.is_open) == (True, False)
    assert (await refusal(sandbox, order)).status == 409
    with pytest.raises(TradeError, match="TRADE_NOT_EXIST"):
        trades.traded(NUMBER, None)


def test_a_page_opened_too_late_makes_nothing(sandbox: ClockedSandbox, trades: Trades) -> None:
    sandbox.wait(seconds=60)

    with sandbox.book.transaction(), pytest.raises(TradeError, match="TRADE_HAS_CLOSE"):
        trades.arrive(call(PAGE, time_expire=expire(60)))

    assert trades.by_number(NUMBER) is None


async def test_a_code_is_good_for_two_hours(sandbox: ClockedSandbox, trades: Trades) -> None:
    order = precreated(sandbox, trades)

    sandbox.wait(hours=2)

    assert (await refusal(sandbox, order)).status == 409


@pytest.mark.parametrize(
    ("timeout", "minutes"), [("1m", 1), ("90m", 90), ("2h", 120), ("1d", 1440), ("1c", 719)]
)
def test_timeout_express_counts_from_the_scan(
    sandbox: ClockedSandbox, trades: Trades, timeout: str, minutes: int
) -> None:
    """`1c` is the end of the day in Beijing: from a minute past noon, 11 h 59 min."""
    order = precreated(sandbox, trades, timeout_express=timeout)
    sandbox.wait(minutes=1)
    with sandbox.book.transaction():
        trades.begin(order)

    sandbox.wait(minutes=minutes, seconds=-1)
    before = status(trades)
    sandbox.wait(seconds=1)

    assert (before, status(trades)) == ("WAIT_BUYER_PAY", "TRADE_CLOSED")


def test_the_absolute_time_wins(sandbox: ClockedSandbox, trades: Trades) -> None:
    begun(sandbox, trades, time_expire=expire(60), timeout_express="15d")

    sandbox.wait(seconds=60)

    assert status(trades) == "TRADE_CLOSED"


def test_a_paid_trade_stays_paid(sandbox: ClockedSandbox, trades: Trades) -> None:
    order = precreated(sandbox, trades, time_expire=expire(60))
    with sandbox.book.transaction():
        trades.pay(order)

    sandbox.wait(days=30)

    assert status(trades) == "TRADE_SUCCESS"
