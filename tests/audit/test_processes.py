"""The checker's teeth where it asks Temporal: processes that are missing, and what they tell."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from audit.evidence import UNDER_WAY, Evidence
from audit.report import run_all
from billing.messages import PAYMENT_WORKFLOW
from embedded.temporal import TemporalServer
from runtime import attributes
from runtime.cipher import Cipher
from runtime.temporal import encrypting_converter
from storage.database import Database
from tests.audit.conftest import Plant
from tests.audit.record import CleanRecord

QUEUE_WITHOUT_WORKERS = "audit-tests"


@dataclass
class Processes:
    """Payments' workflows that run and never get anywhere, for nobody works on them."""

    client: Client
    readable: Client
    database: Database
    clean: CleanRecord
    started: list[str] = field(default_factory=list)
    information: list[str] = field(default_factory=list)
    """What the last look told beside what was broken."""
    under_way: timedelta = UNDER_WAY

    async def start(
        self,
        payment_id: str,
        *,
        encrypted: bool = True,
        customer: str = "u1",
        reference: str = "2026112822001",
    ) -> None:
        async with self.database.begin() as work:
            record = await work.payments.find(payment_id)
        assert record is not None
        await (self.client if encrypted else self.readable).start_workflow(
            PAYMENT_WORKFLOW,
            record.order,
            id=payment_id,
            task_queue=QUEUE_WITHOUT_WORKERS,
            static_summary=attributes.summary(record.order),
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(attributes.CUSTOMER_ID, customer),
                    SearchAttributePair(attributes.GATEWAY_REFERENCE, reference),
                ]
            ),
        )
        self.started.append(payment_id)

    async def terminate(self, payment_id: str) -> None:
        await self.client.get_workflow_handle(payment_id).terminate()

    async def findings(self) -> list[tuple[int, str, str]]:
        report = await run_all(
            Evidence(
                database=self.database,
                charges=await self.clean.truth.charges(),
                truth=self.clean.truth,
                now=datetime.now(UTC),
                client=self.client,
                under_way=self.under_way,
            )
        )
        self.information = report.information()
        return [(finding.promise, finding.subject, finding.what) for finding in report.violations]

    async def broken(self) -> list[tuple[int, str]]:
        return [(promise, subject) for promise, subject, _ in await self.findings()]


@pytest.fixture
async def processes(
    temporal_server: TemporalServer,
    cipher: Cipher,
    database: Database,
    clean: CleanRecord,
    plant: Plant,
) -> AsyncIterator[Processes]:
    """Both open payments of a clean record, recorded long enough ago, have their process."""
    plant(
        "UPDATE payments SET recorded_at = created_at",
        "UPDATE payment_attempts SET recorded_at = now() - interval '20 minutes'",
    )
    client = await Client.connect(
        temporal_server.address, data_converter=encrypting_converter(cipher)
    )
    readable = await Client.connect(temporal_server.address, data_converter=pydantic_data_converter)
    these = Processes(client, readable, database, clean)
    await these.start(clean.waiting)
    await these.start(clean.parked)
    yield these
    for payment_id in these.started:
        with contextlib.suppress(RPCError):
            await these.terminate(payment_id)


async def test_a_clean_record_with_its_processes_is_clean(processes: Processes) -> None:
    assert await processes.broken() == []


@pytest.mark.parametrize("which", ["waiting", "parked"])
async def test_an_open_payment_whose_process_is_gone(processes: Processes, which: str) -> None:
    payment_id = getattr(processes.clean, which)
    await processes.terminate(payment_id)
    assert await processes.broken() == [(5, payment_id)]


async def test_an_ended_payment_that_may_still_be_paid(processes: Processes, plant: Plant) -> None:
    canceled = processes.clean.canceled
    plant(f"UPDATE payment_attempts SET state = 'open' WHERE payment_id = '{canceled}'")
    assert await processes.broken() == [(5, canceled)]
    await processes.start(canceled)
    assert await processes.broken() == []


