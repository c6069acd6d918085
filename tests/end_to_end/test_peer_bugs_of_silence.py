"""Money bugs that peers have published: of answers that never came, and of processes that died.

The worker's death by SIGKILL at each point is the kill matrix's, in `tests/faults/`; here is what
can be told apart without it.
"""

import asyncio
import secrets
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy

from billing.messages import PAYMENT_WORKFLOW
from billing.payment import GatewayName
from runtime.queues import CORE
from tests.end_to_end.outcomes import events_of, has_paid_once, until_delivered, webhooks_of
from tests.end_to_end.stand_ins import DiesOnce, standing_in
from tests.fixtures.house import METHODS, House

GATEWAYS = tuple(METHODS)
SILENCES = ("cut_before", "cut_after", "http_500_after", "garbage", "truncated", "http_429")

each_gateway = pytest.mark.parametrize("gateway", GATEWAYS)


async def orders_of(house: House, gateway: str, payment_id: str) -> list[dict[str, Any]]:
    answer = await house.sandbox.control.get(
        "/control/orders", params={"gateway": gateway, "limit": 100}
    )
    return [each for each in answer.json()["data"] if each["reference"] == payment_id]


class TestNobodyAnswered:
    """Connection lost after the gateway had done its part: the payment stayed UNKNOWN for ever
    (killbill #364), or was tried again and charged twice (killbill #1015, commerce-stripe #207)."""

    @each_gateway
    async def test_the_order_is_asked_for_again_under_its_own_number(
        self, house: House, gateway: str
    ) -> None:
        for silence in SILENCES:
            await house.sandbox.fault(gateway, "open", silence, retry_after=1)
        payments = await asyncio.gather(*(house.create(gateway) for _ in SILENCES))
        for payment in payments:
            opened = await house.until_status(payment["id"], "requires_action")
            await house.pay(opened)
            await has_paid_once(house, payment["id"])

    @each_gateway
    async def test_the_outcome_is_asked_for_until_it_is_known(
        self, house: House, gateway: str
    ) -> None:
        async def one(silence: str) -> None:
            payment = await house.create(gateway)
            await house.sandbox.fault(
                gateway, "query", silence, reference=payment["id"], times=2, retry_after=1
            )
            await house.pay(payment)
            await has_paid_once(house, payment["id"])

        await asyncio.gather(*(one(silence) for silence in SILENCES))


class TestDiedBetweenTheGatewayAndTheRecord:
    """The process crashed after the gateway's yes and before its own event, and nobody asked again:
    "an edge case", UNKNOWN for ever (killbill #364); a time-out lost the gateway's number for good
    (hyperswitch #3751)."""

    @pytest.mark.parametrize("call", ["open", "query"])
    @each_gateway
    async def test_it_is_done_again_without_effect(
        self, house: House, gateway: str, call: str
    ) -> None:
        stand_in = DiesOnce(house.gateways[GatewayName(gateway)], call)
        with standing_in(house, stand_in):
            payment = await house.create(gateway)
            await house.pay(payment)
            await has_paid_once(house, payment["id"])
        assert payment["id"] in stand_in.died
        is_replaced = (gateway, call) == ("alipay", "open")
        assert len(await orders_of(house, gateway, payment["id"])) == (2 if is_replaced else 1)

    @each_gateway
    async def test_a_cancel_is_done_again_too(self, house: House, gateway: str) -> None:
        payment = await house.create(gateway)
        if gateway == "alipay":
            await house.sandbox.decline(gateway=gateway, next_action=payment["next_action"])
        stand_in = DiesOnce(house.gateways[GatewayName(gateway)], "close")
        with standing_in(house, stand_in):
            answer = await house.command(payment["id"], "cancel")
        assert answer.json()["status"] == "canceled"
        assert payment["id"] in stand_in.died
        record = await house.record(payment["id"])
        assert record.open_attempts == ()
        assert await house.postings(payment["id"]) == 0

    async def test_paid_while_nobody_is_at_work(self, house: House) -> None:
        """Every worker is gone when the money comes; the webhooks are taken all the same."""
        payments = [await house.create(gateway) for gateway in GATEWAYS]
        await house.stop_worker()
        try:
            for payment in payments:
                await house.pay(payment)
                await self._told(house, payment["id"])
        finally:
            await house.start_worker()
        for payment in payments:
            await until_delivered(house, payment["id"], 1)
            await has_paid_once(house, payment["id"])

    async def _told(self, house: House, payment_id: str) -> None:
        async with asyncio.timeout(30):
            while not (await webhooks_of(house, payment_id))[0]["tries"]:
                await asyncio.sleep(0.05)
        assert (await webhooks_of(house, payment_id))[0]["tries"][0]["accepted"]


class TestTheWorkflowIsRunAgain:
    """Resetting or restarting a workflow ran its steps again, compensation too (Temporal UI #957,
    ballerina #9053); keys made of what changes at each run charged again (commercetools #1305)."""

    @each_gateway
    async def test_reset_at_every_event_of_a_finished_payment(
        self, house: House, gateway: str
    ) -> None:
        payment_id, before = await self._paid(house, gateway)
        handle = house.client.get_workflow_handle(payment_id)
        first_run = (await handle.describe()).run_id
        assert first_run is not None
        history = await house.client.get_workflow_handle(
            payment_id, run_id=first_run
        ).fetch_history()
        points = [
            event.event_id
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        ]
        assert len(points) >= 3
        for point in points:
            answer = await house.client.workflow_service.reset_workflow_execution(
                ResetWorkflowExecutionRequest(
                    namespace=house.client.namespace,
                    workflow_execution=WorkflowExecution(workflow_id=payment_id, run_id=first_run),
                    reason="to see what runs again",
                    workflow_task_finish_event_id=point,
                    request_id=secrets.token_hex(16),
                )
            )
            again = house.client.get_workflow_handle(payment_id, run_id=answer.run_id)
            await self._ended(again)
            await has_paid_once(house, payment_id)
        assert await events_of(house, payment_id) == before
        assert len(await orders_of(house, gateway, payment_id)) == 1

    @each_gateway
    async def test_started_anew_with_the_same_order(self, house: House, gateway: str) -> None:
        payment_id, before = await self._paid(house, gateway)
        record = await house.record(payment_id)
        again = await house.client.start_workflow(
            PAYMENT_WORKFLOW,
            record.order,
            id=payment_id,
            task_queue=CORE,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )
        await self._ended(again)
        await has_paid_once(house, payment_id)
        assert await events_of(house, payment_id) == before
        assert len(await orders_of(house, gateway, payment_id)) == 1

    @each_gateway
    async def test_terminated_and_resumed_twice(self, house: House, gateway: str) -> None:
        payment = await house.create(gateway)
        handle = house.client.get_workflow_handle(payment["id"])
        for _ in range(2):
            await handle.terminate("lost")
            assert await house.resumption().resume(payment["id"])
        await house.pay(payment)
        await has_paid_once(house, payment["id"])
        assert len(await orders_of(house, gateway, payment["id"])) == 1

    async def _paid(self, house: House, gateway: str) -> tuple[str, list[str]]:
        payment = await house.create(gateway)
        await house.pay(payment)
        await has_paid_once(house, payment["id"])
        await house.client.get_workflow_handle(payment["id"]).result()
        return payment["id"], await events_of(house, payment["id"])

    async def _ended(self, handle: WorkflowHandle[Any, Any]) -> None:
        result = await handle.result()
        assert result["status"] == "succeeded"
        assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED
