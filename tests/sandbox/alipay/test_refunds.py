"""Refunds and cancels at the sandbox's Alipay."""

from typing import Any

import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.alipay.merchant import NUMBER, Merchant, Told


async def refund(merchant: Merchant, amount: str, number: str | None) -> Told:
    business = {"out_trade_no": NUMBER, "refund_amount": amount}
    if number:
        business["out_request_no"] = number
    return await merchant.call("alipay.trade.refund", business)


async def ask(merchant: Merchant, number: str) -> dict[str, Any]:
    told = await merchant.call(
        "alipay.trade.fastpay.refund.query", {"out_trade_no": NUMBER, "out_request_no": number}
    )
    assert told.is_signed
    return told.node


async def test_partial_refunds_add_up(paid: Merchant, sandbox: SandboxProcess) -> None:
    first = await refund(paid, "9.00", "r1")
    await sandbox.age("alipay", NUMBER, 3)
    second = await refund(paid, "10.5", "r2")

    assert (first.node["refund_fee"], first.node["fund_change"]) == ("9.00", "Y")
    assert (second.node["refund_fee"], second.node["send_back_fee"]) == ("19.50", "10.50")
    assert (await paid.query()).node["trade_status"] == "TRADE_SUCCESS"
    [charge] = await sandbox.charges()
    assert (charge["amount"], charge["refunded"]) == (2900, 1950)
    told = await ask(paid, "r2")
    assert (told["refund_status"], told["refund_amount"]) == ("REFUND_SUCCESS", "10.50")


async def test_a_repeated_refund_moves_no_money(paid: Merchant, sandbox: SandboxProcess) -> None:
    await refund(paid, "9.00", "r1")

    again = await refund(paid, "9.00", "r1")
    other = await refund(paid, "9.01", "r1")

    assert (again.node["refund_fee"], again.node["fund_change"]) == ("9.00", "N")
    assert other.node["sub_code"] == "ACQ.DISCORDANT_REPEAT_REQUEST"
    assert [charge["refunded"] for charge in await sandbox.charges()] == [900]


async def test_without_a_number_it_is_the_orders_own(paid: Merchant) -> None:
    first = await refund(paid, "9.00", None)
    second = await refund(paid, "9.00", None)

    assert (first.node["fund_change"], second.node["fund_change"]) == ("Y", "N")
    assert (await ask(paid, NUMBER))["refund_amount"] == "9.00"


async def test_a_full_refund_closes_the_trade(paid: Merchant, sandbox: SandboxProcess) -> None:
    await refund(paid, "28.99", "r1")
    too_much = await refund(paid, "0.02", "r2")
    await sandbox.age("alipay", NUMBER, 3)
    await refund(paid, "0.01", "r3")

    told = await paid.query()
    assert too_much.node["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert told.node["trade_status"] == "TRADE_CLOSED"
    assert told.node["send_pay_date"]
    assert (await refund(paid, "0.01", "r4")).node["sub_code"] == "ACQ.TRADE_HAS_CLOSE"
    assert (await refund(paid, "28.99", "r1")).node["fund_change"] == "N"
    assert [charge["refunded"] for charge in await sandbox.charges()] == [2900]


async def test_an_unknown_refund_has_no_status(paid: Merchant) -> None:
    told = await ask(paid, "nobody")

    assert told == {"code": "10000", "msg": "Success"}


async def test_unpaid_trades_are_not_refunded(merchant: Merchant, sandbox: SandboxProcess) -> None:
    made = await merchant.precreate()
    before = await refund(merchant, "1.00", "r1")
    code = {"type": "qr_code", "code_url": made.node["qr_code"]}
    await sandbox.decline(gateway="alipay", next_action=code)

    assert before.node["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert (await refund(merchant, "1.00", "r1")).node["sub_code"] == "ACQ.TRADE_STATUS_ERROR"


async def test_cancel_gives_everything_back(paid: Merchant, sandbox: SandboxProcess) -> None:
    await refund(paid, "9.00", "r1")

    told = await paid.call("alipay.trade.cancel", {"out_trade_no": NUMBER})
    again = await paid.call("alipay.trade.cancel", {"out_trade_no": NUMBER})

    assert (told.node["action"], told.node["retry_flag"]) == ("refund", "N")
    assert "action" not in again.node
    assert [charge["refunded"] for charge in await sandbox.charges()] == [2900]


async def test_cancel_closes_what_waits_and_leaves_what_is_not_there(
    merchant: Merchant,
    sandbox: SandboxProcess,
) -> None:
    made = await merchant.precreate()
    nothing = await merchant.call("alipay.trade.cancel", {"out_trade_no": NUMBER})
    code = {"type": "qr_code", "code_url": made.node["qr_code"]}
    await sandbox.decline(gateway="alipay", next_action=code)

    told = await merchant.call("alipay.trade.cancel", {"out_trade_no": NUMBER})

    assert (nothing.node["code"], "action" in nothing.node) == ("10000", False)
    assert told.node["action"] == "close"
    assert (await merchant.query()).node["trade_status"] == "TRADE_CLOSED"


async def test_an_empty_account_refuses_until_it_is_topped_up(
    paid: Merchant, sandbox: SandboxProcess
) -> None:
    await sandbox.fault("alipay", "refund", "balance_insufficient", reference=NUMBER)

    refused = await refund(paid, "9.00", "r1")

    assert refused.is_signed
    assert (refused.node["code"], refused.node["sub_code"]) == (
        "40004",
        "ACQ.SELLER_BALANCE_NOT_ENOUGH",
    )
    assert [charge["refunded"] for charge in await sandbox.charges()] == [0]
    assert (await refund(paid, "9.00", "r1")).node["fund_change"] == "Y"


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        ("wrong_amount", {"refund_amount": "9.01", "total_amount": "29.01"}),
        ("wrong_currency", {"refund_currency": "USD"}),
        ("unknown_status", {"refund_status": "REFUND_PONDERING"}),
    ],
)
async def test_a_lie_about_a_refund_is_signed(
    paid: Merchant, sandbox: SandboxProcess, fault: str, changed: dict[str, Any]
) -> None:
    await refund(paid, "9.00", "r1")
    await sandbox.fault("alipay", "refund_query", fault)

    lie = await ask(paid, "r1")

    assert {name: lie[name] for name in changed} == changed
    assert (await ask(paid, "r1")).items() & changed.items() == set()


