"""A payment that is to be paid in another way: one order, several rails, one receipt kept."""

import asyncio
import secrets
from typing import Any

import httpx
import pytest

from billing.payment import AttemptState, GatewayName
from tests.end_to_end.outcomes import attention_to, events_of, until_returned, until_status
from tests.end_to_end.stand_ins import SilentToOpen, standing_in
from tests.fixtures.house import BASE, METHODS, House

WAYS = tuple((gateway, METHODS[gateway][0]) for gateway in METHODS)
PAIRS = [(old, new) for old in WAYS for new in WAYS if old != new]


async def switch(
    house: House, payment_id: str, gateway: str, method: str, *, key: str | None = None
) -> httpx.Response:
    return await house.api.post(
        f"{BASE}/{payment_id}/switch",
        json={"gateway": gateway, "method": method},
        headers={"Idempotency-Key": key or secrets.token_hex(16)},
    )


async def switched(house: House, payment: dict[str, Any], gateway: str, method: str) -> Any:
    answer = await switch(house, payment["id"], gateway, method)
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert (after["gateway"], after["method"]) == (gateway, method)
    assert after["status"] == "requires_action"
    assert after["next_action"]["type"] != "none"
    assert after["next_action"] != payment["next_action"]
    return after


@pytest.mark.parametrize(("old", "new"), PAIRS)
async def test_paid_in_the_new_way(
    house: House, old: tuple[str, str], new: tuple[str, str]
) -> None:
    payment = await house.create(old[0], currency="CNY")
    after = await switched(house, payment, *new)
    assert (after["attempt"], after["expires_at"]) == (2, payment["expires_at"])
    await house.pay(after)
    paid = await house.until_status(payment["id"], "succeeded")
    assert paid["gateway"] == new[0]
    [charge] = await house.charges(payment["id"])
    assert (charge["gateway"], charge["attempt"]) == (new[0], 2)
    events = await events_of(house, payment["id"])
    assert events.count("payment.switched") == 1


async def test_the_old_instructions_are_withdrawn(house: House) -> None:
    payment = await house.create("stripe", currency="CNY")
    await switched(house, payment, "wechatpay", "native")
    async with asyncio.timeout(30):
        while (await house.record(payment["id"])).is_open(1):
            await asyncio.sleep(0.1)
    attempts = {one.attempt: one.state for one in (await house.record(payment["id"])).attempts}
    assert attempts == {1: AttemptState.DEAD, 2: AttemptState.OPEN}
    assert (await house.command(payment["id"], "cancel")).json()["status"] == "canceled"


@pytest.mark.parametrize("first", [1, 2])
async def test_both_rails_are_paid_and_one_is_kept(house: House, first: int) -> None:
    """The payer scans the old code and the new one: whichever comes first pays for the order."""
    payment = await house.create("alipay")
    after = await switched(house, payment, "wechatpay", "native")
    orders = {1: payment, 2: after}
    await house.pay(orders[first])
    await until_status(house, payment["id"], "succeeded")
    await house.pay(orders[3 - first])
    await until_returned(house, payment["id"])
    kept = {one.attempt: one.kept for one in await house.receipts(payment["id"])}
    assert kept == {first: True, 3 - first: False}
    assert (await events_of(house, payment["id"])).count("payment.succeeded") == 1
    assert await attention_to(house, payment["id"]) == []
    after = await house.read(payment["id"])
    assert (after["attempt"], after["gateway"]) == (first, orders[first]["gateway"])
    refund = await house.until_refund((await house.post_refund(payment["id"])).json()["id"])
    assert (refund["status"], refund["gateway"]) == ("succeeded", orders[first]["gateway"])


async def test_within_one_gateway_and_back(house: House) -> None:
    payment = await house.create("alipay")
    page = await switched(house, payment, "alipay", "page")
    assert page["next_action"]["type"] == "redirect"
    code = await switched(house, page, "alipay", "qr")
    assert (code["attempt"], code["next_action"]["type"]) == (3, "qr_code")
    await house.pay(code)
    await house.until_status(payment["id"], "succeeded")


