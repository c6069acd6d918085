"""Refunds at the sandbox's WeChat Pay."""

from typing import Any

import httpx
import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.wechatpay.merchant import NUMBER, Merchant, Told

PATH = "/v3/refund/domestic/refunds"


async def refund(merchant: Merchant, fen: int, number: str = "r1", **changed: Any) -> Told:
    body = {
        "out_trade_no": NUMBER,
        "out_refund_no": number,
        "amount": {"refund": fen, "total": 2900, "currency": "CNY"},
        **changed,
    }
    given = {name: value for name, value in body.items() if value is not None}
    return await merchant.call("POST", PATH, given)


async def test_a_refund_is_accepted_then_done(paid: Merchant, sandbox: SandboxProcess) -> None:
    accepted = await refund(paid, 900)
    done = await paid.call("GET", f"{PATH}/r1")
    unknown = await paid.call("GET", f"{PATH}/r2")

    assert (accepted.status, accepted.fields["status"]) == (200, "PROCESSING")
    assert "success_time" not in accepted.fields
    assert (done.fields["status"], done.fields["amount"]["refund"]) == ("SUCCESS", 900)
    assert done.fields["refund_id"] == accepted.fields["refund_id"]
    assert (unknown.status, unknown.fields["code"]) == (404, "RESOURCE_NOT_EXISTS")
    assert (await paid.query()).fields["trade_state"] == "REFUND"
    assert [charge["refunded"] for charge in await sandbox.charges()] == [900]


async def test_a_repeated_refund_moves_no_money(paid: Merchant, sandbox: SandboxProcess) -> None:
    first = await refund(paid, 900)
    again = await refund(paid, 900)
    other = await refund(paid, 901)

    assert again.fields["refund_id"] == first.fields["refund_id"]
    assert (other.status, other.fields["code"]) == (400, "INVALID_REQUEST")
    assert [charge["refunded"] for charge in await sandbox.charges()] == [900]


async def test_no_more_than_was_paid_goes_back(paid: Merchant, sandbox: SandboxProcess) -> None:
    ids = []
    for number in ("r1", "r2"):
        ids.append((await refund(paid, 1450, number)).fields["refund_id"])
        await sandbox.age("wechatpay", NUMBER, 60)

    too_much = await refund(paid, 1, "r3")
    mismatch = await refund(paid, 1, "r4", amount={"refund": 1, "total": 2901, "currency": "CNY"})

    assert len(set(ids)) == 2
    assert (too_much.status, too_much.fields["code"]) == (400, "INVALID_REQUEST")
    assert (mismatch.status, mismatch.fields["code"]) == (400, "REFUND_FEE_MISMATCH")
    assert [charge["refunded"] for charge in await sandbox.charges()] == [2900]


