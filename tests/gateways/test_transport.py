import asyncio
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from billing.errors import OutcomeUnknown
from gateways.transport import (
    MAX_ANSWER_BYTES,
    USER_AGENT,
    Answer,
    make_client,
    retry_after_seconds,
    send,
)

URL = "https://gateway.test/pay?openid=secret-openid"
Handler = Callable[[httpx.Request], httpx.Response]


async def ask(handler: Handler, total_seconds: float = 20) -> Answer:
    async with make_client(transport=httpx.MockTransport(handler)) as client:
        return await send(client, "post", URL, content=b"amount=1", total_seconds=total_seconds)


def test_the_user_agent_has_the_project_s_version() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert f"Everbill/{project['project']['version']}" == USER_AGENT


async def test_a_request_says_who_calls_and_no_redirect_is_followed() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(
            302, headers={"location": "https://elsewhere.test/"}, content=b"moved"
        )

    told = await ask(answer)
    assert (told.status_code, told.body) == (302, b"moved")
    [request] = seen
    assert request.headers["user-agent"] == USER_AGENT
    assert (request.method, request.content) == ("POST", b"amount=1")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ndirect")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server, make_client() as client:
        port = server.sockets[0].getsockname()[1]
        assert (await send(client, "GET", f"http://127.0.0.1:{port}/")).body == b"direct"


@pytest.mark.parametrize(
    "problem",
    [
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ReadError,
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
        httpx.LocalProtocolError,
        httpx.WriteError,
        httpx.DecodingError,
    ],
)
async def test_a_broken_exchange_is_an_unknown_outcome(problem: type[httpx.RequestError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise problem("about secret-openid", request=request)

    with pytest.raises(OutcomeUnknown, match=problem.__name__) as caught:
        await ask(answer)
    assert "POST gateway.test/pay" in caught.value.detail
    assert "secret-openid" not in caught.value.detail


class Endless(httpx.AsyncByteStream):
    """An answer that never ends: all at once too long, or never going on."""

    def __init__(self, chunk: bytes, pause: asyncio.Event | None = None) -> None:
        self._chunk = chunk
        self._pause = pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield self._chunk
            if self._pause:
                await self._pause.wait()


async def test_an_answer_that_drips_for_too_long_is_an_unknown_outcome() -> None:
    stream = Endless(b"{", asyncio.Event())
    with pytest.raises(OutcomeUnknown, match=r"within 0\.05 s"):
        await ask(lambda _: httpx.Response(200, stream=stream), total_seconds=0.05)


async def test_an_answer_without_an_end_is_an_unknown_outcome() -> None:
    stream = Endless(bytes(1024 * 1024))
    with pytest.raises(OutcomeUnknown, match=str(MAX_ANSWER_BYTES)):
        await ask(lambda _: httpx.Response(200, stream=stream))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("7", 7.0), ("99999999", 3600.0), ("", None), ("-1", None), ("1.5", None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("²", None)],
)  # fmt: skip
def test_the_pause_asked_for_is_read_in_seconds(header: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": header}) == seconds
    assert retry_after_seconds({}) is None
