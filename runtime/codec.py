"""The codec that keeps Temporal payloads unreadable to whoever lacks our keys."""

from collections.abc import Sequence
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from runtime.cipher import Cipher

ENCODING: Final = b"binary/encrypted"
_PURPOSE: Final = "temporal payload"


class EncryptionCodec(PayloadCodec):
    """Encrypts whole payloads, their metadata included; passes through what it did not encrypt."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={
                    "encoding": ENCODING,
                    "encryption-key-id": self._cipher.active_key_id.encode(),
                },
                data=self._cipher.seal(payload.SerializeToString(), _PURPOSE),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises SettingError where a key that is needed is not among ours."""
        return [
            Payload.FromString(self._cipher.open(payload.data, _PURPOSE))
            if payload.metadata.get("encoding") == ENCODING
            else payload
            for payload in payloads
        ]
