"""Messages of APIv2: flat XML, with a signature of the merchant's APIv2 key within."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from xml.parsers import expat

from sandbox.core import Keys

_FIELD: Final = re.compile(r"\w{1,64}", re.ASCII)


class NotXml(ValueError):
    """Not one `<xml>` of text fields, or more than that."""


def apiv2_key(keys: Keys) -> str:
    """Made of the APIv3 key, so that a data folder from before contracts has one too."""
    return hashlib.sha256(f"apiv2 {keys['apiv3_key']}".encode()).hexdigest()[:32]


def plan_id(keys: Keys) -> str:
    """The one plan of contracts that is approved for this merchant."""
    return str(100_000 + int(keys["mchid"]) % 900_000)


def signature(fields: Mapping[str, str], key: str) -> str:
    """MD5, or HMAC-SHA256 where `sign_type` says so."""
    parts = [f"{name}={fields[name]}" for name in sorted(fields) if name != "sign" and fields[name]]
    text = "&".join([*parts, f"key={key}"]).encode()
    if fields.get("sign_type") == "HMAC-SHA256":
        return hmac.digest(key.encode(), text, "sha256").hex().upper()
    return hashlib.md5(text).hexdigest().upper()  # noqa: S324 (WeChat Pay's own choice)


def is_signed(fields: Mapping[str, str], key: str) -> bool:
    return hmac.compare_digest(signature(fields, key).encode(), fields.get("sign", "").encode())


def written(fields: Mapping[str, str], key: str | None, *, forged: bool = False) -> bytes:
    """The message; signed with the key where there is one, and wrongly if forged."""
    told = {name: value for name, value in fields.items() if value}
    if key is not None:
        told["sign"] = signature(told | {"forged": "1"} if forged else told, key)
    parts = [f"<{name}><![CDATA[{value}]]></{name}>" for name, value in told.items()]
    return f"<xml>{''.join(parts)}</xml>".encode()


def read(content: bytes) -> dict[str, str]:
    """The fields of a message. Raises NotXml, also for a document type or anything nested."""
    fields: dict[str, str] = {}
    path: list[str] = []

    def refuse(*_: object) -> None:
        raise NotXml

    def begin(name: str, attributes: dict[str, str]) -> None:
        is_root = not path and name == "xml"
        if attributes or not (is_root or len(path) == 1):
            raise NotXml
        if not is_root:
            if name in fields or not _FIELD.fullmatch(name):
                raise NotXml
            fields[name] = ""
        path.append(name)

    def text(data: str) -> None:
        if len(path) == 2:
            fields[path[1]] += data
        elif data.strip():
            raise NotXml

    parser = expat.ParserCreate("UTF-8")
    parser.StartDoctypeDeclHandler = refuse
    parser.ProcessingInstructionHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: path.pop()
    parser.CharacterDataHandler = text
    try:
        parser.Parse(content, True)
    except expat.ExpatError:
        raise NotXml from None
    return fields
