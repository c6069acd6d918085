"""The recovery host takes over when nothing can have been sent, and only then."""

import json

import httpx
import pytest

from gateways.transport import make_client
from gateways.wechatpay.failover import Failover


@pytest.mark.parametrize("failing", [httpx.ConnectError, httpx.ConnectTimeout])
async def test_the_recovery_host_serves_when_the_main_one_cannot_be_reached(
    failing: type[httpx.TransportError],
) -> None:
    served: list[tuple[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.mch.weixin.qq.com":
            raise failing("no route")
        served.append((str(request.url), request.headers["host"]))
        return httpx.Response(200, content=request.content)

    async with make_client(transport=Failover(httpx.MockTransport(handle))) as client:
        answer = await client.post("https://api.mch.weixin.qq.com/v3/pay?a=b", content=b"signed")
        assert answer.content == b"signed"
        assert served == [("https://api2.mch.weixin.qq.com/v3/pay?a=b", "api2.mch.weixin.qq.com")]


@pytest.mark.parametrize(
    ("host", "failing"),
    [
        ("api.mch.weixin.qq.com", httpx.ReadTimeout),
        ("api.mch.weixin.qq.com", httpx.RemoteProtocolError),
        ("other.example.com", httpx.ConnectError),
    ],
)
async def test_a_request_that_may_have_arrived_is_not_sent_again(
    host: str, failing: type[httpx.TransportError]
) -> None:
    hosts: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        raise failing("gone")

    async with make_client(transport=Failover(httpx.MockTransport(handle))) as client:
        with pytest.raises(failing):
            await client.post(f"https://{host}/v3/pay", content=json.dumps({}).encode())
    assert hosts == [host]
