"""The older interface's signature and XML: known answers, any content, and nothing but its own."""

import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.wechatpay import v2

_KEY = b"192006250b4c09247ec02edce69f6a2d"
_SAMPLE = {
    "appid": "wxd930ea5d5a258f4f",
    "mch_id": "10000100",
    "device_info": "1000",
    "body": "test",
    "nonce_str": "ibuaiVcKdpRxkhJA",
}
"""WeChat Pay's own example of the signature, with the key and both results."""
_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name != "sign")
_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=40
).map(lambda text: "".join(c for c in text if ord(c) & 0xFFFE != 0xFFFE))
_MESSAGES = st.dictionaries(_NAMES, _TEXT, max_size=8)


def by_hand(fields: dict[str, str], key: bytes) -> str:
    lines = []
    for name in sorted(fields, key=lambda name: name.encode()):
        if fields[name] != "" and name != "sign":
            lines.append(f"{name}={fields[name]}")
    return "&".join([*lines, f"key={key.decode()}"])


def test_the_documented_example() -> None:
    assert v2.md5_signature(_SAMPLE, _KEY) == "9A0A8659F005D6984697E2CA0A9CF3B7"
    assert v2.hmac_signature(_SAMPLE, _KEY) == (
        "6A9AE1657590FD6257D693A078E1C3E4BB6BA4DC30B23E0EE2496E54170DACD6"
    )


def test_a_message_is_of_the_key_to_the_letter() -> None:
    told = _SAMPLE | {"sign": "9A0A8659F005D6984697E2CA0A9CF3B7", "attach": ""}
    assert v2.is_signed(told, _KEY)
    assert not v2.is_signed(told | {"sign": told["sign"].lower()}, _KEY)


@given(_MESSAGES)
def test_any_message_is_written_read_and_signed(fields: dict[str, str]) -> None:
    text = by_hand(fields, _KEY).encode()
    assert v2.md5_signature(fields, _KEY) == hashlib.md5(text).hexdigest().upper()  # noqa: S324
    other = hmac.new(_KEY, text, "sha256").hexdigest().upper()
    assert v2.hmac_signature(fields, _KEY) == other
    sent = v2.signed(fields, _KEY)
    read = v2.read_xml(v2.write_xml(sent))
    assert read == sent
    assert v2.is_signed(read, _KEY)
    assert v2.is_signed({**fields, "sign": other}, _KEY)
    assert not v2.is_signed(read, b"0" * 32)


@given(_MESSAGES, _NAMES, st.text("ab\u4e2d", min_size=1, max_size=5))
def test_no_field_can_be_changed(fields: dict[str, str], name: str, value: str) -> None:
    sent = v2.signed(fields, _KEY)
    if sent.get(name) != value:
        assert not v2.is_signed(sent | {name: value}, _KEY)
    for gone in set(sent) - {"sign"}:
        assert not v2.is_signed({k: kept for k, kept in sent.items() if k != gone}, _KEY)


@pytest.mark.parametrize("sign", ["", "x", "0" * 32, "0" * 64, "签" * 32])
def test_a_signature_that_is_none(sign: str) -> None:
    assert not v2.is_signed(_SAMPLE | {"sign": sign}, _KEY)
    assert not v2.is_signed(_SAMPLE, _KEY)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for content in (body, b"<xml>" + body + b"</xml>", b"<xml><a>" + body + b"</a></xml>"):
        try:
            fields = v2.read_xml(content)
        except v2.MalformedXml:
            continue
        assert all(isinstance(value, str) for value in fields.values())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<xml>",
        b"<xml/>x",
        b"<other><a>1</a></other>",
        b'<xml a="1"/>',
        b'<xml><a b="1">1</a></xml>',
        b"<xml><a><b>1</b></a></xml>",
        b"<xml><a>1</a><a>1</a></xml>",
        b"<xml>words</xml>",
        b"<xml><a:b>1</a:b></xml>",
        b"<xml><?php echo 1 ?><a>1</a></xml>",
        b"<!DOCTYPE xml><xml><a>1</a></xml>",
        b'<!DOCTYPE xml [<!ENTITY e SYSTEM "file:///etc/hostname">]><xml><a>&e;</a></xml>',
        b'<!DOCTYPE xml [<!ENTITY % e SYSTEM "http://127.0.0.1:9/x">%e;]><xml><a>1</a></xml>',
        b'<!DOCTYPE xml [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><xml><a>&b;</a></xml>',
        b"<xml><a>&e;</a></xml>",
        "<xml><a>é</a></xml>".encode("latin-1"),
        "<?xml version='1.0' encoding='UTF-16'?><xml><a>1</a></xml>".encode("utf-16"),
        b"<xml>" + b"".join(b"<a%d>1</a%d>" % (n, n) for n in range(300)) + b"</xml>",
    ],
)
def test_what_is_not_one_flat_message_is_refused(body: bytes) -> None:
    with pytest.raises(v2.MalformedXml) as refused:
        v2.read_xml(body)
    assert "hostname" not in str(refused.value)


def test_forms_of_xml_that_say_the_same() -> None:
    plain = b'<?xml version="1.0" encoding="UTF-8"?>\n<xml>\n  <a>1 &lt; 2</a><b/>\n</xml>\n'
    assert v2.read_xml(plain) == {"a": "1 < 2", "b": ""}
    assert v2.read_xml(b"<xml><a><![CDATA[1 < 2]]></a><b></b></xml>") == v2.read_xml(plain)


def test_what_xml_cannot_carry_becomes_a_space() -> None:
    assert v2.plain_text("a\x00b\x0bc\ud800d\uffffe会\t员") == "a b c d e会\t员"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20150701100000", datetime(2015, 7, 1, 2, tzinfo=UTC)),
        ("2015-07-01 10:00:00", datetime(2015, 7, 1, 2, tzinfo=UTC)),
        ("1438141845", datetime(2015, 7, 29, 3, 50, 45, tzinfo=UTC)),
        ("0", None),
        ("", None),
        (None, None),
        ("20151301100000", None),
        ("99999999999", None),
        ("２０150701100000", None),
    ],
)
def test_times_in_each_of_their_forms(text: str | None, moment: datetime | None) -> None:
    assert v2.read_time(text) == moment
