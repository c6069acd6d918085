"""A stand-in for gateway.do inside a test: checks each request's signature, answers as scripted."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx

from gateways.alipay.adapter import AlipayGateway
from gateways.transport import make_client
from tests.gateways.parties import NOTIFY_URL, NOW, alipay_account, key_of, sign_by_hand


def signed_answer(method: str, fields: dict[str, Any], *, owner: str = "gateway") -> bytes:
    return signed_text(method, json.dumps(fields, ensure_ascii=False), owner=owner)


def signed_text(method: str, node: str, *, owner: str = "gateway") -> bytes:
    name = f"{method.replace('.', '_')}_response"
    signature = sign_by_hand(node.encode(), key_of(owner))
    return f'{{"{name}":{node},"sign":"{signature}"}}'.encode()


def failure(method: str, code: str, sub_code: str | None) -> bytes:
    fields = {"code": code, "msg": "Business Failed", "sub_code": sub_code}
    return signed_answer(method, {name: value for name, value in fields.items() if value})


def received(query: str, body: str = "") -> dict[str, str]:
    """The parameters of a request, its signature checked the way Alipay does."""
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    if body:
        pairs += parse_qsl(body, keep_blank_values=True, strict_parsing=True)
    parameters = dict(pairs)
    assert len(parameters) == len(pairs)
    signature = parameters.pop("sign")
    assert all(parameters.values())
    text = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))
    assert signature == sign_by_hand(text.encode(), key_of("merchant"))
    return parameters


@dataclass
class AlipayServer:
    """Answers every call with `answer`, or with the one its method has in `answers`; keeps what it
    was told."""

    answer: bytes | httpx.Response = b""
    answers: dict[str, bytes | httpx.Response] = field(default_factory=dict)
    calls: list[dict[str, str]] = field(default_factory=list)

    def gateway(self) -> AlipayGateway:
        client = make_client(transport=httpx.MockTransport(self._handle))
        return AlipayGateway(client, alipay_account(), NOTIFY_URL, clock=lambda: NOW)

    @property
    def business(self) -> dict[str, Any]:
        """The business parameters of the last call."""
        told: dict[str, Any] = json.loads(self.calls[-1]["biz_content"])
        return told

    def _handle(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        assert request.headers["content-type"].startswith("application/x-www-form-urlencoded")
        self.calls.append(received(request.url.query.decode(), request.content.decode()))
        answer = self.answers.get(self.calls[-1]["method"], self.answer)
        if isinstance(answer, httpx.Response):
            return answer
        # As the real one labels its JSON.
        return httpx.Response(
            200, content=answer, headers={"content-type": "text/html;charset=utf-8"}
        )
