"""What is measured: a stack of its own with both contenders in it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import httpx
from sqlalchemy import func, select
from temporalio.api.history.v1 import History, HistoryEvent
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client

from benchmarks import machine
from benchmarks.bare import Plain, RefundShape, SameShape
from benchmarks.bare_worker import READY_FILE
from benchmarks.contenders import Bare, Everbill, RunFailed, Taken
from embedded.options import PROJECT
from embedded.stack import Stack
from embedded.supervisor import Component
from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from runtime.temporal import encrypting_converter
from storage.database import Database
from storage.tables import IS_UNFINISHED, ledger_transactions, payments

BARE_WORKER: Final = "bare worker"
_PROCESSES: Final = ("temporal", "worker", "api", "postgresql", "sandbox")
_CONNECTIONS: Final = 128
_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Size:
    """Of a plain paid journey's history in Temporal."""

    events: int
    bytes: int

    @classmethod
    def of(cls, events: Sequence[HistoryEvent]) -> Self:
        return cls(len(events), History(events=events).ByteSize())


@dataclass(frozen=True)
class Memory:
    """Resident MiB by process, and how many payments were open then."""

    resident_mb: dict[str, float]
    open_payments: int


@dataclass
class House:
    """Everything that runs, and what is asked of it."""

    stack: Stack
    temporal: Client
    database: Database
    everbill: Everbill
    same_shape: Bare
    plain: Bare
    refund_shape: Bare

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, stack: Stack) -> AsyncIterator[Self]:
        """Start the stack with the bare worker beside it. Raises StackRefused."""
        async with stack, contextlib.AsyncExitStack() as connections:
            await stack.supervisor.start(_bare_worker(stack))
            environment = stack.environment
            cipher = Cipher(EncryptionKeys.parse(environment["EVERBILL_ENCRYPTION_KEYS"]))
            temporal = await Client.connect(
                environment["TEMPORAL_ADDRESS"],
                namespace=environment["TEMPORAL_NAMESPACE"],
                data_converter=encrypting_converter(cipher),
            )
            database = Database(environment["DATABASE_URL"], cipher, pool_size=2)
            connections.push_async_callback(database.dispose)
            api = await connections.enter_async_context(
                _http(stack.addresses.api, {"Authorization": f"Bearer {stack.api_key}"})
            )
            payer = await connections.enter_async_context(_http(stack.addresses.sandbox, {}))
            yield cls(
                stack,
                temporal,
                database,
                Everbill(api, payer, temporal),
                Bare(temporal, SameShape, "same shape"),
                Bare(temporal, Plain, "plain bare"),
                Bare(temporal, RefundShape, "same shape"),
            )

    def processes(self) -> dict[str, int]:
        named = {name: self.stack.pid(name) for name in (*_PROCESSES, BARE_WORKER)}
        return {**named, "driver": os.getpid()}

    def cpu_clock(self) -> dict[str, float]:
        measured = machine.cpu_seconds(self.processes())
        # The stack's processes are the driver's children.
        measured["driver"] -= sum(measured[name] for name in (*_PROCESSES, BARE_WORKER))
        return measured

    async def memory(self) -> Memory:
        async with self.database.begin() as work:
            unfinished = await work.connection.scalar(
                select(func.count()).select_from(payments).where(IS_UNFINISHED)
            )
        watched = {name: self.stack.pid(name) for name in ("temporal", "worker", "api")}
        return Memory(
            {name: round(value) for name, value in machine.memory_mb(watched).items()},
            int(unfinished or 0),
        )

    async def history_of(self, taken: Taken) -> Size:
        history = await self.temporal.get_workflow_handle(taken.id).fetch_history()
        return Size.of(history.events)

    async def versions(self) -> dict[str, str]:
        """Of the servers that answered."""
        system = await self.temporal.workflow_service.get_system_info(GetSystemInfoRequest())
        async with self.database.begin() as work:
            postgresql = await work.connection.scalar(
                select(func.current_setting("server_version"))
            )
        return {"temporal_server": system.server_version, "postgresql": str(postgresql)}

    async def check_ledger(self) -> int:
        """How many entries the ledger has. Raises RunFailed unless each payment has its receipt,
        each refund its own entry, and there is none besides."""
        async with self.database.begin() as work:
            causes = await work.connection.scalars(select(ledger_transactions.c.cause))
        posted = sorted(causes)
        receipts = [f"receipt/{each}" for each in self.everbill.settled]
        refunds = [f"refund/{each}" for each in self.everbill.refunded]
        if posted != sorted(receipts + refunds):
            raise RunFailed(
                f"{len(receipts)} payments were settled, {len(refunds)} refunded, and the ledger"
                f" has {len(posted)} entries: they must be one to one"
            )
        return len(posted)


def _http(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    return httpx.AsyncClient(
        base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, limits=limits, trust_env=False
    )


def _bare_worker(stack: Stack) -> Component:
    ready_file = stack.folder.run / "bare-worker.ready"

    async def is_ready() -> bool:
        return await asyncio.to_thread(ready_file.exists)

    return Component(
        name=BARE_WORKER,
        command=[sys.executable, "-m", "benchmarks.bare_worker"],
        is_ready=is_ready,
        environment={**stack.environment, READY_FILE: str(ready_file)},
        working_folder=PROJECT,
    )
