"""A stand-in for WeChat Pay inside a test: checks each signature, answers as scripted."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from gateways.transport import make_client
from gateways.wechatpay.adapter import WechatpayGateway
from tests.gateways.parties import (
    KEY_ID,
    NOTIFY_URL,
    NOW,
    key_of,
    sign_by_hand,
    wechatpay_account,
)

NONCE = "593BEC0C930BF1AFEB40B4A08C8FB242"
_AUTHORIZATION = re.compile(
    r'WECHATPAY2-SHA256-RSA2048 mchid="1900000001",nonce_str="(?P<nonce>[^"]+)",'
    r'signature="(?P<signature>[^"]+)",timestamp="(?P<timestamp>\d+)",'
    r'serial_no="5157F09EFDC096DE15EBE81A47057A7232F1B8E1"'
)


def signature_headers(
    body: bytes, *, owner: str = "gateway", serial: str = KEY_ID, at: datetime = NOW
) -> dict[str, str]:
    timestamp = str(int(at.timestamp()))
    message = timestamp.encode() + b"\nc5ac7061fccab6bf3e254dcf98995b8c\n" + body + b"\n"
    return {
        "wechatpay-timestamp": timestamp,
        "wechatpay-nonce": "c5ac7061fccab6bf3e254dcf98995b8c",
        "wechatpay-signature": sign_by_hand(message, key_of(owner)),
        "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
        "wechatpay-serial": serial,
    }


def signed_answer(fields: dict[str, Any], status: int = 200, **how: Any) -> httpx.Response:
    body = json.dumps(fields, ensure_ascii=False).encode()
    return httpx.Response(status, content=body, headers=signature_headers(body, **how))


def error(status: int, code: str) -> httpx.Response:
    return signed_answer({"code": code, "message": "words"}, status)


@dataclass
class WechatpayServer:
    """Answers every call with `answer`, or every GET with `answer_to_get` where that is given;
    keeps what it was told."""

    answer: httpx.Response
    answer_to_get: httpx.Response | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    def gateway(self) -> WechatpayGateway:
        client = make_client(transport=httpx.MockTransport(self.handle))
        return WechatpayGateway(
            client, wechatpay_account(), NOTIFY_URL, clock=lambda: NOW, nonce=lambda: NONCE
        )

    @property
    def body(self) -> dict[str, Any]:
        """What the last call sent."""
        sent: dict[str, Any] = json.loads(self.requests[-1].content)
        return sent

    @property
    def path(self) -> str:
        return self.requests[-1].url.raw_path.decode()

    def handle(self, request: httpx.Request) -> httpx.Response:
        check_request(request)
        self.requests.append(request)
        answer = (request.method == "GET" and self.answer_to_get) or self.answer
        # The status line and headers are shared, the stream of a response can be read once.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def check_request(request: httpx.Request) -> None:
    """The signature and the headers WeChat Pay insists on."""
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("Everbill/")
    assert request.headers["wechatpay-serial"] == KEY_ID
    assert ("content-type" in request.headers) == bool(request.content)
    match = _AUTHORIZATION.fullmatch(request.headers["authorization"])
    assert match is not None
    assert match["timestamp"] == str(int(NOW.timestamp()))
    assert match["nonce"] == NONCE
    lines = [request.method.encode(), request.url.raw_path, match["timestamp"].encode()]
    message = b"".join(line + b"\n" for line in [*lines, match["nonce"].encode(), request.content])
    assert match["signature"] == sign_by_hand(message, key_of("merchant"))
