"""What Temporal keeps of us is unreadable without our keys, and readable with any of them."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from billing.errors import SettingError
from runtime.cipher import Cipher
from runtime.codec import ENCODING, EncryptionCodec
from runtime.settings import EncryptionKeys

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)


def codec(**keys: bytes) -> EncryptionCodec:
    return EncryptionCodec(Cipher(EncryptionKeys(keys=keys)))


PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"openid":"o-1"}')


@given(data=st.binary(max_size=300), name=st.text(max_size=20))
async def test_round_trip(data: bytes, name: str) -> None:
    payload = Payload(metadata={"encoding": b"json/plain", "n": name.encode()}, data=data)
    subject = codec(a=NEW)
    [sealed] = await subject.encode([payload])
    assert sealed.metadata["encoding"] == ENCODING
    assert await subject.decode([sealed]) == [payload]


async def test_the_same_text_never_looks_the_same() -> None:
    first, second = await codec(a=NEW).encode([PLAIN, PLAIN])
    assert first.data != second.data
    assert b"o-1" not in first.SerializeToString()


async def test_what_we_did_not_encrypt_passes_through() -> None:
    assert await codec(a=NEW).decode([PLAIN]) == [PLAIN]


async def test_rotation_reads_old_payloads_and_writes_new_ones() -> None:
    [old] = await codec(old=OLD).encode([PLAIN])
    rotated = codec(new=NEW, old=OLD)
    assert await rotated.decode([old]) == [PLAIN]
    [fresh] = await rotated.encode([PLAIN])
    assert fresh.metadata["encryption-key-id"] == b"new"


async def test_a_key_we_lack_is_named() -> None:
    [old] = await codec(old=OLD).encode([PLAIN])
    with pytest.raises(SettingError, match="EVERBILL_ENCRYPTION_KEYS has no key b'old'"):
        await codec(new=NEW).decode([old])


@pytest.mark.parametrize("place", [0, 5, 20, -1])
async def test_an_altered_payload_is_refused(place: int) -> None:
    subject = codec(old=OLD)
    [sealed] = await subject.encode([PLAIN])
    data = bytearray(sealed.data)
    data[place] ^= 1
    with pytest.raises(SettingError):
        await subject.decode([Payload(metadata=sealed.metadata, data=bytes(data))])


def test_a_sealed_text_cannot_be_moved_to_another_place() -> None:
    cipher = Cipher(EncryptionKeys(keys={"a": NEW}))
    with pytest.raises(SettingError):
        cipher.open(cipher.seal(b"x", "payments.next_action"), "claims.answer")


@pytest.mark.parametrize("text", ["", "a", "a:xx", ":AAAA", "a:AAAA,b"])
def test_malformed_keys_are_refused_by_name(text: str) -> None:
    with pytest.raises(SettingError, match="EVERBILL_ENCRYPTION_KEYS"):
        EncryptionKeys.parse(text)