async def test_to_the_way_it_is_paid_in_changes_nothing(house: House) -> None:
    payment = await house.create("wechatpay")
    answer = await switch(house, payment["id"], "wechatpay", "native")
    assert (answer.status_code, answer.json()) == (200, payment)


async def test_a_repeat_has_no_second_effect(house: House) -> None:
    payment = await house.create("alipay")
    key = secrets.token_hex(16)
    first = await switch(house, payment["id"], "wechatpay", "native", key=key)
    again = await switch(house, payment["id"], "wechatpay", "native", key=key)
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len((await house.record(payment["id"])).attempts) == 2
    other = await switch(house, payment["id"], "stripe", "card", key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_many_at_once_come_one_after_the_other(house: House) -> None:
    payment = await house.create("alipay")
    answers = await asyncio.gather(
        *(switch(house, payment["id"], gateway, method) for gateway, method in WAYS * 2)
    )
    assert {answer.status_code for answer in answers} == {200}
    record = await house.record(payment["id"])
    assert [one.attempt for one in record.attempts] == list(range(1, len(record.attempts) + 1))
    assert record.payment.attempt == len(record.attempts)
    await house.pay(await house.read(payment["id"]))
    await house.until_status(payment["id"], "succeeded")


async def test_a_gateway_that_does_not_answer_leaves_the_old_way_open(house: House) -> None:
    payment = await house.create("alipay")
    silent = SilentToOpen(house.gateways[GatewayName.WECHATPAY])
    with standing_in(house, silent):
        answer = await switch(house, payment["id"], "wechatpay", "native")
        assert (answer.status_code, answer.json()["gateway"]) == (202, "alipay")
        async with asyncio.timeout(60):
            while len((await house.record(payment["id"])).attempts) < 2:
                await asyncio.sleep(0.1)
        await house.pay(payment)
        await until_status(house, payment["id"], "succeeded")
    [charge] = await house.charges(payment["id"])
    assert charge["attempt"] == 1


async def test_a_gateway_that_has_gone_silent_is_left_for_another(house: House) -> None:
    payment = await house.create("alipay")
    await house.sandbox.fault("alipay", "*", "http_500", reference=payment["id"], times=1000)
    asking = asyncio.create_task(house.command(payment["id"], "refresh"))
    async with asyncio.timeout(30):
        while (await house.sandbox.faults())[0]["times"] == 1000:
            await asyncio.sleep(0.05)
    after = await switched(house, payment, "wechatpay", "native")
    await house.pay(after)
    await house.until_status(payment["id"], "succeeded")
    assert (await asking).status_code == 200
    await house.sandbox.control.delete("/control/faults")


async def test_wrong_switches_change_nothing(house: House) -> None:
    dollars = await house.create("stripe")
    paid = await house.take("alipay")
    for payment, way, status, code in (
        (dollars, ("alipay", "qr"), 422, "currency_not_supported"),
        (dollars, ("stripe", "qr"), 422, "method_not_supported"),
        (dollars, ("wechatpay", "jsapi"), 422, "currency_not_supported"),
        (paid, ("wechatpay", "native"), 409, "payment_not_switchable"),
        (paid, ("wechatpay", "jsapi"), 422, "invalid_request"),
    ):
        before = await house.read(payment["id"])
        answer = await switch(house, payment["id"], *way)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert await house.read(payment["id"]) == before
        assert len((await house.record(payment["id"])).attempts) == 1
    answer = await switch(house, dollars["id"].replace("pay_0", "pay_1"), "alipay", "qr")
    assert answer.status_code == 404


async def test_resumed_it_goes_on_where_it_was_switched_to(house: House) -> None:
    """The process is lost, and the record alone says in which way the payer pays by now."""
    payment = await house.create("alipay")
    after = await switched(house, payment, "wechatpay", "native")
    await house.client.get_workflow_handle(payment["id"]).terminate("lost")
    assert await house.resumption().resume(payment["id"])
    await house.pay(after)
    await house.until_status(payment["id"], "succeeded")
    await house.pay(payment)
    await until_returned(house, payment["id"])
