"""Journeys of payments that are switched to another way, and of money that goes back by itself."""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio.service import RPCError, RPCStatusCode

from billing.payment import GatewayName
from gateways.gateway import ObservedState
from tests.end_to_end.outcomes import until_returned
from tests.end_to_end.stand_ins import AtTheBank, SilentToOpen, standing_in
from tests.end_to_end.test_switch import switch, switched
from tests.faults.cells import SWITCH
from tests.faults.operators import shorten_budget, skip_time
from tests.fixtures.house import House
from tests.replay.steps import PATIENCE_SECONDS, Journey, Refusing, ended, opened

_NO_BUDGET: Final = timedelta(milliseconds=500)


async def _paid_in_the_new_way(house: House) -> str:
    payment = await opened(house, "stripe", currency="CNY")
    await house.pay(await switched(house, payment, "wechatpay", "native"))
    return await ended(house, payment, "succeeded")


async def _paid_on_both_rails(house: House) -> str:
    payment = await opened(house, "alipay")
    await house.pay(await switched(house, payment, "wechatpay", "native"))
    await house.until_status(payment["id"], "succeeded")
    await house.pay(payment)
    await until_returned(house, payment["id"])
    return await ended(house, payment, "succeeded")


async def _refused_in_the_new_way(house: House) -> str:
    payment = await opened(house, "stripe", currency="CNY")
    with standing_in(house, Refusing(house.gateways[GatewayName.WECHATPAY])):
        answer = await switch(house, payment["id"], "wechatpay", "native")
    assert answer.json()["code"] == "switch_refused", answer.text
    await house.pay(payment)
    return await ended(house, payment, "succeeded")


async def _unanswered_in_the_new_way(house: House) -> str:
    """What was asked for there may exist: it is watched until it would have expired."""
    payment = await opened(house, "stripe", currency="CNY")
    with standing_in(house, SilentToOpen(house.gateways[GatewayName.WECHATPAY])):
        switching = asyncio.create_task(switch(house, payment["id"], "wechatpay", "native"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _is_budget_cut(house, payment["id"]):
                await asyncio.sleep(0.1)
        assert (await switching).status_code in (202, 503)
    await house.command(payment["id"], "cancel")
    await skip_time(house.client, payment["id"])
    return await ended(house, payment, "canceled")


async def _is_budget_cut(house: House, payment_id: str) -> bool:
    """Whether there was a switch under way; it is over at its next failure."""
    try:
        await shorten_budget(house.client, payment_id, SWITCH, _NO_BUDGET)
    except RPCError as problem:
        if problem.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def _returned_by_the_payment(house: House) -> str:
    payment = await opened(house, "alipay")
    await house.command(payment["id"], "cancel")
    await house.pay(payment)
    await until_returned(house, payment["id"])
    return await ended(house, payment, "canceled")


async def _returned_after_it_was_dead(house: House) -> str:
    """The gateway took the order for closed, and then money for it."""
    payment = await opened(house, "wechatpay")
    bank = AtTheBank(house.gateways[GatewayName.WECHATPAY], "CLOSED", ObservedState.DEAD)
    with standing_in(house, bank):
        await house.command(payment["id"], "cancel")
        await house.client.get_workflow_handle(payment["id"]).result()
    await house.pay(payment)
    await until_returned(house, payment["id"])
    return await ended(house, payment, "canceled")


JOURNEYS: Final[dict[str, Journey]] = {
    "switched-then-paid": Journey(_paid_in_the_new_way),
    "switched-paid-on-both-rails": Journey(_paid_on_both_rails),
    "switch-refused": Journey(_refused_in_the_new_way),
    "switch-unanswered": Journey(_unanswered_in_the_new_way),
    "returned-after-a-cancel": Journey(_returned_by_the_payment),
    "returned-after-it-was-dead": Journey(_returned_after_it_was_dead, has_after=True),
}
