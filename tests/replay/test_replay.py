"""What is under way must go on with the code as it is: every recorded history replays."""

import re
import secrets
import socket
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.worker import Replayer

from billing.errors import RefundExceedsPayment
from billing.messages import (
    GATEWAY_REPORTED,
    PaymentEnded,
    RefundEnded,
)
from billing.payment import PaymentStatus
from billing.refund import RefundStatus
from billing.subscription_messages import METHOD_SIGNED, PAYMENT_ENDED
from runtime.cipher import Cipher
from runtime.codec import EncryptionCodec
from runtime.settings import EncryptionKeys
from runtime.temporal import encrypting_converter
from tests.faults.cells import CLOSE, DISCOVER, DISPUTES, END, FLAG, OPEN, SETTLE, SPEND, SWITCH
from tests.faults.member_matrix import (
    GIVE_BACK,
    METHOD_OPEN,
    METHOD_REVOKE,
    METHOD_SETTLE,
    PREPARE,
    WRITE,
)
from tests.faults.member_matrix import OPEN as SUBSCRIPTION_OPEN
from tests.faults.refund_matrix import ASK, RESERVE
from tests.faults.refund_matrix import SETTLE as SETTLE_REFUND
from tests.replay.changes import (
    AsksAtOnce,
    AsksFirst,
    ChargesNobody,
    EndsUnasked,
    LooksAtMethodsTwice,
    LooksAtRefundsTwice,
    LooksNoMore,
    LooksTwice,
    ReadsFirst,
    ReservesTwice,
    SleepsBeforeReserving,
    SleepsFirst,
    SpendsTwice,
)
from tests.replay.histories import FOLDER, RECORDER, encoded, load, path_of
from tests.replay.member_journeys import MEMBER_JOURNEYS, METHOD_JOURNEYS
from tests.replay.record import ALL, files_of
from tests.replay.refund_journeys import REFUND_JOURNEYS
from worker import WORKFLOW_RUNNER, sandboxed
from workflows import (
    WORKFLOWS,
)

HISTORIES = sorted(file.stem for file in FOLDER.glob("*.json"))
REFUND_HISTORIES = sorted(file for name in REFUND_JOURNEYS for file in files_of(name))
REFUND_AFTERS = [name for name in REFUND_HISTORIES if name.endswith("-after")]
REFUNDS = [name for name in REFUND_HISTORIES if name not in REFUND_AFTERS]
SPENDS = [name for name in HISTORIES if name.startswith("spent")]
METHOD_HISTORIES = sorted(file for name in METHOD_JOURNEYS for file in files_of(name))
METHOD_AFTERS = [name for name in METHOD_HISTORIES if name.endswith("-after")]
METHODS = [name for name in METHOD_HISTORIES if name not in METHOD_AFTERS]
MEMBERS = sorted(MEMBER_JOURNEYS)
PAYMENT_HISTORIES = [
    name
    for name in HISTORIES
    if name not in (*REFUND_HISTORIES, *SPENDS, *METHOD_HISTORIES, *MEMBERS)
]
AFTERS = [name for name in PAYMENT_HISTORIES if name.endswith("-after")]
PAYMENTS = [name for name in PAYMENT_HISTORIES if name not in AFTERS]
METHOD_DEFAULT = "method.make_default"
SUBSCRIPTION_READ = "subscription.read"
ACTIVITIES = {
    OPEN, SETTLE, CLOSE, END, FLAG, DISPUTES, DISCOVER, SWITCH, RESERVE, ASK, SETTLE_REFUND, SPEND,
    METHOD_OPEN, METHOD_SETTLE, METHOD_REVOKE, METHOD_DEFAULT,
    SUBSCRIPTION_OPEN, SUBSCRIPTION_READ, WRITE, PREPARE, GIVE_BACK,
}  # fmt: skip
UPDATES = {
    "create", "cancel", "refresh", "review", "switch", "revoke", "make_default",
    "pause", "resume", "change", "change_method", "pay", "operate",
}  # fmt: skip
READABLE = b"ask again"
"""Why the operator of `parked-then-settled` decided as they did."""

TESTS_RUNNER = sandboxed("workflows", "tests")

_NAME_OF_A_WORKER = re.compile(r'"(?:identity|buildId)": "([^"]*)"')
_ABSOLUTE_PATH = re.compile(r"(?<![\w:/.])/(?!v\d/)(?:[\w.-]+/)+[\w.-]+|[A-Z]:\\")

E = TypeVar("E", PaymentEnded, RefundEnded)

parametrize_payments = pytest.mark.parametrize("name", PAYMENTS)
parametrize_refunds = pytest.mark.parametrize("name", REFUNDS)


async def replay(
    history: WorkflowHistory, converter: DataConverter = pydantic_data_converter
) -> None:
    await Replayer(
        workflows=WORKFLOWS, workflow_runner=WORKFLOW_RUNNER, data_converter=converter
    ).replay_workflow(history)


async def diverges(changed: type, name: str) -> None:
    replayer = Replayer(
        workflows=[changed], workflow_runner=TESTS_RUNNER, data_converter=pydantic_data_converter
    )
    with pytest.raises(workflow.NondeterminismError):
        await replayer.replay_workflow(load(name))


@pytest.mark.parametrize("name", HISTORIES)
async def test_the_code_does_what_it_did(name: str) -> None:
    await replay(load(name))


