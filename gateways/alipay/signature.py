"""Alipay's RSA2 signatures: on requests, in answers and under notifications.

Rules: Alipay Open Platform, "v2" protocol of gateway.do, public-key mode. Requests keep
`sign_type` in the signed text, notifications do not; an answer is signed over the exact text of
its node, which must never be parsed and written again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from billing.errors import OutcomeUnknown
from gateways.alipay.outcomes import SUCCESS
from gateways.keys import is_signed_by, sign
from gateways.strict_json import MalformedJson, read_object, read_raw_members


@dataclass(frozen=True)
class Node:
    """What an answer says. A success is always signed; a failure of the platform itself (a wrong
    app_id, a bad signature of ours) comes unsigned."""

    fields: Mapping[str, object]
    is_signed: bool

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return value if isinstance(value, str) and value else None


def request_text(parameters: Mapping[str, str]) -> str:
    """The text a request signs: all parameters but `sign`, raw, in ASCII order."""
    return _joined(parameters, without=frozenset({"sign"}))


def notification_text(parameters: Mapping[str, str]) -> str:
    """The text a payment notification is signed over (the "V1" rule)."""
    return _joined(parameters, without=frozenset({"sign", "sign_type"}))


def signed(parameters: Mapping[str, str], key: RSAPrivateKey) -> dict[str, str]:
    """The parameters with their `sign`, still to be URL-encoded for transport."""
    return {**parameters, "sign": sign(request_text(parameters).encode(), key)}


def read_answer(body: bytes, method: str, key: RSAPublicKey) -> Node:
    """The answer to a call of `method`, its signature checked over the node as received.

    A success without a valid signature is no answer. A failure may come unsigned, but a signature
    it does carry must be valid. Raises OutcomeUnknown.
    """
    node = f"{method.replace('.', '_')}_response"
    try:
        members = read_raw_members(body.decode())
        raw = members.get(node) or members.get("error_response")
        if raw is None:
            raise MalformedJson(f"it has no {node}")
        fields = read_object(raw)
        signature = read_object(f'{{"sign":{members.get("sign", "null")}}}')["sign"]
    except ValueError as problem:
        raise OutcomeUnknown(f"Alipay's answer to {method} cannot be read: {problem}") from None
    if signature is None:
        if fields.get("code") == SUCCESS or not isinstance(fields.get("code"), str):
            raise OutcomeUnknown(f"Alipay's answer to {method} carries no signature")
        return Node(fields, is_signed=False)
    if not isinstance(signature, str) or not is_signed_by(raw.encode(), signature, key):
        raise OutcomeUnknown(
            f"Alipay's answer to {method} is not signed with Alipay's key; if this is so of every"
            " answer, EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY is not the one shown in the console"
        )
    return Node(fields, is_signed=True)


def _joined(parameters: Mapping[str, str], *, without: frozenset[str]) -> str:
    return "&".join(
        f"{name}={value}"
        for name, value in sorted(parameters.items())
        if name and value and name not in without
    )
