"""The journeys of payments and spends whose histories are kept, each through the whole house."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from temporalio.service import RPCError, RPCStatusCode

from activities.placing import order_of
from billing.messages import GATEWAY_REPORTED, GatewayReport
from billing.payment import GatewayName
from gateways.gateway import Gateway, ObservedState, Opened, OpenOutcome, Order
from tests.end_to_end.outcomes import attention_to, until_delivered, until_receipt, until_status
from tests.end_to_end.stand_ins import AtTheBank, StandIn, standing_in
from tests.faults.cells import CLOSE, SETTLE
from tests.faults.crash_points import CrashPoint, CrashPoints
from tests.faults.keeping import KeptWorkers
from tests.faults.operators import shorten_budget, skip_time
from tests.fixtures.house import METHODS, House
from tests.replay import rails
from tests.replay.spends import spent
from tests.replay.steps import PATIENCE_SECONDS, Journey, Json, Refusing, ended, lie, mend, opened

# Past the first poll, or chance would decide whether that one comes before the deadline.
_SHORT_LIFE_SECONDS: Final = 8
_3DS_CARD: Final = "4000002760003184"
_DISPUTED_CARD: Final = "4000000000000259"
_NO_BUDGET: Final = timedelta(milliseconds=500)


async def _paid(house: House, gateway: str, method: str) -> str:
    payment = await opened(house, gateway, method=method)
    await house.pay(payment)
    return await ended(house, payment, "succeeded")


async def _paid_after_3ds(house: House) -> str:
    payment = await opened(house, "stripe")
    whose = {"gateway": "stripe", "next_action": payment["next_action"]}
    await house.sandbox.pay(card=_3DS_CARD, **whose)
    await house.command(payment["id"], "refresh")
    answer = await house.sandbox.control.post("/control/authenticate", json=whose)
    assert answer.status_code == 200, answer.text
    return await ended(house, payment, "succeeded")


async def _declined_then_paid(house: House) -> str:
    payment = await opened(house, "stripe")
    await house.sandbox.decline(gateway="stripe", next_action=payment["next_action"])
    await house.until(payment["id"], lambda now: now["failure"] is not None)
    await house.pay(payment)
    return await ended(house, payment, "succeeded")


async def _paid_unreported(house: House) -> str:
    """No webhook: the first poll finds the money."""
    payment = await opened(house, "wechatpay")
    await house.sandbox.fault("wechatpay", "webhook", "never", reference=payment["id"])
    await house.pay(payment)
    return await ended(house, payment, "succeeded")


async def _paid_on_refresh(house: House) -> str:
    payment = await opened(house, "alipay")
    await house.command(payment["id"], "refresh")
    await house.sandbox.fault("alipay", "webhook", "never", reference=payment["id"])
    await house.pay(payment)
    await house.command(payment["id"], "refresh")
    return await ended(house, payment, "succeeded")


class _PaidAtOnce(StandIn):
    """The payer has paid, and the gateway told us, before it answers who placed the order."""

    def __init__(self, house: House, inner: Gateway) -> None:
        super().__init__(inner)
        self._house = house

    async def open(self, order: Order) -> OpenOutcome:
        outcome = await super().open(order)
        assert isinstance(outcome, Opened)
        next_action = outcome.next_action.model_dump(mode="json")
        await self._house.sandbox.pay(gateway=self.name.value, next_action=next_action)
        await until_delivered(self._house, order.payment_id, least=1)
        return outcome


async def _reported_before_the_answer(house: House) -> str:
    with standing_in(house, _PaidAtOnce(house, house.gateways[GatewayName.STRIPE])):
        payment = await house.create("stripe")
        return await ended(house, payment, "succeeded")


async def _paid_at_the_second_try_to_open(house: House) -> str:
    await house.sandbox.fault("wechatpay", "open", "http_500")
    payment = await opened(house, "wechatpay")
    await house.pay(payment)
    return await ended(house, payment, "succeeded")


async def _paid_through_a_lost_worker(house: House) -> str:
    """Killed in the settlement, the gateway having answered and nothing being recorded."""
    payment = await opened(house, "stripe")
    await house.stop_worker()
    with tempfile.TemporaryDirectory(prefix="everbill-replay-") as folder:
        points = CrashPoints(Path(folder))
        points.arm(CrashPoint(SETTLE, "after_query", payment["id"]))
        async with _kept(KeptWorkers(Path(folder), ("core", "stripe"), house.environment)):
            await house.pay(payment)
            await ended(house, payment, "succeeded")
            await house.client.get_workflow_handle(payment["id"]).result()
        assert points.fired
    await house.start_worker()
    return str(payment["id"])


@contextlib.asynccontextmanager
async def _kept(workers: KeptWorkers) -> AsyncIterator[None]:
    await workers.start()
    try:
        yield
    finally:
        await workers.stop()


async def _resumed(house: House) -> str:
    payment = await opened(house, "stripe")
    await house.client.get_workflow_handle(payment["id"]).terminate("lost")
    await house.pay(payment)
    assert await house.resumption().resume(payment["id"])
    return await ended(house, payment, "succeeded")


async def _refused(house: House) -> str:
    with standing_in(house, Refusing(house.gateways[GatewayName.ALIPAY])):
        payment = await house.create("alipay")
        return await ended(house, payment, "failed")


async def _closed_by_the_gateway(house: House) -> str:
    payment = await opened(house, "wechatpay")
    record = await house.record(payment["id"])
    await house.gateways[GatewayName.WECHATPAY].close(order_of(record, record.attempts[0]))
    await house.command(payment["id"], "refresh")
    return await ended(house, payment, "failed")


async def _canceled(house: House, gateway: str) -> str:
    payment = await opened(house, gateway)
    await house.command(payment["id"], "cancel")
    return await ended(house, payment, "canceled")


async def _canceled_while_opening(house: House) -> str:
    await house.sandbox.fault("wechatpay", "open", "http_500", times=1000)
    payment = await house.create("wechatpay")
    await house.command(payment["id"], "cancel")
    await mend(house)
    await skip_time(house.client, payment["id"])
    return await ended(house, payment, "canceled")


async def _canceled_out_of_reach(house: House) -> str:
    """The record alone ends it; the gateway is asked until it calls the attempt dead."""
    payment = await opened(house, "stripe")
    await _cancel_out_of_reach(house, payment)
    return await ended(house, payment, "canceled")


async def _cancel_out_of_reach(house: House, payment: Json) -> None:
    await house.sandbox.fault("stripe", "query", "http_500", times=1000)
    canceling = asyncio.create_task(house.command(payment["id"], "cancel"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await _is_budget_cut(house, payment["id"]):
            await asyncio.sleep(0.1)
    await canceling
    await mend(house)


async def _is_budget_cut(house: House, payment_id: str) -> bool:
    """Whether there was a close under way; one that has failed before is then over."""
    try:
        await shorten_budget(house.client, payment_id, CLOSE, _NO_BUDGET)
    except RPCError as problem:
        if problem.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def _canceled_in_temporal(house: House) -> str:
    payment = await opened(house, "stripe")
    await house.client.get_workflow_handle(payment["id"]).cancel()
    return await ended(house, payment, "failed")


async def _expired(house: House, gateway: str) -> str:
    payment = await opened(house, gateway, expires_in_seconds=_SHORT_LIFE_SECONDS)
    return await ended(house, payment, "expired")


async def _parked_then_settled(house: House) -> str:
    """Another amount than ordered: a person has the gateway asked again, and once more."""
    payment = await opened(house, "wechatpay")
    await lie(house, payment, "wrong_amount")
    await house.pay(payment)
    await until_status(house, payment["id"], "needs_review")
    review = {"action": "retry", "reason": "ask again"}
    await house.command(payment["id"], "review", **review)
    await mend(house)
    await house.command(payment["id"], "review", **review)
    return await ended(house, payment, "succeeded")


async def _parked_then_closed(house: House) -> str:
    payment = await opened(house, "wechatpay")
    await lie(house, payment, "unknown_status")
    await house.command(payment["id"], "refresh")
    await until_status(house, payment["id"], "needs_review")
    await mend(house)
    await house.command(payment["id"], "review", action="close", reason="nobody pays")
    return await ended(house, payment, "failed")


async def _paid_when_it_could_not_be_closed(house: House) -> str:
    """WeChat Pay may refuse to close at first; money then comes for a canceled payment."""
    payment = await opened(house, "wechatpay")
    await house.sandbox.fault(
        "wechatpay", "close", "close_too_early", reference=payment["id"], times=1000
    )
    await house.command(payment["id"], "cancel")
    await house.pay(payment)
    await until_receipt(house, payment["id"])
    await mend(house)
    return await ended(house, payment, "canceled")


async def _paid_after_it_was_dead(house: House) -> str:
    """The gateway took the order for closed, and then money for it."""
    payment = await opened(house, "wechatpay")
    bank = AtTheBank(house.gateways[GatewayName.WECHATPAY], "CLOSED", ObservedState.DEAD)
    with standing_in(house, bank):
        await house.command(payment["id"], "cancel")
        await house.client.get_workflow_handle(payment["id"]).result()
    await house.pay(payment)
    await until_receipt(house, payment["id"])
    return await ended(house, payment, "canceled")


async def _refreshed_after_the_end(house: House) -> str:
    payment_id = await _canceled(house, "wechatpay")
    await house.client.get_workflow_handle(payment_id).result()
    await house.command(payment_id, "refresh")
    return payment_id


async def _disputed(house: House) -> str:
    payment_id = await _paid(house, "stripe", "card")
    await house.client.get_workflow_handle(payment_id).result()
    # One report is enough, and two would make it chance how many runs there are.
    await house.sandbox.fault("stripe", "webhook", "never", reference=payment_id)
    await house.sandbox.dispute(reference=payment_id)
    await house.until(payment_id, lambda now: now["dispute"] is not None)
    return payment_id


async def _disputed_at_once(house: House) -> str:
    """The dispute is what the payment's own workflow hears first."""
    payment = await opened(house, "stripe")
    await house.sandbox.fault("stripe", "webhook", "never", reference=payment["id"], times=10)
    whose = {"gateway": "stripe", "next_action": payment["next_action"]}
    await house.sandbox.pay(card=_DISPUTED_CARD, **whose)
    report = GatewayReport(event_id="dispute", event_type="dispute", is_dispute=True)
    await house.client.get_workflow_handle(payment["id"]).signal(GATEWAY_REPORTED, report)
    await house.until(payment["id"], lambda now: now["dispute"] is not None)
    await mend(house)
    return await ended(house, payment, "succeeded")


