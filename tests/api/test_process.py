"""`python -m api` as a process: ready, in its own words, and gone when told to."""

import asyncio
import base64
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from embedded.launch import free_port
from embedded.temporal import TemporalServer
from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from storage.database import Database
from storage.keys import Scope
from tests.fixtures.database import DatabaseUrls

ROOT = Path(__file__).resolve().parents[2]
STARTS_WITHIN_SECONDS = 60


@pytest.fixture
def environment(database_urls: DatabaseUrls, temporal_server: TemporalServer) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return inherited | {
        "DATABASE_URL": database_urls.app,
        "TEMPORAL_ADDRESS": temporal_server.address,
        "EVERBILL_ENCRYPTION_KEYS": f"a:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "EVERBILL_API_PORT": str(free_port()),
    }


async def start(environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
    )


@pytest.fixture
async def process(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await start(environment)
    yield started
    if started.returncode is None:
        started.kill()
        await started.communicate()


async def until_ready(http: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(STARTS_WITHIN_SECONDS):
        while True:
            assert process.returncode is None, (await process.communicate())[1].decode()
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_it_serves_logs_in_json_and_ends_long_polls_when_told_to_stop(
    environment: dict[str, str], process: asyncio.subprocess.Process
) -> None:
    keys = EncryptionKeys.parse(environment["EVERBILL_ENCRYPTION_KEYS"])
    database = Database(environment["DATABASE_URL"], Cipher(keys))
    async with database.begin() as work:
        _, secret = await work.keys.create("shop", "test", [Scope.READ], datetime.now(UTC))
    await database.dispose()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{environment['EVERBILL_API_PORT']}",
        headers={"Authorization": f"Bearer {secret}"},
        trust_env=False,
        timeout=30,
    ) as http:
        await until_ready(http, process)
        answer = await http.get("/api/v1/payment/history", params={"user_id": "ann_17"})
        assert answer.json() == {"data": [], "has_more": False, "next_cursor": None}
        assert "server" not in answer.headers
        off = await http.post("/api/v1/payment/webhook/stripe", content=b"{}")
        assert off.json()["code"] == "gateway_not_configured"
        waiting = asyncio.create_task(http.get("/api/v1/payment/events"))
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert (await waiting).json()["data"] == []
    _, output = await process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert {"request", "api_stopping"} <= {line["event"] for line in lines}
    routes = [line["route"] for line in lines if line["event"] == "request"]
    assert any(route.endswith("/history") for route in routes)
    assert secret not in output.decode()
    assert "ann_17" not in output.decode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"EVERBILL_ENCRYPTION_KEYS": ""}, "EVERBILL_ENCRYPTION_KEYS is not set"),
        ({"EVERBILL_API_PORT": "eight"}, "EVERBILL_API_PORT"),
        ({"EVERBILL_CATALOG_FILE": "/nonexistent/catalog.toml"}, "/nonexistent/catalog.toml"),
        ({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, "TEMPORAL_ADDRESS"),
        ({"TEMPORAL_NAMESPACE": "nowhere"}, "TEMPORAL_NAMESPACE"),
        ({"EVERBILL_ALIPAY_APP_ID": "2021"}, "EVERBILL_ALIPAY_"),
    ],
)
async def test_what_keeps_it_from_starting_is_named(
    environment: dict[str, str], changes: dict[str, str], message: str
) -> None:
    process = await start(environment | changes)
    _, output = await process.communicate()
    assert process.returncode == 1
    assert output.decode().splitlines()[-1].startswith("everbill api: ")
    assert message in output.decode()
    assert "Traceback" not in output.decode()


async def test_a_port_in_use_is_named(environment: dict[str, str]) -> None:
    port = int(environment["EVERBILL_API_PORT"])
    holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    try:
        process = await start(environment)
        _, output = await process.communicate()
    finally:
        holder.close()
        await holder.wait_closed()
    assert process.returncode == 1
    assert f"everbill api: port {port} of 127.0.0.1 is in use" in output.decode()
