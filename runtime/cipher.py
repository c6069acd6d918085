"""AES-256-GCM with a key id, for Temporal payloads and encrypted columns alike."""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from billing.errors import SettingError
from runtime.settings import EncryptionKeys

_NONCE_BYTES: Final = 12


class Cipher:
    """Encrypts with the first key, decrypts with any.

    A sealed text is `<key id>\\n`, a 96-bit random nonce, the ciphertext and its tag. The purpose
    is authenticated with it, so that a sealed text cannot be moved to another place.
    """

    def __init__(self, keys: EncryptionKeys) -> None:
        self.active_key_id = keys.active_id
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.keys.items()}

    def seal(self, plaintext: bytes, purpose: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self.active_key_id].encrypt(nonce, plaintext, purpose.encode())
        return self.active_key_id.encode() + b"\n" + nonce + sealed

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Raises SettingError where we lack the key, or the text is not what was sealed."""
        key_id, _, rest = sealed.partition(b"\n")
        cipher = self._ciphers.get(key_id.decode(errors="replace"))
        if cipher is None:
            raise SettingError(
                f"EVERBILL_ENCRYPTION_KEYS has no key {key_id[:32]!r}, needed to read {purpose};"
                " add it behind the others"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], purpose.encode())
        except InvalidTag:
            raise SettingError(
                f"EVERBILL_ENCRYPTION_KEYS: key {key_id.decode()} does not open {purpose};"
                " it is another key under the same id, or the data was altered"
            ) from None
