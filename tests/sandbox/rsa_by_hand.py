"""RSASSA-PKCS1-v1_5 with SHA-256 by integer arithmetic (RFC 8017, sections 8.2 and 9.2), so that
signatures are made and checked without the code under test or its library's own padding."""

import base64
import hashlib
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")


def sign(content: bytes, private_pem: str) -> str:
    key = serialization.load_pem_private_key(private_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    modulus = key.public_key().public_numbers().n
    signature = pow(_encoded(content, key.key_size), key.private_numbers().d, modulus)
    return base64.b64encode(signature.to_bytes(key.key_size // 8)).decode()


def is_signed(content: bytes, signature: str, public_key: str) -> bool:
    """`public_key` is PEM or bare Base64."""
    if "-----" in public_key:
        key = serialization.load_pem_public_key(public_key.encode())
    else:
        key = serialization.load_der_public_key(base64.b64decode(public_key))
    assert isinstance(key, rsa.RSAPublicKey)
    numbers = key.public_numbers()
    number = int.from_bytes(base64.b64decode(signature, validate=True))
    return pow(number, numbers.e, numbers.n) == _encoded(content, key.key_size)


def _encoded(content: bytes, bits: int) -> int:
    digest = _SHA256_INFO + hashlib.sha256(content).digest()
    padding = b"\xff" * (bits // 8 - len(digest) - 3)
    return int.from_bytes(b"\x00\x01" + padding + b"\x00" + digest)
