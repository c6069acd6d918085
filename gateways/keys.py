"""What adapters take from settings (RSA keys, addresses), and the signature two of them share.

The signature, Alipay's and WeChat Pay's, is RSASSA-PKCS1-v1_5 with SHA-256 in standard Base64; it
is deterministic.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from billing.errors import SettingError
from runtime.settings import is_loopback, read_key_text

MIN_KEY_BITS: Final = 2048


def all_set(gateway: str, values: Mapping[str, str | None]) -> bool:
    """Whether a gateway's settings are all there; `values` maps each variable to what it holds.

    Raises SettingError where only some are: half a gateway is a mistake, not a choice.
    """
    missing = [setting for setting, value in values.items() if not (value or "").strip()]
    if not missing:
        return True
    if len(missing) == len(values):
        return False
    raise SettingError(
        f"{gateway} is set up in part: {', '.join(missing)} not set;"
        " set them too, or unset the others to switch the gateway off"
    )


def read_address(value: str, setting: str) -> str:
    """A gateway's base address, without a slash at its end: https, or http on this machine.

    Raises SettingError naming the setting.
    """
    address = value.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        is_usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    is_safe = address.startswith("https://") or (
        address.startswith("http://") and is_usable and is_loopback(address)
    )
    if not is_usable or not is_safe or set(address) & set("?#@ "):
        raise SettingError(
            f"{setting}: expected an https address without a query (http on this machine only)"
        )
    return address


def load_private_key(value: str, setting: str) -> RSAPrivateKey:
    """A private key from PEM, bare Base64 or a file's path, PKCS#1 or PKCS#8.

    Raises SettingError naming the setting, never showing the key.
    """
    text = _key_text(value, setting)
    if "-----BEGIN" in text and "PRIVATE KEY-----" not in text:
        raise SettingError(
            f"{setting}: expected a private key, this is {_pem_label(text)};"
            " give the application's own private key"
        )
    try:
        if "-----BEGIN" in text:
            key = load_pem_private_key(text.encode(), password=None)
        else:
            key = load_der_private_key(_der(text, setting), password=None)
    except TypeError:
        raise SettingError(
            f"{setting}: the private key is locked with a password; give it without one"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingError(
            f"{setting}: this cannot be read as a private key;"
            " give PEM, bare Base64 or a file's path, in PKCS#1 or PKCS#8"
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise SettingError(f"{setting}: expected an RSA key, this is another kind of key")
    _check_size(key.key_size, setting)
    return key


def load_public_key(value: str, setting: str) -> RSAPublicKey:
    """A public key from PEM, bare Base64 or a file's path.

    Raises SettingError naming the setting.
    """
    text = _key_text(value, setting)
    if "-----BEGIN" in text and "PUBLIC KEY-----" not in text:
        raise SettingError(
            f"{setting}: expected a public key (`BEGIN PUBLIC KEY`), this is {_pem_label(text)}"
        )
    try:
        if "-----BEGIN" in text:
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(_der(text, setting))
    except (ValueError, UnsupportedAlgorithm):
        raise SettingError(
            f"{setting}: this cannot be read as a public key;"
            " give PEM, bare Base64 or a file's path"
        ) from None
    if not isinstance(key, RSAPublicKey):
        raise SettingError(f"{setting}: expected an RSA key, this is another kind of key")
    _check_size(key.key_size, setting)
    return key


def are_a_pair(private_key: RSAPrivateKey, public_key: RSAPublicKey) -> bool:
    return private_key.public_key().public_numbers() == public_key.public_numbers()


def sign(message: bytes, key: RSAPrivateKey) -> str:
    return base64.b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()


def is_signed_by(message: bytes, signature: str, key: RSAPublicKey) -> bool:
    """Whether `signature` is Base64 of the key owner's signature over `message`."""
    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _key_text(value: str, setting: str) -> str:
    try:
        return read_key_text(value.strip(), setting)
    except UnicodeDecodeError:
        raise SettingError(
            f"{setting}: the file is not text; convert the key to PEM or Base64"
        ) from None


def _der(text: str, setting: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SettingError(
            f"{setting}: this is neither PEM (`-----BEGIN …`) nor Base64, nor the path of a file"
            " (which begins with `/`, `./` or `~`)"
        ) from None


def _pem_label(text: str) -> str:
    label = text.partition("-----BEGIN")[2].partition("-----")[0].strip()
    return f"a {label.lower()}" if label else "something else"


def _check_size(bits: int, setting: str) -> None:
    if bits < MIN_KEY_BITS:
        raise SettingError(
            f"{setting}: the key has {bits} bits, at least {MIN_KEY_BITS} are needed"
        )
