"""What the payment's workflow does about switches, and about money that must go back."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateHandle, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError

from billing.identifiers import return_id
from billing.messages import RefundRequest, SwitchOrder
from billing.payment import GatewayName, Payment, PaymentMethod, PaymentStatus
from billing.refund import RefundCause
from tests.workflows.paying import COMMAND, Bench, bench
from tests.workflows.scripted import START
from workflows import PaymentWorkflow, policies

__all__ = ["bench"]

TO_H5 = SwitchOrder(application="shop", gateway=GatewayName.WECHATPAY, method=PaymentMethod.H5)


async def start_switch(bench: Bench) -> WorkflowUpdateHandle[Payment]:
    return await bench.handle.start_update(
        PaymentWorkflow.switch, TO_H5, wait_for_stage=WorkflowUpdateStage.ACCEPTED
    )


async def refusal(bench: Bench) -> ApplicationError:
    """Why the switch failed, however long it takes."""
    switching = asyncio.create_task(bench.handle.execute_update(PaymentWorkflow.switch, TO_H5))
    await bench.until(switching.done)
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await switching
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause


class TestSwitch:
    async def test_takes_the_old_ones_place_and_closes_it(self, bench: Bench) -> None:
        await bench.create()
        after = await bench.handle.execute_update(PaymentWorkflow.switch, TO_H5)
        assert (after.method, after.attempt) == (PaymentMethod.H5, 2)
        [asked] = bench.script.switched
        assert (asked.replaces, asked.order) == (1, TO_H5)
        await bench.until(lambda: bench.script.calls == ["open", "switch", "close"])

    async def test_to_the_way_it_is_paid_in_asks_nobody(self, bench: Bench) -> None:
        payment = await bench.create()
        same = TO_H5.model_copy(update={"method": payment.method})
        assert await bench.handle.execute_update(PaymentWorkflow.switch, same) == payment
        assert bench.script.calls == ["open"]

    async def test_while_opening_it_waits_for_the_instructions(self, bench: Bench) -> None:
        bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create())
        await bench.until(lambda: "open" in bench.script.calls)
        switching = await start_switch(bench)
        assert "switch" not in bench.script.calls
        bench.script.silent = set()
        assert (await switching.result()).method is PaymentMethod.H5
        await creating

    async def test_while_parked_it_changes_nothing(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        payment = await bench.handle.execute_update(PaymentWorkflow.switch, TO_H5)
        assert payment.status is PaymentStatus.NEEDS_REVIEW
        assert "switch" not in bench.script.calls

    async def test_canceled_in_the_middle_the_ending_wins(self, bench: Bench) -> None:
        await bench.create()
        bench.script.switches.clear()
        switching = await start_switch(bench)
        await bench.until(lambda: "switch" in bench.script.calls)
        canceling = asyncio.create_task(
            bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        )
        await bench.until(canceling.done)
        assert (await canceling).status is PaymentStatus.CANCELED
        answer = await switching.result()
        assert (answer.status, answer.method) == (PaymentStatus.CANCELED, PaymentMethod.NATIVE)
        assert await bench.ended() is PaymentStatus.CANCELED

    async def test_a_gateway_that_is_silent_keeps_nobody_from_leaving_it(
        self, bench: Bench
    ) -> None:
        await bench.create()
        bench.script.silent, bench.script.dies = {"settle"}, False
        await bench.report("evt_unheard")
        await bench.until(lambda: "settle" in bench.script.calls)
        switching = await start_switch(bench)
        answering = asyncio.create_task(switching.result())
        for _ in range(60):
            if answering.done():
                break
            await bench.environment.sleep(timedelta(seconds=1))
        else:
            raise AssertionError(f"nobody switched; asked so far: {bench.script.calls}")
        assert (await answering).method is PaymentMethod.H5
        # What was reported before is asked about all the same.
        bench.script.silent, bench.script.paid = set(), True
        await bench.until(lambda: bench.script.status is PaymentStatus.SUCCEEDED)

    async def test_a_gateway_left_behind_that_is_silent_keeps_no_other_from_being_asked(
        self, bench: Bench
    ) -> None:
        bench.script.left_open_at = (GatewayName.ALIPAY,)  # where nobody works
        await bench.create()
        await bench.report("evt_nothing_yet")
        await bench.until(lambda: "settle" in bench.script.calls)
        bench.script.paid = True
        await bench.report("evt_paid")
        for _ in range(10):
            if bench.script.status is PaymentStatus.SUCCEEDED:
                return
            await bench.environment.sleep(timedelta(seconds=1))
        raise AssertionError(f"nobody asked after it; asked so far: {bench.script.calls}")

    async def test_refused_leaves_the_old_instructions(self, bench: Bench) -> None:
        before = await bench.create()
        bench.script.refuses_switch = True
        assert (await refusal(bench)).type == "switch_refused"
        waiting = await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert waiting.next_action == before.next_action
        assert "close" not in bench.script.calls
        bench.script.refuses_switch = False
        after = await bench.handle.execute_update(PaymentWorkflow.switch, TO_H5)
        assert after.method is PaymentMethod.H5

    async def test_unanswered_leaves_the_old_way_open(self, bench: Bench) -> None:
        before = await bench.create()
        bench.script.silent = {"switch"}
        assert (await refusal(bench)).type == "switch_unanswered"
        waiting = await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert waiting.next_action == before.next_action
        bench.script.paid = True
        await bench.report("evt_paid")
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_two_at_once_come_one_after_the_other(self, bench: Bench) -> None:
        await bench.create()
        back = TO_H5.model_copy(update={"method": PaymentMethod.NATIVE})
        bench.script.switches.clear()
        first = await start_switch(bench)
        second = await bench.handle.start_update(
            PaymentWorkflow.switch, back, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        bench.script.switches.set()
        assert (await first.result()).method is PaymentMethod.H5
        assert (await second.result()).method is PaymentMethod.NATIVE
        assert [one.replaces for one in bench.script.switched] == [1, 2]

    # Without a cache each command replays all before it.
    @pytest.mark.parametrize("bench", [1000], ids=["cached"], indirect=True)
    async def test_a_new_run_waits_for_it(self, bench: Bench) -> None:
        await bench.create()
        first = (await bench.handle.describe()).run_id
        for _ in range(policies.COMMANDS_IN_A_RUN - 2):
            await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        bench.script.switches.clear()
        switching = await start_switch(bench)
        await bench.until(lambda: "switch" in bench.script.calls)
        assert (await bench.handle.describe()).run_id == first
        bench.script.switches.set()
        assert (await switching.result()).method is PaymentMethod.H5
        while (await bench.handle.describe()).run_id == first:
            await bench.environment.sleep(timedelta(seconds=1))
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert (payment.status, payment.method) == (PaymentStatus.CANCELED, PaymentMethod.H5)


async def test_a_return_named_twice_is_started_once(bench: Bench) -> None:
    await bench.create()
    bench.script.dies = False
    await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
    bench.script.returns = (
        RefundRequest(
            refund_id=return_id(bench.payment_id, 1),
            payment_id=bench.payment_id,
            application="shop",
            user_id="user_1",
            gateway=GatewayName.WECHATPAY,
            currency="CNY",
            amount_minor=2900,
            attempt=1,
            cause=RefundCause.RETURNED,
            reason="the payment no longer waited for it",
            created_at=START,
        ),
    )
    await bench.report("evt_late")
    await bench.until(lambda: bench.script.calls.count("close") >= 3)
    bench.script.dies = True
    assert await bench.ended() is PaymentStatus.CANCELED
    history = await bench.handle.fetch_history()
    told = [event.event_type for event in history.events]
    assert told.count(EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED) == 1
    assert told.count(EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED) >= 1
