"""Commands to a subscription's workflow, as in `test_subscription`."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from billing.calendar import Cycle
from billing.payment import GatewayName, PaymentStatus
from billing.plans import Tier
from billing.proration import LineCode
from billing.subscription import SubscriptionStatus
from billing.subscription_messages import (
    CancelSubscription,
    ChangeSubscription,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    ResumeSubscription,
)
from runtime.queues import CORE
from tests.billing.subscriptions import plan
from tests.workflows.scripted_subscription import METHOD_ID, SOFT
from tests.workflows.subscribing import NOW, Bench, open_bench, refused
from workflows import SubscriptionWorkflow

SIGNED = "pm_01hf7yat00fzzvzzzzzzzzzzzy"


@pytest.fixture
async def bench(environment: WorkflowEnvironment) -> AsyncIterator[Bench]:
    async with open_bench(environment) as opened:
        yield opened


class TestCommands:
    async def test_an_upgrade_takes_effect_once_it_is_paid(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up()
        await bench.until("activated")
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        answer = await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        assert answer.payment_id is not None
        assert answer.subscription.plan.tier is Tier.PREMIUM
        assert await refused(bench, SubscriptionWorkflow.change, dearer) == (
            "subscription_not_changeable"
        )
        bench.script.pays_waiting = True
        await bench.until("changed")
        assert bench.script.known.subscription.plan.tier is Tier.SUPER

    async def test_an_upgrade_that_is_declined_changes_nothing(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, SOFT])
        await bench.sign_up()
        await bench.until("activated")
        before = bench.script.known.subscription
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        await bench.until("change_failed")
        after = bench.script.known.subscription
        assert after.failure == SOFT
        assert (after.plan, after.period, after.paid) == (before.plan, before.period, before.paid)

    async def test_what_was_refunded_is_not_credited(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        bench.script.refunded = bench.script.charged[0].amount_minor
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        charge = bench.script.writes[-1].opened or bench.script.writes[-2].opened
        assert charge is not None
        assert [line.code for line in charge.decision.preview.lines] == [LineCode.NEW_REST]

    async def test_paused_and_resumed_it_keeps_what_was_paid(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        length = bench.script.known.subscription.period.seconds
        await bench.handle.execute_update(SubscriptionWorkflow.pause, PauseSubscription())
        await bench.environment.sleep(timedelta(days=90))
        assert bench.status is SubscriptionStatus.PAUSED
        assert len(bench.script.charged) == 1
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.resume, ResumeSubscription()
        )
        assert answer.subscription.status is SubscriptionStatus.ACTIVE
        assert answer.subscription.period.seconds == length
        assert await refused(bench, SubscriptionWorkflow.resume, ResumeSubscription()) == (
            "subscription_not_resumable"
        )

    async def test_a_pause_with_an_end_ends_by_itself(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        until = await bench.environment.get_current_time() + timedelta(days=40)
        await bench.handle.execute_update(
            SubscriptionWorkflow.pause, PauseSubscription(until=until)
        )
        await bench.until("resumed")
        assert bench.status is SubscriptionStatus.ACTIVE

    async def test_canceled_at_the_periods_end_and_undone(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.cancel, CancelSubscription()
        )
        assert answer.subscription.cancel_at_period_end
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.resume, ResumeSubscription()
        )
        assert not answer.subscription.cancel_at_period_end
        await bench.handle.execute_update(SubscriptionWorkflow.cancel, CancelSubscription())
        end = answer.subscription.period.end
        assert await bench.ended() is SubscriptionStatus.CANCELED
        assert bench.script.known.subscription.ended_at == end
        assert len(bench.script.charged) == 1

    async def test_canceled_now_the_rest_is_given_back_or_credited(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        bench.script.covered = 3000
        answer = await bench.handle.execute_update(
            SubscriptionWorkflow.cancel, CancelSubscription(at_period_end=False, refund=True)
        )
        assert answer.subscription.status is SubscriptionStatus.CANCELED
        [wanted] = bench.script.given_back
        assert wanted.giving_back.amount is not None
        assert answer.subscription.balance == wanted.giving_back.amount - 3000
        assert await bench.ended() is SubscriptionStatus.CANCELED

    async def test_paid_after_it_was_canceled_it_is_returned(self, bench: Bench) -> None:
        bench.script.outcomes.append(bench.script.waits)
        answer = await bench.sign_up(gateway=GatewayName.ALIPAY, method_id=None)
        bench.script.pays_waiting = True
        assert answer.payment_id is not None
        await bench.handle.execute_update(SubscriptionWorkflow.cancel, NOW)
        await bench.ended()
        paying = bench.script.payments[answer.payment_id]
        if paying.status is PaymentStatus.SUCCEEDED:
            assert bench.script.given_back[-1].giving_back.payment_id == answer.payment_id
        else:
            assert bench.script.given_back == []

    async def test_commands_after_its_end_are_refused(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        cheaper = OperateSubscription(
            action=OperatorAction.MOVE, reason="goodwill", operated_by="key_1"
        )
        assert await refused(bench, SubscriptionWorkflow.operate, cheaper) == "invalid_request"
        until = bench.script.known.subscription.period.end + timedelta(days=9)
        moved = await bench.handle.execute_update(
            SubscriptionWorkflow.operate, cheaper.model_copy(update={"until": until})
        )
        assert moved.subscription.period.end == until.replace(microsecond=0)
        await bench.handle.execute_update(SubscriptionWorkflow.cancel, NOW)
        assert await bench.ended() is SubscriptionStatus.CANCELED

    async def test_resumed_from_the_record_it_goes_on(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up()
        await bench.until("activated")
        await bench.handle.terminate()
        start = (await bench.start()).model_copy(update={"resumed": True})
        await bench.environment.sleep(timedelta(days=33))
        await bench.client.start_workflow(
            SubscriptionWorkflow.run, start, id=bench.subscription_id, task_queue=CORE
        )
        bench.script.pays_waiting = True
        await bench.until("renewed")
        assert len(bench.script.charged) == 2
        assert bench.script.known.subscription.period.number == 2

    async def test_a_cancel_request_from_temporal_ends_it(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        await bench.handle.cancel()
        assert await bench.ended() is SubscriptionStatus.CANCELED
        assert bench.script.writes[-1].data["operated_by"] == "temporal"


class TestSignature:
    async def test_what_is_signed_is_charged_in_the_old_one_s_place(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        bench.script.signed = SIGNED
        await bench.handle.signal(SubscriptionWorkflow.method_signed)
        await bench.until("method_changed")
        assert bench.script.known.subscription.payment_method_id == SIGNED
        await bench.until("renewed")
        assert bench.script.charged[-1].payment_method_id == SIGNED

    async def test_it_waits_for_the_charge_under_way(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up()
        await bench.until("activated")
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        bench.script.signed = SIGNED
        await bench.handle.signal(SubscriptionWorkflow.method_signed)
        await bench.environment.sleep(timedelta(minutes=1))
        assert bench.script.known.subscription.payment_method_id == METHOD_ID
        bench.script.pays_waiting = True
        await bench.until("method_changed")
        assert bench.script.names[-2:] == ["changed", "method_changed"]

    async def test_it_goes_before_what_came_meanwhile(self, bench: Bench) -> None:
        bench.script.outcomes.extend([None, bench.script.waits])
        await bench.sign_up()
        await bench.until("activated")
        dearer = ChangeSubscription(plan=plan(Tier.SUPER, Cycle.MONTHLY))
        bench.script.signed = SIGNED
        await bench.handle.signal(SubscriptionWorkflow.method_signed)
        await bench.handle.execute_update(SubscriptionWorkflow.change, dearer)
        assert bench.script.names[-2:] == ["method_changed", "charge_started"]
        charge = bench.script.known.charge
        assert charge is not None
        assert charge.method_id == SIGNED

    async def test_a_new_run_finds_it_in_the_record(self, bench: Bench) -> None:
        """The process was lost as the payer signed."""
        await bench.sign_up()
        await bench.until("activated")
        await bench.handle.terminate("lost")
        bench.script.signed = SIGNED
        start = await bench.start()
        await bench.begin(start.model_copy(update={"resumed": True}))
        await bench.until("method_changed")
        assert bench.script.known.subscription.payment_method_id == SIGNED

    async def test_nothing_signed_changes_nothing(self, bench: Bench) -> None:
        await bench.sign_up()
        await bench.until("activated")
        await bench.handle.signal(SubscriptionWorkflow.method_signed)
        await bench.until("renewed")
        assert "method_changed" not in bench.script.names
