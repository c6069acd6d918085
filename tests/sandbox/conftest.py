"""A receiver of webhooks that the sandbox under test sends to."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import stripe
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.fixtures.sandbox import SandboxProcess

_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookReceiver:
    """Keeps what it is sent; answers `answers` in turn, then 200 `success`, each once `may_answer`
    is set."""

    url: str
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    received: "asyncio.Queue[Received]" = field(default_factory=asyncio.Queue)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # A delivery that the sandbox gave up as the test before this one ended.
            body, more = body + message["body"], message["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.received.put_nowait(Received(scope["path"], headers, body))
        await self.may_answer.wait()
        status, answer = self.answers.pop(0) if self.answers else (200, b"success")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    async def next(self) -> Received:
        return await asyncio.wait_for(self.received.get(), _PATIENCE_SECONDS)


@pytest.fixture(scope="session")
async def receiving() -> AsyncIterator[WebhookReceiver]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = WebhookReceiver(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False)
        server = _QuietServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield app
        server.should_exit = True
        await serving


@pytest.fixture
def receiver(receiving: WebhookReceiver) -> Iterator[WebhookReceiver]:
    receiving.may_answer.set()
    yield receiving
    receiving.may_answer.set()
    receiving.answers.clear()
    receiving.received = asyncio.Queue()


@pytest.fixture
def sandbox_public_url(receiver: WebhookReceiver) -> str:
    return receiver.url


@pytest.fixture
async def client(sandbox: SandboxProcess) -> AsyncIterator[stripe.StripeClient]:
    """The official SDK, as a merchant's server uses it."""
    http_client = stripe.HTTPXClient(timeout=20)
    yield stripe.StripeClient(
        sandbox.environment["EVERBILL_STRIPE_SECRET_KEY"],
        base_addresses={"api": sandbox.url},
        max_network_retries=0,
        http_client=http_client,
    )
    await http_client.close_async()  # type: ignore[no-untyped-call]


class _QuietServer(uvicorn.Server):
    """Leaves the signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
