"""The other side of WeChat Pay's older interface, for tests: written by hand from its rules."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateways.mandates import Mandate
from gateways.transport import make_client
from gateways.wechatpay.adapter import WechatpayGateway
from gateways.wechatpay.mandates import WechatpayMandates
from tests.gateways.parties import APIV2_KEY, NOTIFY_URL, NOW, wechatpay_account
from tests.gateways.wechatpay_server import NONCE

METHOD_ID = "pm_01jd9q8x1zf6w8v7r3m2k4n5p6"
CODE = "pm01jd9q8x1zf6w8v7r3m2k4n5p6"
CONTRACT = "201509160000028648"
SIGNED = Mandate(METHOD_ID, CODE, reference=CONTRACT)
UNSIGNED = Mandate(METHOD_ID, CODE)
OURS = {
    "return_code": "SUCCESS",
    "result_code": "SUCCESS",
    "appid": "wx0000000000000001",
    "mch_id": "1900000001",
}
FAIL = OURS | {"result_code": "FAIL", "err_code_des": "words"}
_FIELD = re.compile(r"<(\w+)><!\[CDATA\[(.*?)\]\]></\1>", re.DOTALL)


def signature_of(fields: dict[str, str], key: bytes = APIV2_KEY) -> str:
    parts = [f"{name}={fields[name]}" for name in sorted(fields) if name != "sign" and fields[name]]
    text = "&".join([*parts, f"key={key.decode()}"])
    return hashlib.md5(text.encode()).hexdigest().upper()  # noqa: S324


def message(fields: dict[str, Any], *, key: bytes | None = APIV2_KEY) -> bytes:
    """The XML of these fields, None left out; signed, unless there is no key."""
    told = {name: str(value) for name, value in fields.items() if value is not None}
    if key is not None and "sign" not in told:
        told["sign"] = signature_of(told, key)
    return (
        "<xml>"
        + "".join(f"<{name}><![CDATA[{value}]]></{name}>\n" for name, value in told.items())
        + "</xml>"
    ).encode()


def fields_of(body: bytes) -> dict[str, str]:
    """What a message of ours says."""
    text = body.decode()
    assert text.startswith("<xml>")
    assert text.endswith("</xml>")
    assert _FIELD.sub("", text) == "<xml></xml>"
    return dict(_FIELD.findall(text))


@dataclass
class Host:
    """Answers each path with its next answer, the last of them for good."""

    answers: dict[str, list[httpx.Response]]
    requests: list[httpx.Request] = field(default_factory=list)

    def gateway(self) -> WechatpayGateway:
        client = make_client(transport=httpx.MockTransport(self.handle))
        return WechatpayGateway(
            client, wechatpay_account(), NOTIFY_URL, clock=lambda: NOW, nonce=lambda: NONCE
        )

    def mandates(self) -> WechatpayMandates:
        mandates = self.gateway().mandates
        assert isinstance(mandates, WechatpayMandates)
        return mandates

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        waiting = self.answers[request.url.path]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]

    @property
    def fields(self) -> dict[str, str]:
        """What the last call said, once it was found to be signed with our key."""
        sent = fields_of(self.requests[-1].content)
        assert self.requests[-1].headers["content-type"].startswith("text/xml")
        assert sent.pop("sign") == signature_of(sent)
        assert (sent.pop("appid"), sent.pop("mch_id")) == ("wx0000000000000001", "1900000001")
        return sent


def xml(fields: dict[str, Any], *, status: int = 200, **changes: Any) -> httpx.Response:
    return httpx.Response(status, content=message({**fields, **changes}))


def refusal(code: str) -> httpx.Response:
    return xml(FAIL, err_code=code)