async def test_what_was_not_paid_is_not_refunded(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    nothing = await refund(merchant, 1)
    await merchant.scan()

    unpaid = await refund(merchant, 1)

    assert (nothing.status, nothing.fields["code"]) == (404, "ORDER_NOT_EXIST")
    assert (unpaid.status, unpaid.fields["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("end", "given_back", "rest"),
    [("ABNORMAL", 0, 2000), ("CLOSED", 0, 2900), ("SUCCESS", 900, 2000)],
)
async def test_a_refund_ends_as_the_payer_can_take_it(
    merchant: Merchant, sandbox: SandboxProcess, end: str, given_back: int, rest: int
) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan(), refunds=end)

    accepted = await refund(merchant, 900)
    ended = await merchant.call("GET", f"{PATH}/r1")
    again = await refund(merchant, 900)
    await sandbox.age("wechatpay", NUMBER, 60)
    too_much = await refund(merchant, rest + 1, "r2")
    others = await refund(merchant, rest, "r3")

    assert accepted.fields["status"] == "PROCESSING"
    assert (ended.fields["status"], again.fields) == (end, ended.fields)
    assert ("success_time" in ended.fields) == (end == "SUCCESS")
    assert (too_much.fields["code"], others.status) == ("INVALID_REQUEST", 200)
    expected = given_back + (rest if end == "SUCCESS" else 0)
    assert [charge["refunded"] for charge in await sandbox.charges()] == [expected]
    assert (await merchant.query()).fields["trade_state"] == "REFUND"


async def test_an_abnormal_refund_is_repaired_once(
    merchant: Merchant, sandbox: SandboxProcess
) -> None:
    await sandbox.pay(gateway="wechatpay", next_action=await merchant.scan(), refunds="ABNORMAL")
    await refund(merchant, 900)

    repaired = await sandbox.control.post("/control/wechatpay/refunds/r1/repair")
    done = await merchant.call("GET", f"{PATH}/r1")
    again = await sandbox.control.post("/control/wechatpay/refunds/r1/repair")
    unknown = await sandbox.control.post("/control/wechatpay/refunds/r2/repair")

    assert repaired.json() == {
        "gateway": "wechatpay",
        "reference": NUMBER,
        "number": "r1",
        "status": "SUCCESS",
    }
    assert done.fields["status"] == "SUCCESS"
    assert (again.status_code, unknown.status_code) == (409, 409)
    assert [charge["refunded"] for charge in await sandbox.charges()] == [900]


async def test_refunds_end_in_no_other_way(merchant: Merchant, sandbox: SandboxProcess) -> None:
    wanted = {"gateway": "wechatpay", "next_action": await merchant.scan(), "refunds": "LOST"}

    answer = await sandbox.control.post("/control/pay", json=wanted)

    assert answer.status_code == 422
    assert await sandbox.charges() == []


async def test_refunds_outlive_the_process(paid: Merchant, sandbox: SandboxProcess) -> None:
    first = await refund(paid, 900)

    await sandbox.restart()
    found = await paid.call("GET", f"{PATH}/r1")
    again = await refund(paid, 900)

    assert found.fields == again.fields
    assert again.fields["refund_id"] == first.fields["refund_id"]
    assert [charge["refunded"] for charge in await sandbox.charges()] == [900]


@pytest.mark.parametrize("by_transaction", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "code", "is_done"),
    [
        ("cut_before", 0, None, False),
        ("cut_after", 0, None, True),
        ("http_429", 429, "FREQUENCY_LIMITED", False),
        ("http_500_after", 500, "SYSTEM_ERROR", True),
        ("balance_insufficient", 403, "NOT_ENOUGH", False),
    ],
)
async def test_a_fault_hits_the_refunds_of_its_payment(
    paid: Merchant,
    sandbox: SandboxProcess,
    by_transaction: bool,
    fault: str,
    status: int,
    code: str | None,
    is_done: bool,
) -> None:
    named: dict[str, Any] = {}
    if by_transaction:
        transaction_id = (await paid.query()).fields["transaction_id"]
        named = {"out_trade_no": None, "transaction_id": transaction_id}
    await sandbox.fault("wechatpay", "refund", fault, reference="pay_of_another")
    await sandbox.fault("wechatpay", "refund", fault, reference=NUMBER)

    try:
        told = await refund(paid, 900, **named)
        seen = (told.status, told.fields["code"])
    except httpx.RemoteProtocolError:
        seen = (0, None)
    query = await paid.call("GET", f"{PATH}/r1")

    assert seen == (status, code)
    assert query.status == (200 if is_done else 404)
    assert (await refund(paid, 900, **named)).status == 200
    assert [charge["refunded"] for charge in await sandbox.charges()] == [900]


