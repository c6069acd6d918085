"""The whole of Everbill on one machine, as `everbill up`, the demo and tests start it."""

import asyncio
import signal
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from billing.errors import SettingError
from embedded import access, components
from embedded.components import local_url
from embedded.errors import StackRefused
from embedded.folder import DataFolder, Secrets, read_settings
from embedded.launch import LOOPBACK
from embedded.options import StackOptions
from embedded.postgres import PostgresServer
from embedded.supervisor import Announce, Component, Supervisor
from storage.migrate import migrate
from storage.provision import provision

DATABASE: Final = "everbill"

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Addresses:
    """Where people and programs find the parts of a running stack."""

    api: str
    openapi: str
    sandbox: str
    temporal: str
    temporal_ui: str | None
    """None where Temporal is one of your own and EVERBILL_TEMPORAL_UI_URL does not name its UI."""
    postgresql: str
    """Host and port; the passwords are in the data folder's `secrets.json`."""


class Stack:
    """`async with Stack(options) as stack:` starts everything, and stops it all at the end.

    Use it from the main thread: the stack's processes end with the thread that started them.
    Raises StackRefused, in words for a person, if it cannot start; nothing is then left running.
    """

    def __init__(self, options: StackOptions, announce: Announce = lambda _: None) -> None:
        self.options = options
        self.folder = DataFolder(options.data_dir)
        self.supervisor = Supervisor(self.folder, announce)
        self.environment: dict[str, str] = {}
        """What worker, API and commands are started with."""
        self.api_key = ""
        """A development key with every scope, good until the next start."""
        self.announce = announce
        self._components: dict[str, Component] = {}

    @property
    def addresses(self) -> Addresses:
        api = local_url(self.options.ports.api)
        return Addresses(
            api=api,
            openapi=f"{api}/openapi.json",
            sandbox=local_url(self.options.ports.sandbox),
            temporal=self.environment["TEMPORAL_ADDRESS"],
            temporal_ui=self.environment.get("EVERBILL_TEMPORAL_UI_URL"),
            postgresql=f"{LOOPBACK}:{self.options.ports.postgres}",
        )

    def pid(self, name: str) -> int:
        """The process of `postgresql`, `temporal`, `sandbox`, `worker` or `api`."""
        return self.supervisor.pid(name)

    async def kill(self, name: str) -> None:
        """SIGKILL that process; the supervisor starts it again (`until_ready`)."""
        await self.supervisor.kill(name)

    async def until_ready(self, name: str) -> None:
        await self.supervisor.until_ready(name)

    async def stop(self, name: str) -> None:
        """Stop one component and leave it stopped, until `start`."""
        await self.supervisor.stop(name)

    async def start(self, name: str) -> None:
        await self.supervisor.start(self._components[name])

    async def __aenter__(self) -> Self:
        self.folder.hold()
        try:
            await self._start_everything()
        except BaseException:
            await self._stop_everything()
            raise
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self._stop_everything()

    async def _start_everything(self) -> None:
        options = self.options
        await asyncio.to_thread(self.supervisor.end_leftovers)
        options.ports.refuse_taken(*options.port_names())
        secrets = self.folder.secrets()
        inherited = components.base_environment(options)
        database_url, _, gateways = await _together(
            self._start_database(secrets, inherited),
            self._run(components.temporal(options, self.folder, secrets, inherited)),
            self._start_sandbox(inherited),
        )
        settings = components.application_settings(options, secrets, database_url, gateways)
        self.environment = inherited | settings
        await _together(
            self._run(components.worker(self.folder, self.environment)),
            self._run(components.api(options, self.environment)),
        )
        if options.runs("api"):
            self.api_key = await access.renew_key(
                database_url, self.environment["EVERBILL_ENCRYPTION_KEYS"]
            )
            self.folder.write_addresses(self._published(), settings)

    async def _start_database(self, secrets: Secrets, inherited: Mapping[str, str]) -> str:
        """The URL that worker and API log in with, its schema being up to date."""
        options = self.options
        given = options.environment.get("DATABASE_URL", "")
        if given:
            owner = options.environment.get("EVERBILL_MIGRATION_DATABASE_URL") or given
            await self._migrate(owner)
            return given
        server = PostgresServer(
            self.folder.postgres, options.ports.postgres, secrets.postgres_password
        )
        if not options.runs("postgresql"):
            return ""
        if not server.cluster.exists():
            self.announce("making the database's folder (once)")
        prepared = await asyncio.to_thread(server.prepare)
        await self._run(components.postgresql(prepared, inherited))
        if not (options.runs("worker") or options.runs("api")):
            return server.url()
        urls = await provision(
            server.url(),
            database=DATABASE,
            owner_password=secrets.owner_password,
            app_password=secrets.application_password,
        )
        await self._migrate(urls.owner)
        return urls.application

    async def _migrate(self, owner_url: str) -> None:
        self.announce("bringing the database's schema up to date")
        try:
            await asyncio.to_thread(migrate, owner_url)
        except (SQLAlchemyError, CommandError, SettingError) as problem:
            raise StackRefused(
                f"the database's schema could not be brought up to date: {problem}"
            ) from None

    async def _start_sandbox(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The settings by which worker and API reach the sandbox's gateways."""
        if not self.options.runs("sandbox"):
            return {}
        await self._run(components.sandbox(self.options, self.folder, inherited))
        return await asyncio.to_thread(read_settings, self.folder.sandbox / "gateways.env")

    async def _run(self, component: Component) -> None:
        if not self.options.runs(component.name):
            return
        began = time.monotonic()
        self._components[component.name] = component
        await self.supervisor.start(component)
        self.announce(f"{component.name} is ready ({time.monotonic() - began:.1f} s)")

    async def _stop_everything(self) -> None:
        self.folder.forget_addresses()
        await self.supervisor.stop_all()
        self.folder.release()

    def _published(self) -> dict[str, str]:
        addresses = self.addresses
        return {
            "EVERBILL_URL": addresses.api,
            "EVERBILL_API_KEY": self.api_key,
            "EVERBILL_SANDBOX_URL": addresses.sandbox,
            "EVERBILL_TEMPORAL_UI_URL": addresses.temporal_ui or "",
        }


async def interruptible(work: Coroutine[Any, Any, ResultT], stack: Stack) -> ResultT | None:
    """Run `work`, which starts the stack, so that Ctrl-C, SIGTERM or a hang-up ends it in order.

    A second one stops without waiting. None where it was interrupted.
    """
    running = asyncio.create_task(work)

    def stop() -> None:
        if running.cancelling():
            stack.supervisor.hurry()
        else:
            stack.announce("stopping; once more (Ctrl-C) stops without waiting")
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        return await running
    except asyncio.CancelledError:
        return None
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do all at once; the first failure cancels the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
