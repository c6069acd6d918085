"""Webhooks as the gateways would send them, signed with the keys made for the run."""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.api.conftest import STRIPE_SECRET
from tests.gateways.parties import (
    APIV3_KEY,
    KEY_ID,
    alipay_account,
    key_of,
    sign_by_hand,
    wechatpay_account,
)
from tests.gateways.wechatpay_v2 import message


@dataclass(frozen=True)
class Notice:
    """One request; `accepted` is the status and body that its gateway is to read."""

    gateway: str
    headers: dict[str, str]
    body: bytes
    accepted: tuple[int, bytes]

    def with_body(self, body: bytes) -> "Notice":
        return replace(self, body=body)

    def with_header(self, name: str, value: str) -> "Notice":
        return replace(self, headers=self.headers | {name: value})


def stripe_notice(
    number: str | None, *, age_seconds: int = 0, secret: str = STRIPE_SECRET
) -> Notice:
    metadata = {} if number is None else {"payment_id": number, "attempt": "1"}
    body = json.dumps(
        {
            "id": f"evt_{secrets.token_hex(8)}",
            "object": "event",
            "type": "payment_intent.succeeded",
            "data": {"object": {"object": "payment_intent", "metadata": metadata}},
        }
    ).encode()
    moment = int(datetime.now(UTC).timestamp()) - age_seconds
    mac = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={moment},v1={mac}", "Content-Type": "application/json"}
    return Notice("stripe", headers, body, (200, b'{"received":true}'))


def alipay_notice(number: str | None, *, owner: str = "gateway") -> Notice:
    account = alipay_account()
    fields = {
        "notify_type": "trade_status_sync",
        "notify_id": secrets.token_hex(16),
        "app_id": account.app_id,
        "seller_id": account.seller_id,
        "charset": "utf-8",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "29.00",
    }
    if number is not None:
        fields["out_trade_no"] = number
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
    fields |= {"sign_type": "RSA2", "sign": sign_by_hand(text.encode(), key_of(owner))}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Notice("alipay", headers, urlencode(fields).encode(), (200, b"success"))


def wechatpay_notice(number: str | None, *, age_seconds: int = 0, owner: str = "gateway") -> Notice:
    account = wechatpay_account()
    resource = {"mchid": account.mchid, "appid": account.appid, "trade_state": "SUCCESS"}
    if number is not None:
        resource["out_trade_no"] = number
    nonce = secrets.token_hex(6)
    sealed = AESGCM(APIV3_KEY).encrypt(
        nonce.encode(), json.dumps(resource).encode(), b"transaction"
    )
    body = json.dumps(
        {
            "id": secrets.token_hex(16),
            "event_type": "TRANSACTION.SUCCESS",
            "resource_type": "encrypt-resource",
            "resource": {
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(sealed).decode(),
                "associated_data": "transaction",
                "nonce": nonce,
            },
        }
    ).encode()
    moment = str(int(datetime.now(UTC).timestamp()) - age_seconds)
    signed = f"{moment}\n{nonce}\n".encode() + body + b"\n"
    headers = {
        "Wechatpay-Timestamp": moment,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": KEY_ID,
        "Wechatpay-Signature": sign_by_hand(signed, key_of(owner)),
        "Content-Type": "application/json",
    }
    return Notice("wechatpay", headers, body, (204, b""))


def deduct_notice(number: str) -> Notice:
    """WeChat Pay's message that a charge by contract was paid, in its older interface."""
    account = wechatpay_account()
    fields = {
        "return_code": "SUCCESS",
        "result_code": "SUCCESS",
        "appid": account.appid,
        "mch_id": account.mchid,
        "nonce_str": secrets.token_hex(16),
        "out_trade_no": number,
        "total_fee": "2900",
    }
    accepted = b"<xml><return_code><![CDATA[SUCCESS]]></return_code></xml>"
    headers = {"Content-Type": "text/xml"}
    return Notice("wechatpay", headers, message(fields), (200, accepted))
