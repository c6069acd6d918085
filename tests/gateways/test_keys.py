"""Keys as people paste them, and the message each mistake gets."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from billing.errors import SettingError
from gateways.keys import (
    all_set,
    is_signed_by,
    load_private_key,
    load_public_key,
    read_address,
    sign,
)
from tests.gateways.parties import key_of, sign_by_hand

_PRIVATE_FORMATS = [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8]
_PUBLIC_FORMATS = [PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo]


def _private(form: PrivateFormat, encoding: Encoding = Encoding.PEM) -> bytes:
    return key_of("merchant").private_bytes(encoding, form, NoEncryption())


def _public(form: PublicFormat, encoding: Encoding = Encoding.PEM) -> bytes:
    return key_of("merchant").public_key().public_bytes(encoding, form)


@pytest.mark.parametrize("form", _PRIVATE_FORMATS)
def test_a_private_key_is_read_in_every_form_people_paste(
    form: PrivateFormat, tmp_path: Path
) -> None:
    pem, bare = _private(form).decode(), base64.b64encode(_private(form, Encoding.DER)).decode()
    wrapped = "\n".join(bare[at : at + 64] for at in range(0, len(bare), 64))
    for name, text in (("key.pem", pem), ("key.txt", bare)):
        (tmp_path / name).write_text(text)
    pasted = [pem, pem.replace("\n", "\\n"), bare, wrapped, f"  {bare}\n"]
    for value in [*pasted, str(tmp_path / "key.pem"), str(tmp_path / "key.txt")]:
        key = load_private_key(value, "SETTING")
        assert key.private_numbers() == key_of("merchant").private_numbers()


@pytest.mark.parametrize("form", _PUBLIC_FORMATS)
def test_a_public_key_is_read_in_every_form_people_paste(
    form: PublicFormat, tmp_path: Path
) -> None:
    pem, bare = _public(form).decode(), base64.b64encode(_public(form, Encoding.DER)).decode()
    (tmp_path / "key.pem").write_text(pem)
    for value in [pem, pem.replace("\n", "\\n"), bare, str(tmp_path / "key.pem")]:
        key = load_public_key(value, "SETTING")
        assert key.public_numbers() == key_of("merchant").public_key().public_numbers()


def test_a_key_that_cannot_be_used_is_refused_by_name_and_never_shown(tmp_path: Path) -> None:
    binary = tmp_path / "key.der"
    binary.write_bytes(_private(PrivateFormat.PKCS8, Encoding.DER))
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it is refused
    other_kind = ec.generate_private_key(ec.SECP256R1())
    locked = key_of("merchant").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    pem = _private(PrivateFormat.PKCS8).decode()
    mistakes = {
        "neither PEM": "not a key!",
        "cannot be read as a private key": base64.b64encode(b"other bytes").decode(),
        "is a public key": _public(PublicFormat.SubjectPublicKeyInfo).decode(),
        "password": locked.decode(),
        "another kind": _pem(other_kind),
        "at least 2048": _pem(small),
        "cannot read": str(tmp_path / "absent.pem"),
        "not text": str(binary),
        "PKCS#1 or PKCS#8": pem[: len(pem) // 2] + "-----END PRIVATE KEY-----",
    }
    for words, value in mistakes.items():
        with pytest.raises(SettingError, match=words) as refused:
            load_private_key(value, "EVERBILL_SOME_KEY")
        assert str(refused.value).startswith("EVERBILL_SOME_KEY")
        assert "MII" not in str(refused.value)


def test_a_private_key_in_place_of_a_public_one_is_refused() -> None:
    with pytest.raises(SettingError, match=r"EVERBILL_KEY: expected a public key.*private key"):
        load_public_key(_private(PrivateFormat.PKCS8).decode(), "EVERBILL_KEY")
    with pytest.raises(SettingError, match="EVERBILL_KEY: this cannot be read as a public key"):
        load_public_key(base64.b64encode(b"other bytes").decode(), "EVERBILL_KEY")


@pytest.mark.parametrize("message", [b"", b"a=1&b=2", "汉字 \0\n".encode(), b"x" * 100_000])
def test_signatures_are_those_of_rfc_8017(message: bytes) -> None:
    signature = sign(message, key_of("merchant"))
    assert signature == sign_by_hand(message, key_of("merchant"))
    assert is_signed_by(message, signature, key_of("merchant").public_key())
    assert not is_signed_by(message + b" ", signature, key_of("merchant").public_key())
    assert not is_signed_by(message, signature, key_of("stranger").public_key())


@pytest.mark.parametrize("signature", ["", "=", "A", "汉字", "AAAA", "\0", "A" * 100_000, "a b=="])
def test_a_malformed_signature_is_only_a_wrong_one(signature: str) -> None:
    assert not is_signed_by(b"message", signature, key_of("merchant").public_key())


def test_a_gateway_is_on_when_all_is_set_and_off_when_nothing_is() -> None:
    assert all_set("Some", {"A": "1", "B": "2"})
    assert not all_set("Some", {"A": None, "B": " "})
    with pytest.raises(SettingError, match=r"Some is set up in part: B, C not set"):
        all_set("Some", {"A": "1", "B": None, "C": ""})


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    "address", ["https://openapi.alipay.com/gateway.do", "http://127.0.0.1:8001", "http://[::1]:1"]
)
def test_a_gateways_address_is_https_or_on_this_machine(address: str) -> None:
    assert read_address(f" {address}/ ", "SETTING") == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "openapi.alipay.com",
        "http://openapi.alipay.com/gateway.do",
        "ftp://127.0.0.1/",
        "https://",
        "https://host:99999",
        "https://host/?a=b",
        "https://user@host/",
        "https://[host/",
    ],
)
def test_any_other_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(SettingError, match=r"^EVERBILL_SOME_URL: expected an https address"):
        read_address(address, "EVERBILL_SOME_URL")
