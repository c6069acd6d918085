"""A merchant's server at Alipay, written from the protocol's description for these tests."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

import httpx

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox import rsa_by_hand

NUMBER = "pay_01jd0000000000000000000001"


def beijing(instant: datetime) -> str:
    return (instant.astimezone(UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")


def in_seconds(seconds: float) -> str:
    return beijing(datetime.now(UTC) + timedelta(seconds=seconds))


def terms(product_code: str = "QR_CODE_OFFLINE", **changed: Any) -> dict[str, Any]:
    """The business parameters of an order; None takes one out."""
    order = {
        "out_trade_no": NUMBER,
        "total_amount": "29.00",
        "subject": "Gold for a month",
        "product_code": product_code,
        "time_expire": in_seconds(600),
        **changed,
    }
    return {name: value for name, value in order.items() if value is not None}


@dataclass(frozen=True)
class Told:
    """An answer: the node, the whole text, and whether `sign` signs the node as it stands."""

    node: dict[str, Any]
    text: str
    is_signed: bool
    content_type: str


class Merchant:
    def __init__(self, sandbox: SandboxProcess, notify_url: str | None = None) -> None:
        environment = {
            name.removeprefix("EVERBILL_ALIPAY_"): value.replace("\\n", "\n")
            for name, value in sandbox.environment.items()
            if name.startswith("EVERBILL_ALIPAY_")
        }
        self.app_id = environment["APP_ID"]
        self.seller_id = environment["SELLER_ID"]
        self.private_key = environment["APP_PRIVATE_KEY"]
        self.alipay_key = environment["ALIPAY_PUBLIC_KEY"]
        self.gateway = environment["GATEWAY_URL"]
        self.notify_url = notify_url
        self._http = sandbox.control

    def parameters(
        self, method: str, business: dict[str, Any] | str, **changed: str | None
    ) -> dict[str, str]:
        """Signed parameters. What is `changed` is changed before signing; None takes it out."""
        wanted = {
            "app_id": self.app_id,
            "method": method,
            "charset": "utf-8",
            "format": "JSON",
            "sign_type": "RSA2",
            "timestamp": beijing(datetime.now(UTC)),
            "version": "1.0",
            "notify_url": self.notify_url,
            "biz_content": business
            if isinstance(business, str)
            else json.dumps(business, ensure_ascii=False),
            **changed,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        content = "&".join(f"{name}={given[name]}" for name in sorted(given))
        return given | {"sign": rsa_by_hand.sign(content.encode(), self.private_key)}

    def url(self, method: str, business: dict[str, Any], **changed: str | None) -> str:
        """A signed page for a browser."""
        return f"{self.gateway}?{urlencode(self.parameters(method, business, **changed))}"

    async def call(
        self, method: str, business: dict[str, Any] | str, **changed: str | None
    ) -> Told:
        return await self.send(self.parameters(method, business, **changed))

    async def send(
        self, parameters: dict[str, str], layout: Literal["split", "form", "query"] = "split"
    ) -> Told:
        """The three layouts: common parameters in the query, all in the form, all in the query."""
        form = {"biz_content": parameters.get("biz_content", "")}
        common = {name: value for name, value in parameters.items() if name != "biz_content"}
        if layout == "split":
            answer = await self._http.post(self.gateway, params=common, data=form)
        elif layout == "form":
            answer = await self._http.post(self.gateway, data=parameters)
        else:
            answer = await self._http.get(self.gateway, params=parameters)
        assert answer.status_code == 200
        return self.read(answer)

    def read(self, answer: httpx.Response) -> Told:
        text = answer.content.decode()
        whole = json.loads(text)
        node = next(name for name in whole if name.endswith("_response"))
        start = text.index(f'"{node}":') + len(node) + 3
        _, end = json.JSONDecoder().raw_decode(text, start)
        is_signed = "sign" in whole and rsa_by_hand.is_signed(
            text[start:end].encode(), whole["sign"], self.alipay_key
        )
        return Told(whole[node], text, is_signed, answer.headers["Content-Type"])

    def read_notification(self, body: bytes) -> tuple[dict[str, str], bool]:
        """The parameters of a notification or a return URL's query, and whether they are signed."""
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
        given = dict(pairs)
        assert len(given) == len(pairs)
        content = "&".join(
            f"{name}={value}"
            for name, value in sorted(given.items())
            if value != "" and name not in ("sign", "sign_type")
        )
        return given, rsa_by_hand.is_signed(content.encode(), given["sign"], self.alipay_key)

    async def precreate(self, **changed: Any) -> Told:
        return await self.call("alipay.trade.precreate", terms(**changed))

    async def query(self, **business: Any) -> Told:
        return await self.call("alipay.trade.query", business or {"out_trade_no": NUMBER})