class TestAnOrderWithoutARow:
    LOST = "pay_01k0000000000000000000000x"
    BEGUN = "pay_01k0000000000000000000000y"

    async def claim(
        self,
        processes: Processes,
        payment_id: str = LOST,
        *,
        is_answered: bool = False,
        ago: timedelta = timedelta(hours=1),
    ) -> None:
        async with processes.database.begin() as work:
            await work.claims.claim(
                application="shop",
                key="lost",
                fingerprint="f",
                command="create",
                object_id=payment_id,
                request=b"{}",
                now=datetime.now(UTC) - ago,
            )
            if is_answered:
                await work.claims.store_answer(
                    application="shop", key="lost", status=201, body=b"{}"
                )

    async def test_that_never_began_is_information(self, processes: Processes) -> None:
        async with asyncio.timeout(30):
            while not (await processes.client.count_workflows()).count:
                await asyncio.sleep(0.05)
        await self.claim(processes, ago=timedelta(0))
        processes.under_way = timedelta(0)
        assert await processes.broken() == []
        [told] = processes.information
        assert told.startswith(f"{self.LOST}: it was claimed")

    @pytest.mark.parametrize("ago", [timedelta(days=29), timedelta(days=31)])
    async def test_that_temporal_may_have_forgotten_is_broken(
        self, processes: Processes, ago: timedelta
    ) -> None:
        """It is younger than the claim, as after it was replaced, or keeps runs for 30 days."""
        await self.claim(processes, ago=ago)
        assert await processes.broken() == [(6, self.LOST)]
        assert processes.information == []

    @pytest.mark.parametrize("is_over", [False, True])
    async def test_that_began_is_broken(self, processes: Processes, is_over: bool) -> None:
        """Its application may have been told that it is under way."""
        await self.claim(processes, self.BEGUN)
        handle = await processes.client.start_workflow(
            PAYMENT_WORKFLOW, id=self.BEGUN, task_queue=QUEUE_WITHOUT_WORKERS
        )
        if is_over:
            await handle.terminate()
        try:
            assert await processes.broken() == [(6, self.BEGUN)]
            assert processes.information == []
        finally:
            with contextlib.suppress(RPCError):
                await handle.terminate()

    async def test_that_was_answered_is_broken(self, processes: Processes) -> None:
        await self.claim(processes, is_answered=True)
        assert await processes.broken() == [(6, self.LOST)]


async def test_a_payment_of_this_minute_may_be_on_its_way_to_temporal(
    processes: Processes, plant: Plant
) -> None:
    waiting = processes.clean.waiting
    await processes.terminate(waiting)
    plant(
        f"UPDATE payments SET recorded_at = now() WHERE id = '{waiting}'",
        f"UPDATE payment_attempts SET recorded_at = now() WHERE payment_id = '{waiting}'",
    )
    assert await processes.broken() == []


async def test_a_payment_that_ends_while_it_is_looked_at(
    processes: Processes, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = processes.clean.waiting
    real = processes.client.get_workflow_handle

    def ended_meanwhile(workflow_id: str) -> WorkflowHandle[Any, Any]:
        if workflow_id == waiting:
            plant(f"UPDATE payment_attempts SET state = 'dead' WHERE payment_id = '{waiting}'")
            plant(
                f"UPDATE payments SET status = 'failed', next_action = NULL WHERE id = '{waiting}'"
            )
        return real(workflow_id)

    await processes.terminate(waiting)
    monkeypatch.setattr(processes.client, "get_workflow_handle", ended_meanwhile)
    assert await processes.broken() == []


async def test_payloads_that_anybody_can_read(processes: Processes) -> None:
    paid = processes.clean.paid
    await processes.start(paid, encrypted=False)
    [(promise, subject, what)] = await processes.findings()
    assert (promise, subject) == (7, paid)
    assert "workflow_execution_started_event_attributes" in what


@pytest.mark.parametrize(
    ("customer", "reference"),
    [
        ("someone@example.com", "1"),
        ("sk_" + "live_abcdefgh12345678", "1"),
        ("u1", "4242424242424242"),
        ("u1", "sk_" + "live_abcdefgh12345678"),
    ],
    ids=["address", "secret as a user", "card number", "secret"],
)
async def test_a_search_attribute_that_tells(
    processes: Processes, customer: str, reference: str
) -> None:
    paid = processes.clean.paid
    await processes.start(paid, customer=customer, reference=reference)
    assert await processes.broken() == [(7, paid)]


async def test_an_applications_number_of_a_user_may_look_like_a_cards(
    processes: Processes,
) -> None:
    await processes.start(processes.clean.paid, customer="4242424242424242")
    assert await processes.broken() == []
