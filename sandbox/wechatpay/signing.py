"""What WeChat Pay APIv3 signs and encrypts, byte for byte."""

import base64
import secrets
import time
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sandbox import rsa
from sandbox.core import Keys

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
PROBE_PREFIX: Final = "WECHATPAY/SIGNTEST/"


def lines(*parts: str | bytes) -> bytes:
    """Each part on a line of its own, the last one ended as well."""
    return b"".join((part.encode() if isinstance(part, str) else part) + b"\n" for part in parts)


def request_message(method: str, raw_path: bytes, timestamp: str, nonce: str, body: bytes) -> bytes:
    """`raw_path` with its query, as on the wire."""
    return lines(method, raw_path, timestamp, nonce, body)


def jsapi_message(params: dict[str, str]) -> bytes:
    """What paySign signs of `{appId, timeStamp, nonceStr, package}`."""
    return lines(params["appId"], params["timeStamp"], params["nonceStr"], params["package"])


def app_message(params: dict[str, str]) -> bytes:
    """What sign signs of `{appid, timestamp, noncestr, prepayid}`: the bare prepay id."""
    return lines(params["appid"], params["timestamp"], params["noncestr"], params["prepayid"])


def signed_headers(body: bytes, keys: Keys, *, forged: bool = False) -> dict[str, str]:
    """The headers that sign an answer or a notification at this moment; forged, they sign
    another body."""
    timestamp, nonce = str(int(time.time())), secrets.token_hex(16)
    message = lines(timestamp, nonce, body + b" " if forged else body)
    return {
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": keys["public_key_id"],
        "Wechatpay-Signature": rsa.sign(message, keys["platform_private_key"]),
        "Wechatpay-Signature-Type": SCHEME,
        "Wechatpay-Timestamp": timestamp,
    }


def probe_headers(body: bytes, keys: Keys) -> dict[str, str]:
    """Headers with a signature that must not verify: WeChat Pay probes whether merchants check."""
    noise = base64.b64encode(secrets.token_bytes(256)).decode()
    return signed_headers(body, keys) | {"Wechatpay-Signature": f"{PROBE_PREFIX}{noise}"}


def encrypted(plaintext: bytes, original_type: str, apiv3_key: str) -> dict[str, str]:
    """A notification's `resource`: AEAD_AES_256_GCM, the tag behind the ciphertext."""
    nonce = secrets.token_hex(6)
    sealed = AESGCM(apiv3_key.encode()).encrypt(nonce.encode(), plaintext, original_type.encode())
    return {
        "original_type": original_type,
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(sealed).decode(),
        "associated_data": original_type,
        "nonce": nonce,
    }
