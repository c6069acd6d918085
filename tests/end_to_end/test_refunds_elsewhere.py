"""Money given back, and orders closed, at the gateway's own dashboard: noticed and recorded."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from billing.messages import REFUND_WORKFLOW, RefundEnded
from billing.payment import GatewayName
from billing.refund import RefundCause, RefundStatus
from gateways.gateway import Order, RefundObservation, RefundOrder, RefundState, ToldRefunds
from runtime.queues import CORE
from storage.refund_rows import RefundRecord, request_of
from tests.end_to_end.lost_refunds import made_and_lost
from tests.end_to_end.outcomes import attention_to, events_of, webhooks_of
from tests.end_to_end.stand_ins import StandIn, standing_in
from tests.end_to_end.test_refunds import balance, given_back
from tests.fixtures.house import BASE, METHODS, House

GATEWAYS = tuple(METHODS)
_WAIT_SECONDS = 60.0


async def refunds_of(house: House, payment_id: str) -> list[RefundRecord]:
    async with house.database.begin() as work:
        return await work.refunds.of_payment(payment_id)


async def until_refunded(house: House, payment_id: str, amount: int) -> dict[str, Any]:
    return await house.until(payment_id, lambda now: now["amount_refunded"] == amount)


async def take_and_end(house: House, gateway: str) -> dict[str, Any]:
    """A paid payment whose own workflow has ended."""
    payment = await house.take(gateway)
    await house.client.get_workflow_handle(payment["id"]).result()
    return payment


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("amount", [2900, 900])
async def test_noticed_by_webhook(house: House, gateway: str, amount: int) -> None:
    payment = await take_and_end(house, gateway)
    made = await house.sandbox.refund(gateway, payment["id"], amount=amount)
    after = await until_refunded(house, payment["id"], amount)
    assert after["status"] == "succeeded"
    [record] = await refunds_of(house, payment["id"])
    refund = record.refund
    assert (refund.cause, refund.status) == (RefundCause.ELSEWHERE, RefundStatus.SUCCEEDED)
    assert (refund.amount, refund.gateway_reference) == (amount, made["number"])
    cause = f"refund/{refund.id}"
    assert await balance(house, "revenue", cause) == amount
    assert await balance(house, f"gateway_clearing:{gateway}", cause) == -amount
    assert await events_of(house, refund.id) == ["refund.created", "refund.succeeded"]
    assert await attention_to(house, payment["id"]) == []
    shown = await house.until_refund(refund.id)
    assert (shown["cause"], shown["amount"]) == ("elsewhere", amount)
    too_much = await house.post_refund(payment["id"], amount=2901 - amount)
    assert (too_much.status_code, too_much.json()["code"]) == (409, "refund_exceeds_payment")


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_one_of_ours_that_the_record_does_not_have(house: House, gateway: str) -> None:
    """As after the database was restored: the gateway made it under a number of ours."""
    payment = await take_and_end(house, gateway)
    number = await made_and_lost(house, payment, 900)
    await until_refunded(house, payment["id"], 900)
    await house.command(payment["id"], "refresh")
    [record] = await refunds_of(house, payment["id"])
    assert (record.refund.id, record.refund.amount) == (number, 900)
    assert record.refund.cause is RefundCause.ELSEWHERE
    assert record.refund.status is RefundStatus.SUCCEEDED
    await _begun_again(house, record, payment["user_id"])
    assert await refunds_of(house, payment["id"]) == [record]
    assert await given_back(house, payment["id"]) == 900
    too_much = await house.post_refund(payment["id"], amount=2001)
    assert (too_much.status_code, too_much.json()["code"]) == (409, "refund_exceeds_payment")
    assert await attention_to(house, payment["id"]) == []


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_twice_and_told_again(house: House, gateway: str) -> None:
    payment = await take_and_end(house, gateway)
    await house.sandbox.refund(gateway, payment["id"], amount=900)
    await until_refunded(house, payment["id"], 900)
    await house.sandbox.refund(gateway, payment["id"], amount=2000)
    await until_refunded(house, payment["id"], 2900)
    for webhook in await webhooks_of(house, payment["id"]):
        await house.sandbox.control.post(f"/control/webhooks/{webhook['id']}/resend")
    await house.command(payment["id"], "refresh")
    assert sorted(one.refund.amount for one in await refunds_of(house, payment["id"])) == [
        900,
        2000,
    ]
    assert (await house.read(payment["id"]))["amount_refunded"] == 2900
    assert await given_back(house, payment["id"]) == 2900


@pytest.mark.parametrize(
    ("gateway", "amount"), [("stripe", 900), ("stripe", 2900), ("alipay", 2900)]
)
async def test_webhook_lost_and_refreshed(house: House, gateway: str, amount: int) -> None:
    payment = await take_and_end(house, gateway)
    await house.sandbox.fault(gateway, "webhook", "never", reference=payment["id"], times=5)
    await house.sandbox.refund(gateway, payment["id"], amount=amount)
    await house.command(payment["id"], "refresh")
    await until_refunded(house, payment["id"], amount)
    [record] = await refunds_of(house, payment["id"])
    assert record.refund.cause is RefundCause.ELSEWHERE


async def test_alipay_names_a_refund_that_was_known_without_its_number(house: House) -> None:
    payment = await take_and_end(house, "alipay")
    await house.sandbox.fault("alipay", "webhook", "never", reference=payment["id"], times=5)
    await house.sandbox.refund("alipay", payment["id"])
    await house.command(payment["id"], "refresh")
    await until_refunded(house, payment["id"], 2900)
    await house.sandbox.control.delete("/control/faults")
    await _send_again(house, payment["id"], "TRADE_CLOSED")
    await house.command(payment["id"], "refresh")
    assert len(await refunds_of(house, payment["id"])) == 1
    assert (await house.read(payment["id"]))["amount_refunded"] == 2900


async def test_a_person_is_called_where_wechat_pay_does_not_say_which(house: House) -> None:
    payment = await take_and_end(house, "wechatpay")
    await house.sandbox.fault("wechatpay", "webhook", "never", reference=payment["id"], times=5)
    await house.sandbox.refund("wechatpay", payment["id"], amount=900)
    await house.command(payment["id"], "refresh")
    await _until_called(house, payment["id"], ["refunded_elsewhere"])
    assert await refunds_of(house, payment["id"]) == []
    await house.sandbox.control.delete("/control/faults")
    await _send_again(house, payment["id"], "REFUND.SUCCESS")
    await until_refunded(house, payment["id"], 900)
    await _until_called(house, payment["id"], [])


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_while_a_refund_of_ours_is_under_way(house: House, gateway: str) -> None:
    """Ours was set aside, and the gateway has nothing left for it: it fails as any other."""
    payment = await take_and_end(house, gateway)
    await house.sandbox.fault(gateway, "refund", "http_500", reference=payment["id"], times=3)
    ours = asyncio.create_task(house.post_refund(payment["id"]))
    async with asyncio.timeout(_WAIT_SECONDS):
        while not await refunds_of(house, payment["id"]):
            await asyncio.sleep(0.05)
    await house.sandbox.refund(gateway, payment["id"], amount=2900)
    answer = await ours
    refund = await house.until_refund(answer.json()["id"])
    assert refund["status"] == "failed"
    await until_refunded(house, payment["id"], 2900)
    assert await given_back(house, payment["id"]) == 2900
    assert await attention_to(house, payment["id"]) == []


async def test_one_that_fails_at_the_bank_after_all(house: House) -> None:
    payment = await take_and_end(house, "stripe")
    await house.sandbox.refund("stripe", payment["id"], amount=900)
    await until_refunded(house, payment["id"], 900)
    answer = await house.sandbox.control.post(
        "/control/refunds",
        json={"gateway": "stripe", "reference": payment["id"], "outcome": "fail"},
    )
    assert answer.status_code == 200
    await until_refunded(house, payment["id"], 0)
    [record] = await refunds_of(house, payment["id"])
    assert record.refund.status is RefundStatus.FAILED
    assert await balance(house, "revenue", f"refund/{record.refund.id}/failed") == -900


class _OnItsWay(StandIn):
    """The gateway has accepted what was asked for elsewhere, and not carried it out yet."""

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        told = await super().list_refunds(order, hints)
        waiting = RefundObservation(RefundState.PROCESSING, "on its way")
        return replace(
            told, refunds=tuple(replace(one, observation=waiting) for one in told.refunds)
        )

    async def refund(self, order: RefundOrder) -> RefundObservation:
        raise AssertionError("a refund that is not ours is never asked for")


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_one_on_its_way_is_looked_at_by_the_sweep(house: House, gateway: str) -> None:
    payment = await take_and_end(house, gateway)
    with standing_in(house, _OnItsWay(house.gateways[GatewayName(gateway)])):
        await house.sandbox.refund(gateway, payment["id"], amount=900)
        async with asyncio.timeout(_WAIT_SECONDS):
            while not (found := await refunds_of(house, payment["id"])):
                await asyncio.sleep(0.05)
        refund_id = found[0].refund.id
        assert await house.resumption().resume_refund(refund_id)
        shown = await house.api.get(f"{BASE}/refund/{refund_id}")
        assert shown.json()["status"] == "processing"
    assert await house.resumption().resume_refund(refund_id)
    await until_refunded(house, payment["id"], 900)
    assert not await house.resumption().resume_refund(refund_id)


class TestAnOrderClosedElsewhere:
    @pytest.mark.parametrize("gateway", GATEWAYS)
    @pytest.mark.parametrize("is_told", [True, False])
    async def test_ends_the_payment(self, house: House, gateway: str, is_told: bool) -> None:
        payment = await house.create(gateway)
        payment = await house.until_status(payment["id"], "requires_action")
        if gateway == "alipay":
            # It knows of a trade from when the payer scans.
            await house.sandbox.decline(gateway=gateway, next_action=payment["next_action"])
        if not is_told:
            await house.sandbox.fault(gateway, "webhook", "never", reference=payment["id"])
        await house.sandbox.close(gateway, payment["id"])
        if not (is_told and gateway == "stripe"):
            # Only Stripe tells of it; the others are asked, here before the next poll.
            await house.command(payment["id"], "refresh")
        after = await house.until_status(payment["id"])
        assert (after["status"], after["failure"]["code"]) == ("failed", "closed_by_gateway")


async def test_the_promises_are_kept(house: House) -> None:
    await house.check_promises()


async def _begun_again(house: House, record: RefundRecord, user_id: str) -> None:
    """As by a repeat under the claim that the restore left."""
    again = request_of(record, user_id).model_copy(
        update={"cause": RefundCause.REQUESTED, "amount_minor": 400}
    )
    ended: RefundEnded = await house.client.execute_workflow(
        REFUND_WORKFLOW, again, id=again.refund_id, task_queue=CORE, result_type=RefundEnded
    )
    assert ended.status is RefundStatus.SUCCEEDED


async def _until_called(house: House, payment_id: str, reasons: list[str]) -> None:
    async with asyncio.timeout(_WAIT_SECONDS):
        while await attention_to(house, payment_id) != reasons:
            await asyncio.sleep(0.05)


async def _send_again(house: House, payment_id: str, event_type: str) -> None:
    [webhook] = [
        one for one in await webhooks_of(house, payment_id) if one["event_type"] == event_type
    ]
    answer = await house.sandbox.control.post(f"/control/webhooks/{webhook['id']}/resend")
    assert answer.status_code == 200, answer.text
    async with asyncio.timeout(_WAIT_SECONDS):
        while (await webhooks_of(house, payment_id))[0]["state"] == "waiting":
            await asyncio.sleep(0.05)
