"""Alipay's asynchronous notifications.

They repeat for 25 hours with one `notify_id`, so there is no replay window: the unique row of the
inbox is the guard. What one says is only a reason to ask: it is never acted on by itself.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from billing.identifiers import is_refund_id, parse_mandate_number
from billing.payment import GatewayName
from gateways.alipay.requests import Account
from gateways.alipay.signature import notification_text
from gateways.gateway import MAX_REFUND_NUMBER, Notification, Reply, WebhookRefused
from gateways.keys import is_signed_by

_CHARSETS: Final[Mapping[str, str]] = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "gb18030": "gb18030",
}
_MAX_FIELDS: Final = 200
_AGREEMENT_TYPES: Final = frozenset({"dut_user_sign", "dut_user_unsign"})


class AlipayWebhookVerifier:
    name: GatewayName = GatewayName.ALIPAY
    accepted: Reply = Reply(200, b"success", "text/plain")

    def __init__(self, account: Account) -> None:
        self._account = account

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Notification:
        fields, charset = _read_form(body)
        if fields.get("sign_type") != "RSA2":
            raise WebhookRefused("sign_type is not RSA2")
        text = notification_text(fields).encode(charset)
        if not is_signed_by(text, fields.get("sign", ""), self._account.alipay_public_key):
            raise WebhookRefused("the signature is not Alipay's")
        notify_type = fields.get("notify_type")
        if not notify_type:
            # The payer's return address is signed in the same way and carries none.
            raise WebhookRefused("there is no notify_type: this is no notification")
        if fields.get("app_id") != self._account.app_id:
            raise WebhookRefused("app_id is not ours")
        number, refund = fields.get("out_trade_no"), fields.get("out_biz_no", "")
        seller_id = fields.get("seller_id")
        if seller_id != self._account.seller_id and (number or seller_id):
            raise WebhookRefused("seller_id is not ours")
        return Notification(
            event_id=fields.get("notify_id") or hashlib.sha256(body).hexdigest(),
            event_type=_event_type(fields, notify_type),
            number=number,
            refund_number=refund if is_refund_id(refund) else None,
            foreign_refund=_foreign_refund(fields),
            mandate_number=_own_mandate(fields) if notify_type in _AGREEMENT_TYPES else None,
            mandate_reference=(
                fields.get("agreement_no") if notify_type in _AGREEMENT_TYPES else None
            ),
        )

    def refused(self, status_code: int, reason: str) -> Reply:
        """Alipay reads anything but `success` as a reason to send again; ours is its usual word."""
        return Reply(status_code, b"fail", "text/plain")


def _event_type(fields: Mapping[str, str], notify_type: str) -> str:
    """A trade keeps its status when a part of it goes back: that is another event all the same."""
    status = fields.get("trade_status")
    return f"{status}.REFUND" if status and _tells_of_refund(fields) else status or notify_type


def _own_mandate(fields: Mapping[str, str]) -> str | None:
    """Our number of the agreement; the merchant may have others that are not ours."""
    number = fields.get("external_agreement_no", "")
    return number if parse_mandate_number(number) else None


def _foreign_refund(fields: Mapping[str, str]) -> str | None:
    """The number of a refund that is not ours; one made without a number has the trade's."""
    if not _tells_of_refund(fields):
        return None
    number = fields.get("out_biz_no") or fields.get("out_trade_no", "")
    is_one = 0 < len(number) <= MAX_REFUND_NUMBER and number.isprintable()
    return number if is_one and not is_refund_id(number) else None


def _tells_of_refund(fields: Mapping[str, str]) -> bool:
    return "refund_fee" in fields or "out_biz_no" in fields


def _read_form(body: bytes) -> tuple[dict[str, str], str]:
    """The decoded fields that have a value, and the charset they and the signature are in."""
    try:
        form = body.decode("ascii")
        named = dict(_pairs(form, "latin-1")).get("charset", "utf-8").lower()
        charset = _CHARSETS.get(named)
        if charset is None:
            raise WebhookRefused("the charset is neither utf-8 nor gbk")
        pairs = _pairs(form, charset)
    except ValueError:
        raise WebhookRefused("the body is not a form in its charset") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise WebhookRefused("a field is repeated")
    if any("\0" in value for value in fields.values()):
        raise WebhookRefused("a field holds a NUL character")
    return {name: value for name, value in fields.items() if value}, charset


def _pairs(form: str, charset: str) -> list[tuple[str, str]]:
    return parse_qsl(
        form,
        keep_blank_values=True,
        encoding=charset,
        errors="strict",
        max_num_fields=_MAX_FIELDS,
    )