class TestLimits:
    async def test_three_seconds_lie_between_two_refunds(
        self, paid: Merchant, sandbox: SandboxProcess
    ) -> None:
        await refund(paid, "9.00", "r1")
        too_soon = await refund(paid, "5.00", "r2")
        unknown = await ask(paid, "r2")
        again = await refund(paid, "9.00", "r1")
        await sandbox.age("alipay", NUMBER, 3)
        in_time = await refund(paid, "5.00", "r2")

        assert (too_soon.node["code"], too_soon.node["sub_code"]) == (
            "40004",
            "ACQ.USER_RATE_LIMIT",
        )
        assert too_soon.is_signed
        assert "refund_status" not in unknown
        assert (again.node["fund_change"], in_time.node["fund_change"]) == ("N", "Y")
        assert [charge["refunded"] for charge in await sandbox.charges()] == [1400]

    async def test_a_trade_finishes_365_days_after_its_payment(
        self, paid: Merchant, sandbox: SandboxProcess
    ) -> None:
        [before] = await sandbox.charges()
        aged = await sandbox.age("alipay", NUMBER, 365 * 86_400 - 30)
        on_the_last_day = await refund(paid, "9.00", "r1")
        status = (await paid.query()).node["trade_status"]
        await sandbox.age("alipay", NUMBER, 60)
        too_late = await refund(paid, "9.00", "r2")
        canceled = await paid.call("alipay.trade.cancel", {"out_trade_no": NUMBER})
        finished = (await paid.query()).node

        assert aged["paid_at"] < before["paid_at"]
        assert (on_the_last_day.node["fund_change"], status) == ("Y", "TRADE_SUCCESS")
        assert too_late.node["sub_code"] == "ACQ.TRADE_HAS_FINISHED"
        assert canceled.node["sub_code"] == "ACQ.TRADE_HAS_FINISHED"
        assert (finished["trade_status"], finished["total_amount"]) == ("TRADE_FINISHED", "29.00")
        assert (await ask(paid, "r1"))["refund_status"] == "REFUND_SUCCESS"
        assert [charge["refunded"] for charge in await sandbox.charges()] == [900]

    async def test_only_what_was_paid_has_an_age(
        self, merchant: Merchant, sandbox: SandboxProcess
    ) -> None:
        wanted = {"gateway": "alipay", "reference": NUMBER, "seconds": 3}
        nothing = await sandbox.control.post("/control/age", json=wanted)
        made = await merchant.precreate()
        code = {"type": "qr_code", "code_url": made.node["qr_code"]}
        await sandbox.decline(gateway="alipay", next_action=code)
        unpaid = await sandbox.control.post("/control/age", json=wanted)

        assert (nothing.status_code, unpaid.status_code) == (404, 409)