async def _refunded_elsewhere(house: House, gateway: str) -> str:
    payment_id = await _paid(house, gateway, METHODS[gateway][0])
    await house.client.get_workflow_handle(payment_id).result()
    if gateway == "stripe":
        # As for disputes: one report of the two.
        await house.sandbox.fault("stripe", "webhook", "never", reference=payment_id)
    await house.sandbox.refund(gateway, payment_id, amount=900)
    await house.until(payment_id, lambda now: now["amount_refunded"] == 900)
    return payment_id


async def _refunded_elsewhere_at_once(house: House) -> str:
    """The refund is what the payment's own workflow hears first."""
    payment = await opened(house, "alipay")
    await house.sandbox.fault("alipay", "webhook", "never", reference=payment["id"], times=10)
    await house.pay(payment)
    await house.sandbox.refund("alipay", payment["id"])
    report = GatewayReport(event_id="refund", event_type="refund", is_refund=True)
    await house.client.get_workflow_handle(payment["id"]).signal(GATEWAY_REPORTED, report)
    await house.until(payment["id"], lambda now: now["amount_refunded"] == 2900)
    await mend(house)
    return await ended(house, payment, "succeeded")


async def _canceled_unscanned(house: House) -> str:
    """Alipay knows nothing of an order until the payer scans: watched until it has expired."""
    payment = await opened(house, "alipay")
    await house.command(payment["id"], "cancel")
    await skip_time(house.client, payment["id"])
    return await ended(house, payment, "canceled")