class TestChangesThatBreakPaymentsUnderWay:
    @parametrize_payments
    async def test_a_timer_more(self, name: str) -> None:
        await diverges(SleepsFirst, name)

    @pytest.mark.parametrize(
        "name", ["canceled-stripe", "expired-wechatpay", "canceled-in-temporal"]
    )
    async def test_another_activity(self, name: str) -> None:
        await diverges(EndsUnasked, name)

    @pytest.mark.parametrize("name", ["canceled-unscanned", "paid-at-both-codes"])
    async def test_activities_less(self, name: str) -> None:
        await diverges(LooksNoMore, name)

    @pytest.mark.parametrize("name", AFTERS)
    async def test_an_activity_more(self, name: str) -> None:
        await diverges(LooksTwice, name)

    @pytest.mark.parametrize("name", SPENDS)
    async def test_a_spend_more(self, name: str) -> None:
        await diverges(SpendsTwice, name)


class TestChangesThatBreakRefundsUnderWay:
    @parametrize_refunds
    async def test_a_timer_more(self, name: str) -> None:
        await diverges(SleepsBeforeReserving, name)

    @parametrize_refunds
    async def test_an_activity_more(self, name: str) -> None:
        await diverges(ReservesTwice, name)

    async def test_a_timer_less(self) -> None:
        await diverges(AsksAtOnce, "refund-paused-alipay")

    @pytest.mark.parametrize("name", REFUND_AFTERS)
    async def test_an_activity_more_afterwards(self, name: str) -> None:
        await diverges(LooksAtRefundsTwice, name)


class TestChangesThatBreakMembershipsUnderWay:
    @pytest.mark.parametrize("name", METHODS)
    async def test_a_question_more(self, name: str) -> None:
        await diverges(AsksFirst, name)

    @pytest.mark.parametrize("name", METHOD_AFTERS)
    async def test_an_activity_more_afterwards(self, name: str) -> None:
        await diverges(LooksAtMethodsTwice, name)

    @pytest.mark.parametrize("name", MEMBERS)
    async def test_another_activity(self, name: str) -> None:
        await diverges(ReadsFirst, name)

    @pytest.mark.parametrize("name", MEMBERS)
    async def test_a_payment_less(self, name: str) -> None:
        await diverges(ChargesNobody, name)


@pytest.mark.parametrize(
    ("changed", "name"), [(EndsUnasked, "paid-stripe-card"), (AsksAtOnce, "refund-full-alipay")]
)
async def test_what_changes_nothing_of_a_history_replays(changed: type, name: str) -> None:
    """The changed code is refused for the change, not for being another class."""
    replayer = Replayer(
        workflows=[changed],
        workflow_runner=TESTS_RUNNER,
        data_converter=pydantic_data_converter,
    )
    await replayer.replay_workflow(load(name))


class TestEncrypted:
    """As histories are in Temporal, payloads sealed with the house's keys."""

    async def test_replays_with_the_key(self) -> None:
        cipher = Cipher(EncryptionKeys(keys={"recorded": secrets.token_bytes(32)}))
        sealed = await encoded(load("parked-then-settled"), EncryptionCodec(cipher))
        assert READABLE in bytes_of(load("parked-then-settled"))
        assert READABLE not in bytes_of(sealed)
        await replay(sealed, encrypting_converter(cipher))

    async def test_does_not_without_it(self) -> None:
        cipher, another = (
            Cipher(EncryptionKeys(keys={name: secrets.token_bytes(32)})) for name in ("a", "b")
        )
        sealed = await encoded(load("parked-then-settled"), EncryptionCodec(cipher))
        with pytest.raises(RuntimeError, match="SettingError"):
            await replay(sealed, encrypting_converter(another))


class TestWhatIsRecorded:
    def test_every_journey_and_nothing_else(self) -> None:
        assert sorted(file for name in ALL for file in files_of(name)) == HISTORIES

    def test_all_that_the_workflows_do(self) -> None:
        recorded = list(events())
        assert {
            event.activity_task_scheduled_event_attributes.activity_type.name
            for event in recorded
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        } == ACTIVITIES
        assert {
            event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
            for event in recorded
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
        } == UPDATES
        assert {
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in recorded
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
        } == {GATEWAY_REPORTED, METHOD_SIGNED, PAYMENT_ENDED}

    def test_every_end(self) -> None:
        assert {ended.status for ended in ends(PAYMENT_HISTORIES, PaymentEnded)} == {
            status for status in PaymentStatus if status.is_terminal
        }
        refunds = list(ends(REFUND_HISTORIES, RefundEnded))
        statuses = {status for status in RefundStatus if status.has_ended}
        assert {ended.status for ended in refunds} == {None, *statuses}
        assert {ended.refusal_code for ended in refunds} == {None, RefundExceedsPayment.code}

    @pytest.mark.parametrize("name", HISTORIES)
    def test_nothing_of_the_machine(self, name: str) -> None:
        text = path_of(name).read_text()
        assert set(_NAME_OF_A_WORKER.findall(text)) == {RECORDER}
        assert f"@{socket.gethostname()}" not in text
        assert not _ABSOLUTE_PATH.findall(text)


def events(names: Sequence[str] = HISTORIES) -> Iterator[HistoryEvent]:
    for name in names:
        yield from load(name).events


def ends(names: Sequence[str], kind: type[E]) -> Iterator[E]:
    """What the workflows of these histories left behind."""
    for event in events(names):
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            result = event.workflow_execution_completed_event_attributes.result
            yield pydantic_data_converter.payload_converter.from_payload(result.payloads[0], kind)


def bytes_of(history: WorkflowHistory) -> bytes:
    return b"".join(event.SerializeToString() for event in history.events)
