"""The older interface of WeChat Pay (APIv2), which contracts still use: flat XML, signed with the
APIv2 key.

The signed text is every field that is not empty, but `sign`, in ASCII order as `name=value` joined
by `&`, and the key after it. A message is one `<xml>` with text fields in it and nothing else:
document types, entities, attributes, nested or repeated elements are refused.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from xml.parsers.expat import ExpatError, ParserCreate

from gateways.clock import BEIJING

MAX_FIELDS: Final = 256
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HMAC_LENGTH: Final = 64


class MalformedXml(ValueError):
    """What is wrong with a message, in words that quote nothing of it."""


def md5_signature(fields: Mapping[str, str], key: bytes) -> str:
    """The signature that we put on everything we send."""
    text = _signed_text(fields, key)
    return hashlib.md5(text).hexdigest().upper()  # noqa: S324 (WeChat Pay's own choice)


def hmac_signature(fields: Mapping[str, str], key: bytes) -> str:
    """The other kind, which WeChat Pay may choose for what it sends."""
    return hmac.new(key, _signed_text(fields, key), hashlib.sha256).hexdigest().upper()


def is_signed(fields: Mapping[str, str], key: bytes) -> bool:
    """Whether the message's own `sign` is of that key, of either kind; compared in a time that
    tells nothing of it."""
    given = fields.get("sign", "")
    make = hmac_signature if len(given) == _HMAC_LENGTH else md5_signature
    return hmac.compare_digest(make(fields, key).encode(), given.encode())


def signed(fields: Mapping[str, str], key: bytes) -> dict[str, str]:
    """The fields that are not empty, and their signature."""
    filled = {name: value for name, value in fields.items() if value}
    return {**filled, "sign": md5_signature(filled, key)}


def plain_text(text: str) -> str:
    """The text without the characters that XML cannot carry."""
    return _NOT_XML.sub(" ", text)


def write_xml(fields: Mapping[str, str]) -> bytes:
    parts = "".join(
        f"<{name}><![CDATA[{value.replace(']]>', ']]]]><![CDATA[>')}]]></{name}>"
        for name, value in fields.items()
    )
    return f"<xml>{parts}</xml>".encode()


def read_xml(body: bytes) -> dict[str, str]:
    """The fields of a message in UTF-8. Raises MalformedXml."""
    reader = _Reader()
    parser = ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    parser.ProcessingInstructionHandler = reader.refuse
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        body.decode()
        parser.Parse(body, True)
    except (ExpatError, UnicodeDecodeError):
        raise MalformedXml("it is not XML in UTF-8") from None
    return reader.fields


def read_time(value: str | None) -> datetime | None:
    """An instant as any message of this interface writes it: `yyyyMMddHHmmss` or
    `yyyy-MM-dd HH:mm:ss` in Beijing, or Unix seconds; None where it is none of these."""
    if not value or not value.isascii():
        return None
    if value.isdecimal() and len(value) != len("yyyyMMddHHmmss"):
        return datetime.fromtimestamp(int(value), UTC) if 8 <= len(value) <= 10 else None
    for form in ("%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S"):
        try:
            return datetime.strptime(value, form).replace(tzinfo=BEIJING)
        except ValueError:
            continue
    return None


class _Reader:
    """Takes one level of text fields within `<xml>`, each name once."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self._depth = 0
        self._name = ""

    def refuse(self, *_: object) -> None:
        raise MalformedXml("it declares or instructs something")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if attributes or self._depth > 2 or (self._depth == 1 and name != "xml"):
            raise MalformedXml("it is not one <xml> of plain fields")
        if self._depth == 1:
            return
        if name in self.fields or not _NAME.fullmatch(name) or len(self.fields) >= MAX_FIELDS:
            raise MalformedXml("it has a field twice, one of no name of theirs, or too many")
        self._name = name
        self.fields[name] = ""

    def end(self, _: str) -> None:
        self._depth -= 1

    def text(self, data: str) -> None:
        if self._depth == 2:
            self.fields[self._name] += data
        elif data.strip():
            raise MalformedXml("there is text between its fields")


def _signed_text(fields: Mapping[str, str], key: bytes) -> bytes:
    named = sorted((name, value) for name, value in fields.items() if value and name != "sign")
    text = "".join(f"{name}={value}&" for name, value in named)
    return text.encode(errors="surrogatepass") + b"key=" + key
