"""Giving money back, over HTTP, on every gateway: to the gateway's own books and to the ledger."""

import asyncio
import secrets
from typing import Any

import pytest

from billing.refund import RefundCause
from tests.end_to_end.outcomes import events_of
from tests.fixtures.house import BASE, METHODS, House

GATEWAYS = tuple(METHODS)


async def given_back(house: House, payment_id: str) -> int:
    """What the gateway itself says, in minor units."""
    [charge] = await house.charges(payment_id)
    refunded: int = charge["refunded"]
    return refunded


async def balance(house: House, account: str, cause: str) -> int:
    async with house.database.begin() as work:
        rows = await work.connection.exec_driver_sql(
            "SELECT coalesce(sum(p.amount_minor), 0)::bigint FROM ledger_postings p"
            " JOIN ledger_transactions t ON t.id = p.transaction_id"
            " JOIN ledger_accounts a ON a.id = p.account_id WHERE a.code = %s AND t.cause = %s",
            (account, cause),
        )
        return int(rows.scalar_one())


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_in_full(house: House, gateway: str) -> None:
    payment = await house.take(gateway)
    answer = await house.post_refund(payment["id"])
    assert answer.status_code == 201, answer.text
    refund = await house.until_refund(answer.json()["id"])
    assert (refund["status"], refund["amount"]) == ("succeeded", 2900)
    assert refund["currency"] == payment["currency"]
    assert refund["gateway_reference"] or gateway == "alipay"
    assert refund["refunded_at"] is not None
    assert await given_back(house, payment["id"]) == 2900
    after = await house.read(payment["id"])
    assert (after["status"], after["amount_refunded"]) == ("succeeded", 2900)
    cause = f"refund/{refund['id']}"
    assert await balance(house, "revenue", cause) == 2900
    assert await balance(house, f"gateway_clearing:{gateway}", cause) == -2900
    told = await events_of(house, refund["id"])
    assert (told[0], told[-1]) == ("refund.created", "refund.succeeded")
    again = await house.post_refund(payment["id"])
    assert (again.status_code, again.json()["code"]) == (409, "refund_exceeds_payment")


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_in_part(house: House, gateway: str) -> None:
    payment = await house.take(gateway)
    answer = await house.post_refund(payment["id"], amount=900)
    refund = await house.until_refund(answer.json()["id"])
    assert refund["status"] == "succeeded"
    assert await given_back(house, payment["id"]) == 900
    assert (await house.read(payment["id"]))["amount_refunded"] == 900
    too_much = await house.post_refund(payment["id"], amount=2001)
    problem = too_much.json()
    assert (too_much.status_code, problem["code"]) == (409, "refund_exceeds_payment")
    assert ("2000" in problem["detail"], problem["param"]) == (True, "amount")


@pytest.mark.parametrize("gateway", ["stripe", "alipay"])
async def test_in_several_parts(house: House, gateway: str) -> None:
    payment = await house.take(gateway)
    for amount in (900, 1100):
        answer = await house.post_refund(payment["id"], amount=amount)
        assert answer.status_code == 201, answer.text
        assert (await house.until_refund(answer.json()["id"]))["status"] == "succeeded"
    rest = await house.post_refund(payment["id"])
    refund = await house.until_refund(rest.json()["id"])
    assert (refund["status"], refund["amount"]) == ("succeeded", 900)
    assert await given_back(house, payment["id"]) == 2900


