"""Webhooks as the sandbox's gateways send them, signed with its keys, made and altered at will."""

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass, replace

import httpx

from sandbox import rsa
from sandbox.alipay.notifications import signed_message
from sandbox.wechatpay.signing import SCHEME, encrypted, lines, probe_headers
from tests.fixtures.house import BASE, House

ACCEPTED = {
    "stripe": (200, b'{"received":true}'),
    "alipay": (200, b"success"),
    "wechatpay": (204, b""),
}
"""The exact answers by which each gateway takes a webhook for received."""

TELLS_OF_MONEY = ("payment_intent.succeeded", "TRADE_SUCCESS", "TRANSACTION.SUCCESS")
"""What the sandbox calls the webhook by which each gateway tells that it was paid."""

Keys = dict[str, str]

_JSON = {"Content-Type": "application/json; charset=utf-8"}


@dataclass(frozen=True)
class Notice:
    """One request to the webhook of one gateway."""

    gateway: str
    headers: dict[str, str]
    body: bytes

    def with_body(self, body: bytes) -> "Notice":
        return replace(self, body=body)

    def with_headers(self, **headers: str) -> "Notice":
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers=self.headers | given)

    async def post(self, house: House) -> httpx.Response:
        return await house.api.post(
            f"{BASE}/webhook/{self.gateway}", content=self.body, headers=self.headers
        )


def keys_of(house: House, gateway: str) -> Keys:
    """The sandbox's key material of both sides."""
    keys: Keys = json.loads((house.sandbox.folder / "keys.json").read_text())[gateway]
    return keys


def notice(
    house: House,
    gateway: str,
    number: str | None,
    word: str | None = None,
    *,
    age_seconds: int = 0,
    **changes: str,
) -> Notice:
    """A genuine one with an event id of its own, about an order.

    `word` is the event type or trade status that it tells of, that of a paid order unless given.
    A negative age is a time to come; Alipay's carry none. `changes` are to the keys and names that
    it is made with.
    """
    keys = keys_of(house, gateway) | changes
    if gateway == "alipay":
        return _alipay(keys, number, word)
    make = {"stripe": _event, "wechatpay": _notification}[gateway]
    return signed(gateway, make(keys, number, word), keys, age_seconds=age_seconds)


def signed(gateway: str, body: bytes, keys: Keys, *, age_seconds: int = 0) -> Notice:
    """Any body at all, signed as Stripe or WeChat Pay would."""
    moment = str(int(time.time()) - age_seconds)
    if gateway == "stripe":
        text = f"{moment}.".encode() + body
        mac = hmac.new(keys["webhook_secret"].encode(), text, hashlib.sha256).hexdigest()
        return Notice(gateway, {**_JSON, "Stripe-Signature": f"t={moment},v1={mac}"}, body)
    nonce = secrets.token_hex(16)
    headers = {
        "Wechatpay-Timestamp": moment,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": keys["public_key_id"],
        "Wechatpay-Signature": rsa.sign(lines(moment, nonce, body), keys["platform_private_key"]),
        "Wechatpay-Signature-Type": SCHEME,
    }
    return Notice(gateway, _JSON | headers, body)


def probe(house: House, number: str) -> Notice:
    """WeChat Pay's way of seeing whether a merchant checks signatures."""
    genuine = notice(house, "wechatpay", number)
    headers = probe_headers(genuine.body, keys_of(house, "wechatpay"))
    return replace(genuine, headers=genuine.headers | headers)


def _event(keys: Keys, number: str | None, word: str | None) -> bytes:
    metadata = {} if number is None else {"payment_id": number, "attempt": "1"}
    event = {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "type": word or "payment_intent.succeeded",
        "data": {"object": {"object": "payment_intent", "metadata": metadata}},
    }
    return json.dumps(event, indent=2).encode()


def _alipay(keys: Keys, number: str | None, word: str | None) -> Notice:
    parameters = {
        "notify_type": "trade_status_sync",
        "notify_id": secrets.token_hex(16),
        "app_id": keys["app_id"],
        "seller_id": keys["seller_id"],
        "charset": "utf-8",
        "trade_status": word or "TRADE_SUCCESS",
        "total_amount": "29.00",
        "subject": "一个月 & more = 29+0",
    }
    if number is not None:
        parameters["out_trade_no"] = number
    message = signed_message(parameters, False, keys)
    return Notice("alipay", message.headers, message.content)


def _notification(keys: Keys, number: str | None, word: str | None) -> bytes:
    resource = {
        "mchid": keys["mchid"],
        "appid": keys["appid"],
        "trade_state": word or "SUCCESS",
        "attach": '括号}and "quotes"',
    }
    if number is not None:
        resource["out_trade_no"] = number
    plain = json.dumps(resource, ensure_ascii=False).encode()
    notification = {
        "id": secrets.token_hex(16),
        "event_type": "TRANSACTION.SUCCESS",
        "resource_type": "encrypt-resource",
        "resource": encrypted(plain, "transaction", keys["apiv3_key"]),
    }
    return json.dumps(notification, ensure_ascii=False).encode()
