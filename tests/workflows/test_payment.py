"""The payment workflow's decisions, on the time-skipping server, cached and uncached."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowUpdateStage,
)

from billing.messages import (
    AfterInput,
    GatewayReport,
    ReviewAction,
    ReviewDecision,
)
from billing.payment import GatewayName, PaymentStatus
from runtime import attributes
from runtime.queues import CORE
from tests.workflows.paying import COMMAND, Bench, bench
from workflows import PaymentAfterWorkflow, PaymentWorkflow, policies

__all__ = ["bench"]

CLOSE = ReviewDecision(action=ReviewAction.CLOSE, reason="lost", reviewed_by="key_1")
RETURN = ReviewDecision(action=ReviewAction.RETURN, reason="not ours", reviewed_by="key_1")
RETRY = ReviewDecision(action=ReviewAction.RETRY, reason="checked", reviewed_by="key_1")


class TestPaid:
    async def test_webhook_settles(self, bench: Bench) -> None:
        payment = await bench.create()
        assert payment.status is PaymentStatus.REQUIRES_ACTION
        assert payment.next_action.type == "qr_code"
        bench.script.paid = True
        await bench.report()
        assert await bench.ended() is PaymentStatus.SUCCEEDED
        assert bench.script.calls == ["open", "settle"]

    async def test_poll_settles_when_no_webhook_comes(self, bench: Bench) -> None:
        await bench.create()
        bench.script.paid = True
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_a_repeated_event_asks_once(self, bench: Bench) -> None:
        await bench.create()
        await bench.report("evt_same")
        await bench.until(lambda: bench.script.calls.count("settle") == 1)
        await bench.report("evt_same")
        bench.script.paid = True
        await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert await bench.ended() is PaymentStatus.SUCCEEDED
        assert bench.script.calls == ["open", "settle", "settle"]

    async def test_refresh_answers_with_what_the_gateway_says(self, bench: Bench) -> None:
        await bench.create()
        waiting = await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert waiting.status is PaymentStatus.REQUIRES_ACTION
        bench.script.paid = True
        paid = await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        assert paid.status is PaymentStatus.SUCCEEDED
        assert paid.next_action.type == "none"


class TestNotPaid:
    async def test_refused_at_opening(self, bench: Bench) -> None:
        bench.script.refuses = True
        payment = await bench.create()
        assert payment.status is PaymentStatus.FAILED
        assert payment.failure is not None
        assert await bench.ended() is PaymentStatus.FAILED

    async def test_expires_after_eight_polls_at_most(self, bench: Bench) -> None:
        await bench.create(expires_in_seconds=7200)
        assert await bench.ended() is PaymentStatus.EXPIRED
        assert bench.script.calls[-1] == "close"
        assert bench.script.calls.count("settle") <= len(policies.POLL_DELAYS)

    async def test_cancel_closes_at_the_gateway(self, bench: Bench) -> None:
        await bench.create()
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.calls[-1] == "close"

    async def test_cancel_comes_too_late(self, bench: Bench) -> None:
        await bench.create()
        bench.script.pays_at_close = True
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.SUCCEEDED

    async def test_temporal_cancel_is_the_operators_close(self, bench: Bench) -> None:
        await bench.create()
        await bench.handle.cancel()
        assert await bench.ended() is PaymentStatus.FAILED
        assert bench.script.calls[-1] == "close"

    async def test_gateway_silent_at_the_deadline(self, bench: Bench) -> None:
        await bench.create(expires_in_seconds=60)
        bench.script.silent = {"settle", "close"}
        await bench.until(lambda: bench.script.status.is_terminal)
        assert bench.script.status is PaymentStatus.EXPIRED
        assert "end" in bench.script.calls
        bench.script.silent = set()
        assert await bench.ended() is PaymentStatus.EXPIRED
        assert not bench.script.is_alive

    async def test_canceled_while_opening_is_unanswered(self, bench: Bench) -> None:
        bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create())
        await bench.until(lambda: "open" in bench.script.calls)
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        assert (await creating).status is PaymentStatus.CANCELED

    async def test_never_opened_expires(self, bench: Bench) -> None:
        bench.script.silent = {"open"}
        creating = asyncio.create_task(bench.create(expires_in_seconds=60))
        await bench.until(creating.done)
        assert (await creating).status is PaymentStatus.EXPIRED


class TestWatching:
    async def test_stays_until_every_attempt_is_dead(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        await bench.until(lambda: bench.script.calls.count("close") >= 2)
        description = await bench.handle.describe()
        assert description.status is WorkflowExecutionStatus.RUNNING
        bench.script.dies = True
        assert await bench.ended() is PaymentStatus.CANCELED

    async def test_late_money_changes_no_status(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        bench.script.paid = True
        await bench.report("evt_late")
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.unapplied
        description = await bench.handle.describe()
        assert description.typed_search_attributes[attributes.NEEDS_ATTENTION] is True

    async def test_what_a_person_has_returned_is_asked_for_once(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        await bench.report("review/1", review=RETURN)
        await bench.until(lambda: RETURN in bench.script.decisions)
        bench.script.paid = True
        await bench.report("evt_late")
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.decisions.count(RETURN) == 1

    async def test_what_a_person_has_returned_meanwhile_is_asked_for_all_the_same(
        self, bench: Bench
    ) -> None:
        """The decision comes while the answer that it is about is still on its way."""
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        bench.script.answers.clear()
        await bench.report("evt_late")
        await bench.until(lambda: bench.script.calls[-1] == "settle")
        await bench.report("review/1", review=RETURN)
        bench.script.dies = True
        bench.script.answers.set()
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.decisions.count(RETURN) == 1

    async def test_a_temporal_cancel_after_the_end_breaks_no_decision_off(
        self, bench: Bench
    ) -> None:
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        await bench.handle.cancel()
        bench.script.answers.clear()
        await bench.report("review/1", review=RETURN)
        await bench.until(lambda: bench.script.calls[-1] == "settle")
        bench.script.dies = True
        bench.script.answers.set()
        assert await bench.ended() is PaymentStatus.CANCELED
        assert bench.script.decisions.count(RETURN) == 1

    async def test_calls_for_a_person_when_no_attempt_dies(self, bench: Bench) -> None:
        await bench.create()
        bench.script.dies = False
        await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        await bench.environment.sleep(timedelta(days=5))
        await bench.until(lambda: "flag" in bench.script.calls)
        bench.script.dies = True
        await bench.report("evt_closed")
        assert await bench.ended() is PaymentStatus.CANCELED


class TestParked:
    async def test_waits_for_a_person_past_its_deadline(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        await bench.environment.sleep(timedelta(hours=5))
        await bench.report("evt_2")
        unchanged = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert unchanged.status is PaymentStatus.NEEDS_REVIEW
        bench.script.untrusted = False
        bench.script.paid = True
        payment = await bench.handle.execute_update(PaymentWorkflow.review, RETRY)
        assert payment.status is PaymentStatus.SUCCEEDED
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_closed_by_a_person(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        payment = await bench.handle.execute_update(PaymentWorkflow.review, CLOSE)
        assert payment.status is PaymentStatus.FAILED
        assert await bench.ended() is PaymentStatus.FAILED

    # The command waits out its patience, with a cache or without.
    @pytest.mark.parametrize("bench", [0], ids=["uncached"], indirect=True)
    async def test_a_decision_recorded_and_never_told_is_learned_from_the_next_report(
        self, bench: Bench
    ) -> None:
        """The record is not parked any more, so that no other decision comes: late money would
        never be heard of."""
        await bench.create()
        bench.script.untrusted = True
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        bench.script.untrusted = False
        bench.script.paid = True
        bench.script.answers.clear()
        deciding = asyncio.create_task(bench.handle.execute_update(PaymentWorkflow.review, RETRY))
        await bench.until(deciding.done)
        assert bench.script.status is PaymentStatus.SUCCEEDED
        assert (await deciding).status is PaymentStatus.NEEDS_REVIEW
        bench.script.answers.set()
        await bench.report("evt_2")
        assert await bench.ended() is PaymentStatus.SUCCEEDED

    async def test_decided_upon_before_the_workflow_knows(self, bench: Bench) -> None:
        await bench.create()
        bench.script.untrusted = True
        bench.script.answers.clear()
        await bench.report()
        await bench.until(lambda: bench.script.status is PaymentStatus.NEEDS_REVIEW)
        deciding = await bench.handle.start_update(
            PaymentWorkflow.review, CLOSE, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        bench.script.answers.set()
        assert (await deciding.result()).status is PaymentStatus.FAILED

    async def test_review_of_a_payment_nobody_parked_changes_nothing(self, bench: Bench) -> None:
        await bench.create()
        payment = await bench.handle.execute_update(PaymentWorkflow.review, CLOSE)
        assert payment.status is PaymentStatus.REQUIRES_ACTION


class TestLong:
    # Without a cache each command replays all before it.
    @pytest.mark.parametrize("bench", [1000], ids=["cached"], indirect=True)
    async def test_goes_on_in_a_new_run(self, bench: Bench) -> None:
        await bench.create()
        first = (await bench.handle.describe()).run_id
        for _ in range(policies.COMMANDS_IN_A_RUN):
            await bench.handle.execute_update(PaymentWorkflow.refresh, COMMAND)
        while (await bench.handle.describe()).run_id == first:
            await bench.environment.sleep(timedelta(seconds=1))
        assert bench.script.calls.count("open") == 1
        payment = await bench.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert payment.status is PaymentStatus.CANCELED
        assert await bench.ended() is PaymentStatus.CANCELED


class TestResumed:
    async def test_asks_the_gateway_first(self, bench: Bench) -> None:
        bench.script.status = PaymentStatus.REQUIRES_ACTION
        bench.script.is_alive = bench.script.paid = True
        bench.script._order = await bench.order()
        payment = await bench.create(resumed=True)
        assert payment.status is PaymentStatus.SUCCEEDED
        assert bench.script.calls == ["settle"]

    async def test_opens_what_was_never_opened(self, bench: Bench) -> None:
        bench.script._order = await bench.order()
        payment = await bench.create(resumed=True)
        assert payment.status is PaymentStatus.REQUIRES_ACTION
        assert bench.script.calls == ["settle", "open"]


class TestAfterwards:
    @pytest.mark.parametrize("review", [None, RETURN])
    async def test_asks_once_for_each_fact_and_ends(
        self, bench: Bench, review: ReviewDecision | None
    ) -> None:
        bench.script.status = PaymentStatus.CANCELED
        bench.script.is_alive = bench.script.paid = True
        bench.script._order = await bench.order()
        report = GatewayReport(event_id="evt_1", event_type="TRANSACTION.SUCCESS", review=review)
        handle = await bench.client.start_workflow(
            PaymentAfterWorkflow.run,
            AfterInput(payment_id=bench.payment_id, gateway=GatewayName.WECHATPAY),
            id=f"{bench.payment_id}/after",
            task_queue=CORE,
            start_signal="gateway_reported",
            start_signal_args=[report],
        )
        assert (await handle.result()).status is PaymentStatus.CANCELED
        assert bench.script.calls == ["settle"]
        assert bench.script.decisions == [review]
        assert bench.script.unapplied