async def test_the_same_key_is_one_refund(house: House) -> None:
    payment = await house.take("stripe")
    key = secrets.token_hex(16)
    answers = await asyncio.gather(
        *(house.post_refund(payment["id"], key=key, amount=500) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    [refund_id] = {answer.json()["id"] for answer in answers}
    await house.until_refund(refund_id)
    assert await given_back(house, payment["id"]) == 500
    other = await house.post_refund(payment["id"], key=key, amount=501)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_more_at_once_than_was_paid(house: House) -> None:
    payment = await house.take("stripe")
    answers = await asyncio.gather(
        *(house.post_refund(payment["id"], amount=700) for _ in range(12))
    )
    taken = [answer.json() for answer in answers if answer.status_code == 201]
    assert len(taken) == 4
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} == {
        "refund_exceeds_payment"
    }
    for refund in taken:
        assert (await house.until_refund(refund["id"]))["status"] == "succeeded"
    assert await given_back(house, payment["id"]) == 2800


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("fault", ["cut_before", "cut_after", "http_500_after", "garbage"])
async def test_the_gateway_falls_silent(house: House, gateway: str, fault: str) -> None:
    payment = await house.take(gateway)
    await house.sandbox.fault(gateway, "refund", fault, reference=payment["id"])
    answer = await house.post_refund(payment["id"], amount=900)
    assert answer.status_code in (201, 202), answer.text
    assert (await house.until_refund(answer.json()["id"]))["status"] == "succeeded"
    assert await given_back(house, payment["id"]) == 900


class TestRefusedWithNothingChanged:
    async def test_an_unpaid_payment(self, house: House) -> None:
        payment = await house.create("stripe")
        answer = await house.post_refund(payment["id"])
        assert (answer.status_code, answer.json()["code"]) == (409, "payment_not_refundable")

    @pytest.mark.parametrize(
        ("fields", "status", "code"),
        [
            ({"amount": 2901}, 409, "refund_exceeds_payment"),
            ({"amount": 0}, 422, "invalid_request"),
            ({"amount": -1}, 422, "invalid_request"),
            ({"amount": "29"}, 422, "invalid_request"),
            ({"currency": "CNY"}, 409, "payment_not_refundable"),
            ({"reason": ""}, 422, "invalid_request"),
            ({"order": "x"}, 422, "invalid_request"),
        ],
    )
    async def test_what_cannot_be(
        self, house: House, fields: dict[str, Any], status: int, code: str
    ) -> None:
        payment = await house.take("stripe")
        answer = await house.post_refund(payment["id"], **fields)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert await given_back(house, payment["id"]) == 0
        async with house.database.begin() as work:
            assert await work.refunds.of_payment(payment["id"]) == []

    async def test_another_currency_sent_again_before_its_answer_was_kept(
        self, house: House
    ) -> None:
        """As by a client that sends it twice at once: the second finds the key claimed, and no
        answer yet."""
        payment = await house.take("stripe")
        key = secrets.token_hex(16)
        for _ in range(2):
            answer = await house.post_refund(payment["id"], key=key, currency="CNY")
            assert (answer.status_code, answer.json()["code"]) == (409, "payment_not_refundable")
            async with house.database.begin() as work:
                await work.connection.exec_driver_sql(
                    "UPDATE idempotency_claims SET answer_status = NULL, answer_body = NULL"
                )
        assert await given_back(house, payment["id"]) == 0
        async with house.database.begin() as work:
            assert await work.refunds.of_payment(payment["id"]) == []

    async def test_nobody_s_payment(self, house: House) -> None:
        answer = await house.post_refund("pay_01h455vb4pex5vsknk084sn02q")
        assert (answer.status_code, answer.json()["code"]) == (404, "payment_not_found")

    async def test_nobody_s_refund(self, house: House) -> None:
        for name in ("ref_01h455vb4pex5vsknk084sn02q", "ref_x"):
            answer = await house.api.get(f"{BASE}/refund/{name}")
            assert (answer.status_code, answer.json()["code"]) == (404, "refund_not_found")


async def test_a_lost_process_goes_on_from_the_record(house: House) -> None:
    payment = await house.take("stripe")
    answer = await house.post_refund(payment["id"], amount=900)
    refund_id = answer.json()["id"]
    await house.until_refund(refund_id)
    assert not await house.resumption().resume_refund(refund_id)
    async with house.database.begin() as work:
        [record] = await work.refunds.of_payment(payment["id"])
    assert record.refund.cause is RefundCause.REQUESTED
