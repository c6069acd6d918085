"""What WeChat Pay tells the merchant by itself, encrypted and signed."""

import json
import secrets
import uuid
from datetime import datetime
from typing import Any, Final

from sandbox import delivery
from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Keys, Sandbox
from sandbox.delivery import Message
from sandbox.wechatpay import xml
from sandbox.wechatpay.parameters import NAME
from sandbox.wechatpay.signing import encrypted, probe_headers, signed_headers

RETRY_DELAYS: Final = (
    1.0, 1.0, 2.0, 12.0, 40.0, 80.0, 120.0, 120.0, 120.0, 240.0, 720.0, 720.0, 720.0, 1440.0, 1440.0
)  # fmt: skip
"""WeChat Pay's own 15 s, 15 s, 30 s, 3 m, 10 m, ... 6 h, 15 times as fast."""


_REFUND_WORDS: Final = {"SUCCESS": "退款成功", "ABNORMAL": "退款异常", "CLOSED": "退款关闭"}


def transaction_notification(sandbox: Sandbox, order: Document, fields: dict[str, Any]) -> None:
    """TRANSACTION.SUCCESS, to the order's notify_url. Inside the book's transaction."""
    url = order["request"]["notify_url"]
    _enqueue(sandbox, order, url, "TRANSACTION.SUCCESS", "transaction", "支付成功", fields)


def refund_notification(
    sandbox: Sandbox, order: Document, url: str, fields: dict[str, Any]
) -> None:
    """REFUND.SUCCESS, .ABNORMAL or .CLOSED, to the refund's notify_url. Inside the book's
    transaction."""
    status = fields["refund_status"]
    _enqueue(sandbox, order, url, f"REFUND.{status}", "refund", _REFUND_WORDS[status], fields)


def contract_notification(sandbox: Sandbox, contract: Document, change: str, at: datetime) -> None:
    """A contract's signing (ADD) or end (DELETE), to the notify_url it was signed with. Inside the
    book's transaction."""
    fields = {
        "mch_id": sandbox.keys[NAME]["mchid"],
        "contract_code": contract["contract_code"],
        "contract_id": contract["contract_id"],
        "plan_id": contract["plan_id"],
        "openid": contract["openid"],
        "request_serial": contract["request_serial"],
        "change_type": change,
        "operate_time": _beijing_time(at),
        "contract_expired_time": _beijing_time(datetime.fromisoformat(contract["expires_at"])),
        "contract_termination_mode": contract["ended_by"] or "0",
    }
    _enqueue_xml(
        sandbox,
        (contract["contract_code"], contract["reference"]),
        contract["notify_url"],
        f"CONTRACT.{change}",
        fields,
    )


def deduct_notification(sandbox: Sandbox, order: Document, fields: dict[str, str]) -> None:
    """What a deduction by contract came to, to its notify_url. Inside the book's transaction."""
    result = "FAIL" if order["decline"] else "SUCCESS"
    keys = sandbox.keys[NAME]
    told = {"appid": keys["appid"], "mch_id": keys["mchid"], "nonce_str": secrets.token_hex(16)}
    _enqueue_xml(
        sandbox,
        (order["number"], order["reference"]),
        order["request"]["notify_url"],
        f"DEDUCT.{result}",
        told | fields,
        result,
    )


def signed_message(payload: dict[str, Any], forged: bool, keys: Keys) -> Message:
    """The notification as it goes out: the same body at each try, signed anew."""
    if "fields" in payload:
        content = xml.written(payload["fields"], xml.apiv2_key(keys), forged=forged)
        return Message({"Content-Type": "text/xml; charset=utf-8"}, content, _is_taken)
    body = payload["body"].encode()
    if forged and payload["is_probe"]:
        headers = probe_headers(body, keys)
    else:
        headers = signed_headers(body, keys, forged=forged)
    return Message(headers | {"Content-Type": "application/json; charset=utf-8"}, body)


def _is_taken(status: int, body: bytes) -> bool:
    """A message of APIv2 is taken by what the answer says."""
    try:
        return status == 200 and xml.read(body).get("return_code") == "SUCCESS"
    except xml.NotXml:
        return False


def _enqueue_xml(
    sandbox: Sandbox,
    named: tuple[str, str],
    url: str,
    event_type: str,
    fields: dict[str, str],
    result: str = "SUCCESS",
) -> None:
    """`named` is the number and the reference of what it speaks of."""
    sandbox.delivery.enqueue(
        NAME,
        url=url,
        number=named[0],
        reference=named[1],
        event_type=event_type,
        payload={"fields": {"return_code": "SUCCESS", "result_code": result, **fields}},
    )


def _beijing_time(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def _enqueue(
    sandbox: Sandbox,
    order: Document,
    url: str,
    event_type: str,
    original_type: str,
    summary: str,
    fields: dict[str, Any],
) -> None:
    keys = sandbox.keys[NAME]
    plaintext = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    notification = {
        "id": str(uuid.uuid4()),
        "create_time": datetime.now(BEIJING).isoformat(timespec="seconds"),
        "resource_type": "encrypt-resource",
        "event_type": event_type,
        "summary": summary,
        "resource": encrypted(plaintext, original_type, keys["apiv3_key"]),
    }
    payload = {
        "body": json.dumps(notification, ensure_ascii=False, separators=(",", ":")),
        "is_probe": False,
    }
    delivery_id = sandbox.delivery.enqueue(
        NAME,
        url=url,
        number=order["number"],
        reference=order["reference"],
        event_type=event_type,
        payload=payload,
    )
    document = sandbox.book.get(delivery.KIND, delivery_id)
    if document and document["fault"] == "signtest":
        payload["is_probe"] = True
        sandbox.book.put(delivery.KIND, delivery_id, document | {"payload": payload})
