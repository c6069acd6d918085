"""RSASSA-PKCS1-v1_5 with SHA-256 over PEM keys: Alipay's RSA2, and WeChat Pay's signatures."""

import base64
import binascii
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_BITS: Final = 2048


def make_key_pair() -> tuple[str, str]:
    """A private key (PKCS#8) and its public key (SubjectPublicKeyInfo), both PEM."""
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    private_pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_pem = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private_pem.decode(), public_pem.decode()


def sign(content: bytes, private_pem: str) -> str:
    """The signature in standard Base64 without line breaks."""
    signature = _private_key(private_pem).sign(content, padding.PKCS1v15(), hashes.SHA256())
    return base64.b64encode(signature).decode()


def is_signed(content: bytes, signature: str, public_pem: str) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
        _public_key(public_pem).verify(raw, content, padding.PKCS1v15(), hashes.SHA256())
    except (binascii.Error, InvalidSignature, ValueError):
        return False
    return True


def bare(pem: str) -> str:
    """The Base64 between a PEM's first and last line, in one line, as consoles show keys."""
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))


@lru_cache
def _private_key(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@lru_cache
def _public_key(pem: str) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return key
