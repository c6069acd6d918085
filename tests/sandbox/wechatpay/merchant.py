"""A merchant's server at WeChat Pay, written from the protocol's description for these tests."""

import base64
import json
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox import rsa_by_hand

NUMBER = "pay_01jd0000000000000000000001"
TRANSACTIONS = "/v3/pay/transactions"
SCHEME = "WECHATPAY2-SHA256-RSA2048"


def in_seconds(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(hours=8, seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}+08:00"


@dataclass(frozen=True)
class Told:
    """An answer: its status, its JSON (None for an empty body), and whether it is signed."""

    status: int
    fields: Any
    is_signed: bool
    headers: httpx.Headers


class Merchant:
    def __init__(self, sandbox: SandboxProcess, notify_url: str = "http://127.0.0.1:9/n") -> None:
        environment = {
            name.removeprefix("EVERBILL_WECHATPAY_"): value.replace("\\n", "\n")
            for name, value in sandbox.environment.items()
            if name.startswith("EVERBILL_WECHATPAY_")
        }
        self.mchid = environment["MCHID"]
        self.appid = environment["APPID"]
        self.serial = environment["MERCHANT_SERIAL"]
        self.private_key = environment["MERCHANT_PRIVATE_KEY"]
        self.public_key_id = environment["PUBLIC_KEY_ID"]
        self.public_key = environment["PUBLIC_KEY"]
        self.apiv3_key = environment["APIV3_KEY"]
        self.notify_url = notify_url
        self.expires = in_seconds(600)
        self._http = sandbox.control

    def sign(self, *lines: str) -> str:
        """Lines, each of them ended, signed with the merchant's key."""
        return rsa_by_hand.sign("".join(f"{line}\n" for line in lines).encode(), self.private_key)

    def headers(
        self, method: str, path: str, body: str, *, timestamp: int | None = None
    ) -> dict[str, str]:
        """Headers that sign a request; `path` with its query, as on the wire."""
        moment = str(int(time.time()) if timestamp is None else timestamp)
        nonce = secrets.token_hex(16)
        fields = {
            "mchid": self.mchid,
            "nonce_str": nonce,
            "signature": self.sign(method, path, moment, nonce, body),
            "timestamp": moment,
            "serial_no": self.serial,
        }
        given = ",".join(f'{name}="{value}"' for name, value in fields.items())
        return {
            "Accept": "application/json",
            "Authorization": f"{SCHEME} {given}",
            "Content-Type": "application/json",
            "User-Agent": "merchant/1",
            "Wechatpay-Serial": self.public_key_id,
        }

    async def call(self, method: str, path: str, body: Any = None) -> Told:
        text = "" if body is None else json.dumps(body, ensure_ascii=False)
        return await self.send(method, path, text, self.headers(method, path, text))

    async def send(self, method: str, path: str, text: str, headers: dict[str, str]) -> Told:
        answer = await self._http.request(method, path, content=text.encode(), headers=headers)
        fields = json.loads(answer.content) if answer.content else None
        return Told(
            answer.status_code,
            fields,
            self.is_signed(answer.headers, answer.content),
            answer.headers,
        )

    def is_signed(self, headers: httpx.Headers | dict[str, str], body: bytes) -> bool:
        """Whether WeChat Pay signed this body, just now, with the key we asked for."""
        given = httpx.Headers(headers)
        if given.get("Wechatpay-Serial") != self.public_key_id:
            return False
        if abs(time.time() - int(given["Wechatpay-Timestamp"])) >= 300:
            return False
        message = f"{given['Wechatpay-Timestamp']}\n{given['Wechatpay-Nonce']}\n".encode()
        return rsa_by_hand.is_signed(
            message + body + b"\n", given["Wechatpay-Signature"], self.public_key
        )

    def order(self, **changed: Any) -> dict[str, Any]:
        """The body of an order; None takes a field out."""
        body = {
            "appid": self.appid,
            "mchid": self.mchid,
            "description": "Gold 金 }",
            "out_trade_no": NUMBER,
            "notify_url": self.notify_url,
            "time_expire": self.expires,
            "amount": {"total": 2900, "currency": "CNY"},
            **changed,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def place(self, method: str = "native", **changed: Any) -> Told:
        return await self.call("POST", f"{TRANSACTIONS}/{method}", self.order(**changed))

    async def scan(self, **changed: Any) -> dict[str, Any]:
        """The next_action of a native order."""
        told = await self.place(**changed)
        assert told.status == 200, told.fields
        return {"type": "qr_code", "code_url": told.fields["code_url"]}

    async def query(self, number: str = NUMBER) -> Told:
        path = f"{TRANSACTIONS}/out-trade-no/{number}?mchid={self.mchid}"
        return await self.call("GET", path)

    async def close(self, number: str = NUMBER) -> Told:
        path = f"{TRANSACTIONS}/out-trade-no/{number}/close"
        return await self.call("POST", path, {"mchid": self.mchid})

    def decrypted(self, resource: dict[str, str]) -> dict[str, Any]:
        assert resource["algorithm"] == "AEAD_AES_256_GCM"
        plaintext = AESGCM(self.apiv3_key.encode()).decrypt(
            resource["nonce"].encode(),
            base64.b64decode(resource["ciphertext"]),
            resource["associated_data"].encode(),
        )
        fields: dict[str, Any] = json.loads(plaintext)
        return fields

    def jsapi_params(self, prepay_id: str) -> dict[str, str]:
        moment, nonce = str(int(time.time())), secrets.token_hex(16)
        package = f"prepay_id={prepay_id}"
        return {
            "appId": self.appid,
            "timeStamp": moment,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": self.sign(self.appid, moment, nonce, package),
        }

    def app_params(self, prepay_id: str) -> dict[str, str]:
        moment, nonce = str(int(time.time())), secrets.token_hex(16)
        return {
            "appid": self.appid,
            "partnerid": self.mchid,
            "prepayid": prepay_id,
            "package": "Sign=WXPay",
            "noncestr": nonce,
            "timestamp": moment,
            "sign": self.sign(self.appid, moment, nonce, prepay_id),
        }
