"""Refunds at the sandbox's WeChat Pay."""

from typing import Any

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
    return await merchant.call("POST", PATH, body)


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
    ids = [(await refund(paid, 1450, f"r{n}")).fields["refund_id"] for n in range(2)]

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
