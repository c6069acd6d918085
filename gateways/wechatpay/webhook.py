"""WeChat Pay's notifications: signed like its answers, with an encrypted resource inside.

Those of contracts and of charges by contract are of the older interface: XML, with a signature of
the APIv2 key within. They have no id and no time: their id is made from what they say, so that one
that is sent again is known, and whoever acts on one asks WeChat Pay first.

A probe whose signature begins with `WECHATPAY/SIGNTEST/` is refused like any other forgery, which
is what it is there to see.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from billing.identifiers import is_refund_id, parse_mandate_number
from billing.payment import GatewayName
from gateways.gateway import MAX_REFUND_NUMBER, Notification, Reply, WebhookRefused
from gateways.strict_json import MalformedJson, read_object
from gateways.wechatpay import v2
from gateways.wechatpay.requests import Account
from gateways.wechatpay.signature import SignatureRefused, check_signature

_ALGORITHM = "AEAD_AES_256_GCM"
_MAX_ID_LENGTH = 128
_XML_BEGINS = b"<"
_XML_ACCEPTED = Reply(200, b"<xml><return_code><![CDATA[SUCCESS]]></return_code></xml>", "text/xml")
_CONTRACT_CHANGES = ("ADD", "DELETE")
_RESULTS = ("SUCCESS", "FAIL")


class WechatpayWebhookVerifier:
    name: GatewayName = GatewayName.WECHATPAY
    accepted: Reply = Reply(204, b"", "application/json")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._cipher = AESGCM(account.apiv3_key)

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Notification:
        if body.lstrip().startswith(_XML_BEGINS):
            return self._verify_xml(body)
        try:
            check_signature(headers, body, self._account.public_keys, now)
        except SignatureRefused as problem:
            raise WebhookRefused(str(problem)) from None
        try:
            event = read_object(body.decode())
            resource = self._decrypted(event.get("resource"))
        except ValueError as problem:
            raise WebhookRefused(f"it cannot be read: {problem}") from None
        if resource.get("mchid") != self._account.mchid:
            raise WebhookRefused("mchid is not ours")
        if resource.get("appid", self._account.appid) != self._account.appid:
            raise WebhookRefused("appid is not ours")
        event_id, event_type = _word(event.get("id")), _word(event.get("event_type"))
        if event_id is None or event_type is None:
            raise WebhookRefused("it has no id or no event_type")
        refund = _word(resource.get("out_refund_no"))
        is_ours = refund is not None and is_refund_id(refund)
        is_one = refund is not None and len(refund) <= MAX_REFUND_NUMBER
        return Notification(
            event_id,
            event_type,
            _word(resource.get("out_trade_no")),
            refund_number=refund if is_ours else None,
            foreign_refund=refund if is_one and not is_ours else None,
        )

    def refused(self, status_code: int, reason: str) -> Reply:
        body = json.dumps({"code": "FAIL", "message": reason}, ensure_ascii=False)
        return Reply(status_code, body.encode(), "application/json")

    def _verify_xml(self, body: bytes) -> Notification:
        contracting = self._account.contracting
        if contracting is None:
            raise WebhookRefused("it is XML, and there is no EVERBILL_WECHATPAY_API_V2_KEY")
        try:
            fields = v2.read_xml(body)
        except v2.MalformedXml as problem:
            raise WebhookRefused(f"it cannot be read: {problem}") from None
        if not v2.is_signed(fields, contracting.key):
            raise WebhookRefused("the signature is not of EVERBILL_WECHATPAY_API_V2_KEY")
        if fields.get("mch_id") != self._account.mchid:
            raise WebhookRefused("mch_id is not ours")
        if fields.get("appid", self._account.appid) != self._account.appid:
            raise WebhookRefused("appid is not ours")
        event_id = _id_of(fields)
        change, result = fields.get("change_type"), fields.get("result_code")
        if change in _CONTRACT_CHANGES:
            number = fields.get("contract_code", "")
            return Notification(
                event_id,
                f"CONTRACT.{change}",
                None,
                mandate_number=number if parse_mandate_number(number) else None,
                mandate_reference=_word(fields.get("contract_id")),
                reply=_XML_ACCEPTED,
            )
        charged = _word(fields.get("out_trade_no"))
        if charged is None or result not in _RESULTS:
            raise WebhookRefused("it speaks neither of a contract nor of a charge by one")
        return Notification(event_id, f"DEDUCT.{result}", charged, reply=_XML_ACCEPTED)

    def _decrypted(self, resource: object) -> dict[str, object]:
        """What the resource holds. Raises ValueError in words that tell nothing of the key."""
        if not isinstance(resource, dict) or resource.get("algorithm") != _ALGORITHM:
            raise MalformedJson(f"there is no resource under {_ALGORITHM}")
        nonce, ciphertext = resource.get("nonce"), resource.get("ciphertext")
        associated = resource.get("associated_data") or ""
        if not (
            isinstance(nonce, str) and isinstance(ciphertext, str) and isinstance(associated, str)
        ):
            raise MalformedJson("the resource is incomplete")
        try:
            plain = self._cipher.decrypt(
                nonce.encode(), base64.b64decode(ciphertext, validate=True), associated.encode()
            )
        except InvalidTag:
            raise MalformedJson(
                "the resource does not open with EVERBILL_WECHATPAY_APIV3_KEY"
            ) from None
        return read_object(plain.decode())


def _id_of(fields: Mapping[str, str]) -> str:
    said = {name: value for name, value in fields.items() if name not in ("sign", "nonce_str")}
    text = json.dumps(said, sort_keys=True).encode()
    return f"v2-{hashlib.sha256(text).hexdigest()[:40]}"


def _word(value: object) -> str | None:
    """A short printable ASCII text, or None."""
    if isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH:
        return value if value.isascii() and value.isprintable() else None
    return None
