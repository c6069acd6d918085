"""The processes of the stack: how each is started, and how it tells that it works."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import httpx

from embedded.folder import DataFolder, Secrets
from embedded.launch import LOOPBACK, free_port
from embedded.options import PROJECT, StackOptions
from embedded.postgres import STOP_SIGNAL, PreparedServer
from embedded.supervisor import Component
from embedded.temporal import NAMESPACE, TemporalServer
from gateways.stripe.webhook import SUBSCRIBED

_HEALTH_TIMEOUT_SECONDS: Final = 2.0
# A worker lets activities under way finish for 35 s, the API its requests for 30.
_GRACEFUL_STOP_TIMEOUT_SECONDS: Final = 40.0
_GATEWAY_PREFIXES: Final = ("EVERBILL_STRIPE_", "EVERBILL_ALIPAY_", "EVERBILL_WECHATPAY_")
# After a kill -9 of the server its last sessions may hold shared memory for a moment longer.
_POSTGRES_START_TRIES: Final = 5


def local_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def base_environment(options: StackOptions) -> dict[str, str]:
    """What every process inherits. Calls to loopback never go through a proxy."""
    environment = {
        name: value
        for name, value in options.environment.items()
        if name != "EVERBILL_MIGRATION_DATABASE_URL"
        and (options.has_own_temporal or not name.startswith("TEMPORAL_"))
    }
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [environment[name]] if environment.get(name) else []
        environment[name] = ",".join([*hosts, LOOPBACK, "localhost"])
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def application_settings(
    options: StackOptions, secrets: Secrets, database_url: str, gateways: Mapping[str, str]
) -> dict[str, str]:
    """The settings of worker, API and commands beyond what they inherit.

    `gateways` are the sandbox's; a gateway that the options' environment configures keeps that
    configuration.
    """
    ports, given = options.ports, options.environment
    settings = {
        "DATABASE_URL": database_url,
        "EVERBILL_API_PORT": str(ports.api),
        "EVERBILL_SANDBOX_URL": local_url(ports.sandbox),
        "EVERBILL_PUBLIC_URL": given.get("EVERBILL_PUBLIC_URL") or local_url(ports.api),
        "EVERBILL_CODEC_PATH": secrets.codec_path,
        "EVERBILL_ENCRYPTION_KEYS": given.get("EVERBILL_ENCRYPTION_KEYS")
        or secrets.encryption_keys,
    }
    if not options.has_own_temporal:
        settings["TEMPORAL_ADDRESS"] = f"{LOOPBACK}:{ports.temporal}"
        settings["TEMPORAL_NAMESPACE"] = NAMESPACE
        # A profile for another Temporal, with its key and TLS, is not for this one.
        settings["TEMPORAL_CONFIG_FILE"] = os.devnull
        settings["EVERBILL_TEMPORAL_UI_URL"] = local_url(ports.temporal_ui)
    configured = tuple(
        prefix
        for prefix in _GATEWAY_PREFIXES
        if any(name.startswith(prefix) and value for name, value in given.items())
    )
    return settings | {
        name: value for name, value in gateways.items() if not name.startswith(configured)
    }


def postgresql(prepared: PreparedServer, environment: Mapping[str, str]) -> Component:
    return Component(
        name="postgresql",
        command=prepared.command(),
        is_ready=prepared.server.is_ready,
        environment=environment,
        working_folder=prepared.server.cluster,
        before_start=prepared.forget_stale_pid,
        stop_signal=STOP_SIGNAL,
        death_signal=STOP_SIGNAL,
        identity=prepared.identity,
        stop_timeout_seconds=20.0,
        start_tries=_POSTGRES_START_TRIES,
    )


def temporal(
    options: StackOptions, folder: DataFolder, secrets: Secrets, environment: Mapping[str, str]
) -> Component:
    ports = options.ports
    server = TemporalServer(
        folder=folder.temporal,
        port=ports.temporal,
        http_port=free_port(),
        metrics_port=free_port(),
        ui_port=ports.temporal_ui,
        codec_endpoint=local_url(ports.api) + secrets.codec_path,
    )
    return Component(
        name="temporal",
        command=server.command(),
        is_ready=server.is_ready,
        environment=server.environment(environment),
        working_folder=folder.temporal,
    )


def sandbox(options: StackOptions, folder: DataFolder, environment: Mapping[str, str]) -> Component:
    ports = options.ports
    return Component(
        name="sandbox",
        command=[
            *_python("sandbox"),
            *("--data-dir", str(folder.sandbox)),
            *("--port", str(ports.sandbox)),
            *("--public-url", local_url(ports.api)),
            *("--stripe-events", ",".join(SUBSCRIBED)),
        ],
        is_ready=_answers(local_url(ports.sandbox) + "/healthz"),
        environment=environment,
        working_folder=PROJECT,
    )


def worker(folder: DataFolder, environment: Mapping[str, str]) -> Component:
    """It touches the file that EVERBILL_READY_FILE names once it polls."""
    ready_file = folder.run / "worker.ready"

    async def is_ready() -> bool:
        return await asyncio.to_thread(ready_file.exists)

    return Component(
        name="worker",
        command=_python("worker"),
        is_ready=is_ready,
        environment={**environment, "EVERBILL_READY_FILE": str(ready_file)},
        working_folder=PROJECT,
        before_start=lambda: ready_file.unlink(missing_ok=True),
        stop_timeout_seconds=_GRACEFUL_STOP_TIMEOUT_SECONDS,
    )


def api(options: StackOptions, environment: Mapping[str, str]) -> Component:
    return Component(
        name="api",
        command=_python("api"),
        is_ready=_answers(local_url(options.ports.api) + "/readyz"),
        environment=environment,
        working_folder=PROJECT,
        stop_timeout_seconds=_GRACEFUL_STOP_TIMEOUT_SECONDS,
    )


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=_HEALTH_TIMEOUT_SECONDS) as client:
            try:
                return (await client.get(url)).status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

    return is_ready
