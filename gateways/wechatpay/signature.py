"""WeChat Pay APIv3 signatures: on requests, on answers and notifications, and for the payer's app.

Every signed text is a few lines, each ended by a line feed, the last one too.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from gateways.keys import is_signed_by, sign

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
WINDOW_SECONDS: Final = 300
"""How far a signed timestamp may be from our clock, either way (exclusive)."""

SIGNATURE_HEADER: Final = "wechatpay-signature"


class SignatureRefused(Exception):
    """What is wrong with a signature or what it stands on, in words for a log."""


def signed_text(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def authorization(
    *,
    mchid: str,
    serial: str,
    key: RSAPrivateKey,
    method: str,
    raw_path: bytes,
    body: bytes,
    timestamp: int,
    nonce: str,
) -> str:
    """The Authorization header of a request.

    `raw_path` is the path and query exactly as on the wire, `body` the bytes sent (empty for GET),
    `timestamp` in seconds, `serial` that of the merchant's API certificate.
    """
    signature = sign(
        signed_text(method.encode(), raw_path, str(timestamp).encode(), nonce.encode(), body),
        key,
    )
    return (
        f'{SCHEME} mchid="{mchid}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{serial}"'
    )


def check_signature(
    headers: Mapping[str, str],
    body: bytes,
    keys: Mapping[str, RSAPublicKey],
    now: datetime,
) -> None:
    """Check that WeChat Pay signed these bytes within five minutes of `now`.

    `headers` finds lower-case names; `keys` maps the ids that `Wechatpay-Serial` may name. Raises
    SignatureRefused.
    """
    timestamp = headers.get("wechatpay-timestamp", "")
    nonce = headers.get("wechatpay-nonce", "")
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        raise SignatureRefused("the signature type is not ours")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureRefused("there is no timestamp in seconds")
    distance = int(now.timestamp()) - int(timestamp)
    if abs(distance) >= WINDOW_SECONDS:
        raise SignatureRefused(
            f"its timestamp is {abs(distance)} s {'behind' if distance > 0 else 'ahead of'} our"
            " clock; is this machine's clock right?"
        )
    key = keys.get(headers.get("wechatpay-serial", ""))
    if key is None:
        raise SignatureRefused("it names a key that is not ours")
    text = signed_text(timestamp.encode(), nonce.encode(errors="replace"), body)
    if not is_signed_by(text, headers.get(SIGNATURE_HEADER, ""), key):
        raise SignatureRefused("the signature is not WeChat Pay's")


def jsapi_parameters(
    *, appid: str, prepay_id: str, key: RSAPrivateKey, timestamp: int, nonce: str
) -> dict[str, str]:
    """What `WeixinJSBridge` or a mini-program's `requestPayment` takes; signType is not signed."""
    package = f"prepay_id={prepay_id}"
    lines = (appid, str(timestamp), nonce, package)
    return {
        "appId": appid,
        "timeStamp": str(timestamp),
        "nonceStr": nonce,
        "package": package,
        "signType": "RSA",
        "paySign": sign(signed_text(*(line.encode() for line in lines)), key),
    }


def app_parameters(
    *, appid: str, mchid: str, prepay_id: str, key: RSAPrivateKey, timestamp: int, nonce: str
) -> dict[str, str]:
    """What the mobile SDK takes; unlike JSAPI it signs the bare prepay_id."""
    lines = (appid, str(timestamp), nonce, prepay_id)
    return {
        "appid": appid,
        "partnerid": mchid,
        "prepayid": prepay_id,
        "package": "Sign=WXPay",
        "noncestr": nonce,
        "timestamp": str(timestamp),
        "sign": sign(signed_text(*(line.encode() for line in lines)), key),
    }
