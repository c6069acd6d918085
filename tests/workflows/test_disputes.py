"""What the payment's workflows do about reported disputes: none is lost, whenever it comes."""

import pytest

from billing.messages import AfterInput, GatewayReport
from billing.payment import GatewayName, PaymentStatus
from runtime.queues import CORE
from tests.workflows.paying import COMMAND, Bench, bench
from workflows import PaymentAfterWorkflow, PaymentWorkflow

__all__ = ["bench"]


@pytest.fixture
def disputable(bench: Bench) -> Bench:
    bench.script.may_be_disputed = True
    return bench


class TestWhileThePaymentRuns:
    async def test_reported_while_the_money_is_asked_after(self, disputable: Bench) -> None:
        await disputable.create()
        disputable.script.paid = True
        disputable.script.answers.clear()
        await disputable.report()
        await disputable.until(lambda: disputable.script.status is PaymentStatus.SUCCEEDED)
        await disputable.report("evt_dispute", is_dispute=True)
        disputable.script.answers.set()
        assert await disputable.ended() is PaymentStatus.SUCCEEDED
        assert disputable.script.calls == ["open", "settle", "dispute"]

    async def test_reported_before_the_money(self, disputable: Bench) -> None:
        await disputable.create()
        await disputable.report("evt_dispute", is_dispute=True)
        await disputable.until(lambda: "settle" in disputable.script.calls)
        assert "dispute" not in disputable.script.calls
        disputable.script.paid = True
        assert await disputable.ended() is PaymentStatus.SUCCEEDED
        assert disputable.script.calls.count("dispute") == 1

    async def test_reported_in_a_run_before_this_one(self, disputable: Bench) -> None:
        disputable.script.paid = True
        await disputable.create(disputed=True)
        await disputable.report()
        assert await disputable.ended() is PaymentStatus.SUCCEEDED
        assert disputable.script.calls[-1] == "dispute"

    async def test_not_reported_is_not_asked(self, disputable: Bench) -> None:
        await disputable.create()
        disputable.script.paid = True
        await disputable.report()
        assert await disputable.ended() is PaymentStatus.SUCCEEDED
        assert disputable.script.calls == ["open", "settle"]

    async def test_without_money_there_is_nothing_to_ask(self, disputable: Bench) -> None:
        await disputable.create()
        await disputable.report("evt_dispute", is_dispute=True)
        await disputable.until(lambda: "settle" in disputable.script.calls)
        await disputable.handle.execute_update(PaymentWorkflow.cancel, COMMAND)
        assert await disputable.ended() is PaymentStatus.CANCELED
        assert "dispute" not in disputable.script.calls


class TestWhileAnotherAttemptLives:
    async def test_it_is_asked_at_once(self, disputable: Bench) -> None:
        script = disputable.script
        script.another_is_alive = True
        await disputable.create()
        script.paid = True
        await disputable.report()
        await disputable.until(lambda: script.status is PaymentStatus.SUCCEEDED)
        await disputable.report("evt_dispute", is_dispute=True)
        await disputable.until(lambda: "dispute" in script.calls)
        assert script.another_is_alive
        script.another_is_alive = False
        assert await disputable.ended() is PaymentStatus.SUCCEEDED
        assert script.calls.count("dispute") == 1

    async def test_a_silent_gateway_is_asked_again(self, disputable: Bench) -> None:
        script = disputable.script
        script.another_is_alive = True
        script.silent = {"dispute"}
        await disputable.create()
        script.paid = True
        await disputable.report()
        await disputable.report("evt_dispute", is_dispute=True)
        await disputable.until(lambda: script.calls.count("dispute") > 1)
        closed = script.calls.count("close")
        await disputable.until(lambda: script.calls.count("close") > closed)
        script.silent = set()
        script.another_is_alive = False
        assert await disputable.ended() is PaymentStatus.SUCCEEDED
        assert "dispute" in script.calls[-2:]


class TestAfterwards:
    async def test_every_report_asks(self, disputable: Bench) -> None:
        await self._end(disputable)
        assert await self._after(disputable) is PaymentStatus.SUCCEEDED
        assert disputable.script.calls[-2:] == ["settle", "dispute"]

    async def test_what_cannot_be_disputed_is_not_asked(self, disputable: Bench) -> None:
        await self._end(disputable)
        disputable.script.may_be_disputed = False
        assert await self._after(disputable) is PaymentStatus.SUCCEEDED
        assert "dispute" not in disputable.script.calls

    async def _end(self, disputable: Bench) -> None:
        await disputable.create()
        disputable.script.paid = True
        await disputable.report()
        assert await disputable.ended() is PaymentStatus.SUCCEEDED

    async def _after(self, disputable: Bench) -> PaymentStatus:
        ended = await disputable.client.execute_workflow(
            PaymentAfterWorkflow.run,
            AfterInput(payment_id=disputable.payment_id, gateway=GatewayName.WECHATPAY),
            id=f"{disputable.payment_id}/after",
            task_queue=CORE,
            start_signal="gateway_reported",
            start_signal_args=[
                GatewayReport(event_id="evt_d", event_type="dispute", is_dispute=True)
            ],
        )
        return ended.status