async def _paid_after_a_cancel(house: House) -> str:
    payment = await opened(house, "alipay")
    await house.command(payment["id"], "cancel")
    await house.pay(payment)
    await until_receipt(house, payment["id"])
    return await ended(house, payment, "canceled")


async def _paid_at_both_codes(house: House) -> str:
    """Alipay lost the first code before anybody had it; somebody pays it all the same."""
    await house.sandbox.fault("alipay", "open", "cut_after")
    payment = await opened(house, "alipay")
    assert payment["attempt"] == 2
    await house.pay(payment)
    await ended(house, payment, "succeeded")
    await house.sandbox.pay(gateway="alipay", reference=payment["id"], attempt=1)
    return str(payment["id"])


async def _watched_to_no_end(house: House) -> str:
    """Nobody understands what the gateway says, for days: a person is called, and it makes sense
    again."""
    payment = await opened(house, "stripe")
    await _cancel_out_of_reach(house, payment)
    await lie(house, payment, "unknown_status")
    await skip_time(house.client, payment["id"])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "attempt_not_dead" not in await attention_to(house, payment["id"]):
            await asyncio.sleep(0.1)
    await mend(house)
    report = GatewayReport(event_id="by hand", event_type="reported")
    await house.client.get_workflow_handle(payment["id"]).signal(GATEWAY_REPORTED, report)
    return await ended(house, payment, "canceled")


