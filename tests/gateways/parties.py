"""Both sides of a gateway call, for tests: keys made for the run, accounts, orders and signatures.

Nothing here shares code with the adapters: signatures are computed from RFC 8017 by hand.
"""

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from billing.payment import PaymentMethod
from gateways.alipay.requests import Account as AlipayAccount
from gateways.gateway import Order
from gateways.wechatpay.requests import Account as WechatpayAccount
from gateways.wechatpay.requests import Contracting

NOW = datetime(2026, 11, 23, 4, 30, 15, tzinfo=UTC)
"""12:30:15 in Beijing."""

EXPIRES_AT = datetime(2026, 11, 23, 17, 0, 0, 750_000, tzinfo=UTC)
"""01:00:00 of the next day in Beijing."""

NUMBER = "pay_01jd9q8x1zf6w8v7r3m2k4n5p6"
NOTIFY_URL = "https://pay.example.com/api/v1/payment/webhook/some"
APIV3_KEY = b"0123456789abcdef0123456789ABCDEF"
APIV2_KEY = b"192006250b4c09247ec02edce69f6a2d"
KEY_ID = "PUB_KEY_ID_0114232134912410000000000000"
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


@cache
def key_of(owner: str) -> RSAPrivateKey:
    """The key pair of `merchant`, `gateway` or whoever else, made once a run."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def sign_by_hand(message: bytes, key: RSAPrivateKey) -> str:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2.1 and 9.2; by the Chinese remainder theorem of
    5.1.2), in Base64."""
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    length = (modulus.bit_length() + 7) // 8
    digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
    padded = b"\0\1" + b"\xff" * (length - len(digest) - 3) + b"\0" + digest
    message_representative = int.from_bytes(padded)
    first = pow(message_representative, numbers.dmp1, numbers.p)
    second = pow(message_representative, numbers.dmq1, numbers.q)
    signature = second + numbers.q * ((first - second) * numbers.iqmp % numbers.p)
    return base64.b64encode(signature.to_bytes(length)).decode()


def make_order(method: PaymentMethod, **changes: Any) -> Order:
    order = Order(
        payment_id=NUMBER,
        attempt=1,
        number=NUMBER,
        amount_minor=2905,
        currency="CNY",
        method=method,
        description="Gold membership",
        user_id="user_1",
        created_at=NOW,
        expires_at=EXPIRES_AT,
    )
    return replace(order, **changes)


@cache
def alipay_account() -> AlipayAccount:
    return AlipayAccount(
        app_id="2021000000000001",
        seller_id="2088000000000001",
        private_key=key_of("merchant"),
        alipay_public_key=key_of("gateway").public_key(),
        gateway_url="http://127.0.0.1:9/gateway.do",
    )


@cache
def wechatpay_account() -> WechatpayAccount:
    return WechatpayAccount(
        mchid="1900000001",
        appid="wx0000000000000001",
        merchant_serial="5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
        private_key=key_of("merchant"),
        public_key_id=KEY_ID,
        public_keys={KEY_ID: key_of("gateway").public_key()},
        apiv3_key=APIV3_KEY,
        api_base="http://127.0.0.1:9",
        contracting=Contracting(APIV2_KEY, "12535"),
    )