@pytest.mark.parametrize("operation", ["refund", "refund_query"])
@pytest.mark.parametrize(
    ("fault", "place", "lie"),
    [
        ("wrong_amount", "refund", 901),
        ("wrong_currency", "currency", "USD"),
        ("wrong_order", "out_trade_no", f"{NUMBER[:-1]}0"),
        ("unknown_status", "status", "PONDERING"),
    ],
)
async def test_a_lie_about_a_refund_is_signed(
    paid: Merchant, sandbox: SandboxProcess, operation: str, fault: str, place: str, lie: Any
) -> None:
    await refund(paid, 900)
    await sandbox.fault("wechatpay", operation, fault, reference=NUMBER)

    if operation == "refund":
        told = await refund(paid, 900)
    else:
        told = await paid.call("GET", f"{PATH}/r1")
    after = await paid.call("GET", f"{PATH}/r1")

    assert told.is_signed
    assert {**told.fields, **told.fields["amount"]}[place] == lie
    assert {**after.fields, **after.fields["amount"]}[place] != lie


class TestLimits:
    async def test_a_minute_lies_between_two_refunds(
        self, paid: Merchant, sandbox: SandboxProcess
    ) -> None:
        await refund(paid, 900)
        too_soon = await refund(paid, 500, "r2")
        unknown = await paid.call("GET", f"{PATH}/r2")
        again = await refund(paid, 900)
        await sandbox.age("wechatpay", NUMBER, 57)
        still_too_soon = await refund(paid, 500, "r2")
        await sandbox.age("wechatpay", NUMBER, 3)
        in_time = await refund(paid, 500, "r2")

        for refused in (too_soon, still_too_soon):
            assert (refused.status, refused.fields["code"]) == (429, "FREQUENCY_LIMITED")
            assert refused.is_signed
        assert unknown.status == 404
        assert (again.status, in_time.status) == (200, 200)
        assert [charge["refunded"] for charge in await sandbox.charges()] == [1400]

    async def test_fifty_and_no_more(self, paid: Merchant, sandbox: SandboxProcess) -> None:
        for _ in range(49):
            await sandbox.refund("wechatpay", NUMBER, amount=1)
        await sandbox.age("wechatpay", NUMBER, 60)
        last = await refund(paid, 1, "r50")
        await sandbox.age("wechatpay", NUMBER, 60)
        one_more = await refund(paid, 1, "r51")
        repeated = await refund(paid, 1, "r50")

        assert (last.status, repeated.status) == (200, 200)
        assert (one_more.status, one_more.fields["code"]) == (400, "INVALID_REQUEST")
        assert [charge["refunded"] for charge in await sandbox.charges()] == [50]

    async def test_until_365_days_after_the_payment(
        self, paid: Merchant, sandbox: SandboxProcess
    ) -> None:
        [before] = await sandbox.charges()
        aged = await sandbox.age("wechatpay", NUMBER, 365 * 86_400 - 30)
        on_the_last_day = await refund(paid, 900)
        await sandbox.age("wechatpay", NUMBER, 60)
        too_late = await refund(paid, 900, "r2")
        done = await paid.call("GET", f"{PATH}/r1")

        assert aged["reference"] == NUMBER
        assert aged["paid_at"] < before["paid_at"]
        assert (on_the_last_day.status, done.fields["status"]) == (200, "SUCCESS")
        assert (too_late.status, too_late.fields["code"]) == (400, "TRADE_OVERDUE")
        assert [charge["refunded"] for charge in await sandbox.charges()] == [900]

    async def test_only_what_was_paid_has_an_age(
        self, merchant: Merchant, sandbox: SandboxProcess
    ) -> None:
        wanted = {"gateway": "wechatpay", "reference": NUMBER, "seconds": 60}
        nothing = await sandbox.control.post("/control/age", json=wanted)
        await merchant.scan()
        unpaid = await sandbox.control.post("/control/age", json=wanted)
        younger = await sandbox.control.post("/control/age", json={**wanted, "seconds": -1})
        no_limits = await sandbox.control.post("/control/age", json={**wanted, "gateway": "stripe"})

        assert (nothing.status_code, unpaid.status_code) == (404, 409)
        assert (younger.status_code, no_limits.status_code) == (422, 422)