JOURNEYS: Final[dict[str, Journey]] = {
    "paid-stripe-card": Journey(partial(_paid, gateway="stripe", method="card")),
    "paid-stripe-3ds": Journey(_paid_after_3ds),
    "paid-alipay-qr": Journey(partial(_paid, gateway="alipay", method="qr")),
    "paid-alipay-page": Journey(partial(_paid, gateway="alipay", method="page")),
    "paid-wechatpay-native": Journey(partial(_paid, gateway="wechatpay", method="native")),
    "declined-then-paid": Journey(_declined_then_paid),
    "paid-unreported": Journey(_paid_unreported),
    "paid-on-refresh": Journey(_paid_on_refresh),
    "reported-before-the-answer": Journey(_reported_before_the_answer),
    "paid-at-the-second-try-to-open": Journey(_paid_at_the_second_try_to_open),
    "paid-through-a-lost-worker": Journey(_paid_through_a_lost_worker),
    "resumed": Journey(_resumed),
    "refused": Journey(_refused),
    "closed-by-the-gateway": Journey(_closed_by_the_gateway),
    "canceled-stripe": Journey(partial(_canceled, gateway="stripe")),
    "canceled-wechatpay": Journey(partial(_canceled, gateway="wechatpay")),
    "canceled-while-opening": Journey(_canceled_while_opening),
    "canceled-out-of-reach": Journey(_canceled_out_of_reach),
    "canceled-in-temporal": Journey(_canceled_in_temporal),
    "canceled-unscanned": Journey(_canceled_unscanned),
    "expired-stripe": Journey(partial(_expired, gateway="stripe")),
    "expired-wechatpay": Journey(partial(_expired, gateway="wechatpay")),
    "parked-then-settled": Journey(_parked_then_settled),
    "parked-then-closed": Journey(_parked_then_closed),
    "paid-when-it-could-not-be-closed": Journey(_paid_when_it_could_not_be_closed),
    "paid-after-a-cancel": Journey(_paid_after_a_cancel),
    "paid-after-it-was-dead": Journey(_paid_after_it_was_dead, has_after=True),
    "paid-at-both-codes": Journey(_paid_at_both_codes),
    "refreshed-after-the-end": Journey(_refreshed_after_the_end, has_after=True),
    "disputed": Journey(_disputed, has_after=True),
    "disputed-at-once": Journey(_disputed_at_once),
    "refunded-elsewhere-stripe": Journey(
        partial(_refunded_elsewhere, gateway="stripe"), has_after=True
    ),
    "refunded-elsewhere-alipay": Journey(
        partial(_refunded_elsewhere, gateway="alipay"), has_after=True
    ),
    "refunded-elsewhere-wechatpay": Journey(
        partial(_refunded_elsewhere, gateway="wechatpay"), has_after=True
    ),
    "refunded-elsewhere-at-once": Journey(_refunded_elsewhere_at_once),
    "watched-to-no-end": Journey(_watched_to_no_end),
    **rails.JOURNEYS,
    "spent": Journey(spent),
}
