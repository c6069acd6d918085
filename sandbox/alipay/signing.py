"""What Alipay signs, byte for byte: requests, the node of an answer, notifications."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from sandbox import rsa

REQUEST_EXCLUDES: Final = frozenset({"sign"})
"""Of a request, `sign_type` is signed as well."""

NOTIFICATION_EXCLUDES: Final = frozenset({"sign", "sign_type"})
"""Of a notification (V1) and of a return URL, it is not."""


def sign_content(parameters: Mapping[str, str], excluded: Collection[str]) -> bytes:
    """The parameters that are not empty, by name in ASCII order, raw, as `name=value` with `&`."""
    return "&".join(
        f"{name}={value}"
        for name, value in sorted(parameters.items())
        if value and name not in excluded
    ).encode()


def signed_parameters(parameters: Mapping[str, str], private_key: str) -> dict[str, str]:
    """A notification's or return URL's parameters with their signature."""
    signature = rsa.sign(sign_content(parameters, NOTIFICATION_EXCLUDES), private_key)
    return {**parameters, "sign": signature, "sign_type": "RSA2"}


def answer_body(
    node: str, fields: Mapping[str, Any], private_key: str | None, *, forged: bool = False
) -> bytes:
    """`{"<node>":{...},"sign":"..."}`, signed over exactly the bytes of the node's value.

    Slashes are escaped, as Alipay does, and now and then (where the signature is even) `sign`
    comes first: a reader must not count on either. Without a key the answer has no `sign`.
    """
    value = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
    if private_key is None:
        return f'{{"{node}":{value}}}'.encode()
    content = value + " " if forged else value
    signature = rsa.sign(content.encode(), private_key)
    members = [f'"{node}":{value}', f'"sign":"{signature}"']
    if sum(signature.encode()) % 2 == 0:
        members.reverse()
    return f"{{{','.join(members)}}}".encode()
