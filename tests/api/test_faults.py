"""What callers see when something is out of reach or broken, and that every answer has its id."""

import asyncio
import contextlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from temporalio.client import Client

from api.app import BASE
from api.commands import Commands, NotRunning
from api.orders import CreatePayment
from api.pace import Pace
from billing.messages import PAYMENT_WORKFLOW, Command
from embedded.temporal import TemporalServer
from runtime.cipher import Cipher
from runtime.temporal import encrypting_converter
from storage.keys import Scope
from tests.api.conftest import Shop, Stack, order
from tests.api.test_points import object_of
from tests.api.test_validation import check_problem
from workflows.payment import PaymentWorkflow

ORDER = json.dumps(order())


class Line:
    """A TCP line to a server, which can be cut."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._transports: list[asyncio.StreamWriter] = []
        self.address = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def cut(self) -> None:
        self._server.close()
        for transport in self._transports:
            transport.close()
        for transport in self._transports:
            with contextlib.suppress(OSError):
                await transport.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        self._transports += [writer, there_writer]
        await asyncio.gather(_carry(reader, there_writer), _carry(there_reader, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def without_temporal(shop: Shop, temporal_server: TemporalServer, cipher: Cipher) -> Stack:
    """A stack whose Temporal was there when it started and is gone."""
    line = Line(temporal_server.address)
    await line.open()
    client = await Client.connect(
        line.address, namespace="api", data_converter=encrypting_converter(cipher)
    )
    await line.cut()
    commands = Commands(client, answer_within=timedelta(milliseconds=500))
    return shop.stack.having(client=client, commands=commands)


async def test_without_postgresql_callers_are_told_to_come_back(without_database: Stack) -> None:
    async with without_database.caller("ebk_any") as caller:
        answer = await caller.get(f"{BASE}/history")
        ready = await caller.get("/readyz")
        alive = await caller.get("/healthz")
    problem = check_problem(answer, 503)
    assert problem["code"] == "temporarily_unavailable"
    assert int(answer.headers["Retry-After"]) >= 1
    assert "secret" not in answer.text
    assert "PostgreSQL" in check_problem(ready, 503)["detail"]
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})


async def test_without_temporal_nothing_is_promised_and_the_key_can_be_used_again(
    shop: Shop, without_temporal: Stack
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    async with without_temporal.caller(await shop.stack.key(shop.name, Scope.WRITE)) as caller:
        answer = await caller.post(f"{BASE}/create", json=order(), headers=headers)
        ready = await caller.get("/readyz")
    assert check_problem(answer, 503)["code"] == "temporarily_unavailable"
    assert int(answer.headers["Retry-After"]) >= 1
    assert "Temporal" in check_problem(ready, 503)["detail"]
    again = await shop.create("order-1")
    assert again.status_code == 201
    assert len((await shop.get("/history")).json()["data"]) == 1


async def test_a_lost_process_is_started_again_to_be_canceled(shop: Shop) -> None:
    payment = await shop.created()
    handle = shop.stack.context.client.get_workflow_handle(payment["id"])
    await handle.terminate("lost")
    answer = await shop.post(f"/{payment['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")


@pytest.mark.parametrize("command", ["create", "cancel"])
async def test_lost_before_its_row_was_written_it_is_started_again(
    shop: Shop, without_temporal: Stack, command: str
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    async with without_temporal.caller(await shop.stack.key(shop.name, Scope.WRITE)) as caller:
        await caller.post(f"{BASE}/create", json=order(), headers=headers)
    payment_id = await object_of(shop, "order-1")
    lost = await shop.stack.context.client.start_workflow(
        PAYMENT_WORKFLOW, id=payment_id, task_queue="nobody"
    )
    await lost.terminate("lost")
    if command == "create":
        answer = await shop.create("order-1")
        assert (answer.status_code, answer.json()["status"]) == (201, "requires_action")
    else:
        answer = await shop.post(f"/{payment_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")


async def test_more_than_ten_commands_at_once_are_throttled(slow_shop: Shop) -> None:
    wanted = {"gateway": "stripe", "method": "card", "description": "do not answer"}
    payment = (await slow_shop.create(**wanted)).json()
    patient = Commands(slow_shop.stack.context.client)
    stack = slow_shop.stack.having(pace=Pace(0.0), commands=patient)
    async with stack.caller(await stack.key(slow_shop.name, Scope.WRITE)) as caller:
        sent = [
            asyncio.create_task(caller.post(f"{BASE}/{payment['id']}/refresh")) for _ in range(14)
        ]
        done, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        problem = check_problem(done.pop().result(), 429)
        assert problem["code"] == "too_many_commands"
        slow_shop.gateway("stripe").speaks.set()
        answers = [await answer for answer in sent]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all("Retry-After" in answer.headers for answer in answers if answer.is_error)


async def test_ready_when_both_are_reached(stack: Stack) -> None:
    async with stack.caller() as probe:
        answer = await probe.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_a_fault_of_ours_is_a_problem_that_tells_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the code")

    monkeypatch.setattr("api.payments.find", broken)
    with structlog.testing.capture_logs() as logs:
        answer = await shop.get("/pay_01hf7yat00fzzvzzzzzzzzzzzz")
    problem = check_problem(answer, 500)
    assert problem["code"] == "internal_error"
    assert "secret" not in answer.text
    assert [entry["event"] for entry in logs] == ["request_failed", "request"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/nothing", 404),
        ("GET", f"{BASE}/create", 405),
        ("DELETE", f"{BASE}/pay_01hf7yat00fzzvzzzzzzzzzzzz", 405),
        ("POST", f"{BASE}/history", 405),
        ("GET", f"{BASE}/webhook/stripe", 405),
        ("BREW", f"{BASE}/history", 405),
        ("GET", f"{BASE}/history", 401),
        ("POST", f"{BASE}/webhook/stripe", 400),
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
    ],
)
async def test_every_answer_has_an_id_and_says_how_it_may_be_used(
    stack: Stack, method: str, path: str, status: int
) -> None:
    async with stack.caller() as caller:
        answer = await caller.request(method, path)
    assert answer.status_code == status
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["Request-Id"])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    if status in (401, 404, 405):
        check_problem(answer, status)
    if status == 405:
        assert answer.headers["Allow"]


async def test_one_line_a_request_is_logged_without_what_it_held(shop: Shop) -> None:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as logs:
        payment = await shop.created(description="Ann's birthday", user_id="ann_17")
        async with shop.stack.caller() as probe:
            await probe.get("/healthz")
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line["route"].endswith("/create")
    assert line["status"] == 201
    assert line["payment_id"] == payment["id"]
    assert line["application"] == shop.name
    assert line["request_id"].startswith("req_")
    whole = json.dumps(logs, default=str)
    assert not [word for word in ("birthday", "ann_17", "ebk_", "paper://") if word in whole]


async def test_a_command_for_a_payment_nobody_started_is_not_promised(stack: Stack) -> None:
    context, now = stack.context, datetime.now(UTC)
    absent = context.offers.order(CreatePayment.model_validate_json(ORDER), "shop", now)
    message = Command(application="shop")
    with pytest.raises(NotRunning):
        await context.commands.give(
            absent, PaymentWorkflow.cancel, message, "cancel/none", is_recorded=True
        )


async def test_a_cancel_may_start_the_payment_it_cancels(shop: Shop) -> None:
    """The claim was made, and the API died before it told Temporal."""
    context, now = shop.stack.context, datetime.now(UTC)
    claimed = context.offers.order(CreatePayment.model_validate_json(ORDER), shop.name, now)
    async with shop.stack.database.begin() as work:
        await work.claims.claim(
            application=shop.name,
            key="order-1",
            fingerprint="of the lost request",
            command="create",
            object_id=claimed.payment_id,
            request=claimed.model_dump_json().encode(),
            now=now,
        )
    read = await shop.get(f"/{claimed.payment_id}")
    assert read.json()["status"] == "created"
    answer = await shop.post(f"/{claimed.payment_id}/cancel")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "canceled"


def test_a_turn_comes_once_an_interval_for_each_payment() -> None:
    now = 100.0
    pace = Pace(2.0, clock=lambda: now)
    assert pace.take("a")
    assert not pace.take("a")
    assert pace.take("b")
    now += 1.9
    assert not pace.take("a")
    now += 0.2
    assert pace.take("a")
