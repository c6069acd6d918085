"""Contracts between payers and the merchant: signed at WeChat Pay's page, ended by either side.

Business time is a contract's own: what a control has set for it, else the time on the wall.
"""

import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.numbers import digits
from sandbox.wechatpay import judge, xml
from sandbox.wechatpay.errors import WechatError, parameter_error
from sandbox.wechatpay.notifications import contract_notification
from sandbox.wechatpay.parameters import NAME, check_names

CONTRACT: Final = "wechatpay_contract"
_CLOCK: Final = "wechatpay_clock"

IN_FORCE: Final = "0"
ENDED: Final = "1"
BY_USER: Final = "2"
BY_MERCHANT: Final = "3"
"""Modes of termination."""

_LIFE: Final = timedelta(days=20 * 365)
_LONGEST_SERIAL: Final = 2**63 - 1
_CODE: Final = re.compile(r"[0-9A-Za-z]{1,128}", re.ASCII)
_URL: Final = re.compile(r"https?://[^\s?#]{1,250}", re.ASCII)
_REQUIRED: Final = frozenset(
    """appid mch_id plan_id contract_code request_serial contract_display_account notify_url
    version timestamp sign""".split()
)
_NOTICE: Final = frozenset({"mchid", "appid", "estimated_amount", "deduct_duration"})
_METHOD_ID: Final = re.compile(r"pm_([0-9a-z]{26})", re.ASCII)


class Contracts:
    """The contracts of one merchant. What changes something is for use inside a transaction of the
    book; methods raise WechatError."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._keys = sandbox.keys[NAME]

    def by_code(self, contract_code: str) -> Document | None:
        return self._book.get(CONTRACT, contract_code)

    def by_id(self, contract_id: str) -> Document | None:
        found = self._book.find(CONTRACT, contract_id=contract_id)
        return found[0] if found else None

    def by_reference(self, reference: str) -> Document | None:
        """By the method's id, or by either number of the contract."""
        return self.by_code(code_of(reference)) or self.by_id(reference)

    def newest(self, limit: int) -> list[Document]:
        return self._book.newest(CONTRACT, limit)

    def named(self, fields: Mapping[str, str]) -> Document:
        """The contract that a message names, by contract_id or by plan_id and contract_code."""
        if fields.get("contract_id"):
            contract = self.by_id(fields["contract_id"])
        else:
            contract = self.by_code(fields.get("contract_code", ""))
            if contract and contract["plan_id"] != fields.get("plan_id"):
                contract = None
        if contract is None:
            raise contract_missing()
        return contract

    def now(self, contract_code: str) -> datetime:
        """Its business time."""
        kept = self._book.get(_CLOCK, contract_code)
        return datetime.fromisoformat(kept["now"]) if kept else self._sandbox.clock()

    def set_clock(self, contract_code: str, now: datetime | None) -> None:
        """Business time stands at that instant until set again; None: it is wall time."""
        if now is None:
            self._book.delete(_CLOCK, contract_code)
        else:
            self._book.put(_CLOCK, contract_code, {"now": now.isoformat()})

    def check_request(self, fields: Mapping[str, str]) -> None:
        """Whether these parameters of the sign page are the merchant's, and complete."""
        check_names(fields, _REQUIRED, _REQUIRED | {"return_web", "sign_type"})
        if not xml.is_signed(fields, xml.apiv2_key(self._keys)):
            raise WechatError(400, "SIGN_ERROR", "签名错误")
        ours = {
            "appid": self._keys["appid"],
            "mch_id": self._keys["mchid"],
            "plan_id": xml.plan_id(self._keys),
            "version": "1.0",
        }
        for name, value in ours.items():
            if fields[name] != value:
                raise parameter_error(name, f"is {value}")
        serial = fields["request_serial"]
        if not serial.isdecimal() or not 1 <= int(serial) <= _LONGEST_SERIAL:
            raise parameter_error("request_serial", "is a whole number of 64 bits")
        if not _CODE.fullmatch(fields["contract_code"]):
            raise parameter_error("contract_code", "is 1 to 128 letters and digits")
        if not _URL.fullmatch(fields["notify_url"]):
            raise parameter_error("notify_url", "is an address without a query")
        if not re.fullmatch(r"[0-9]{10}", fields["timestamp"]):
            raise parameter_error("timestamp", "is in seconds")

    def sign(self, fields: Mapping[str, str]) -> Document:
        """The payer agrees."""
        self.check_request(fields)
        code = fields["contract_code"]
        if self.by_code(code) is not None:
            raise WechatError(400, "INVALID_REQUEST", "签约协议号重复")
        now = self.now(code)
        contract = {
            "contract_code": code,
            "contract_id": f"{now.astimezone(BEIJING):%Y%m%d}{digits(10)}",
            "reference": reference_of(code),
            "plan_id": fields["plan_id"],
            "request_serial": fields["request_serial"],
            "display_account": fields["contract_display_account"],
            "notify_url": fields["notify_url"],
            "openid": f"o{secrets.token_urlsafe(20)}",
            "state": IN_FORCE,
            "signed_at": now.isoformat(),
            "expires_at": (now + _LIFE).isoformat(),
            "ended_at": None,
            "ended_by": None,
            "remark": "",
            "has_deducted": False,
            "notice": None,
        }
        self._book.put(CONTRACT, code, contract)
        contract_notification(self._sandbox, contract, "ADD", now)
        return contract

    def end(self, contract: Document, by: str, remark: str = "") -> None:
        if contract["state"] != IN_FORCE:
            raise contract_missing()
        now = self.now(contract["contract_code"])
        contract |= {
            "state": ENDED,
            "ended_at": now.isoformat(),
            "ended_by": by,
            "remark": remark,
        }
        self._book.put(CONTRACT, contract["contract_code"], contract)
        contract_notification(self._sandbox, contract, "DELETE", now)

    def notify(self, contract_id: str, body: dict[str, Any]) -> None:
        """Announce a deduction to the payer: `POST /v3/papay/contracts/{contract_id}/notify`."""
        most, days = _read_notice(body)
        contract = self._in_force(contract_id)
        now = self.now(contract["contract_code"])
        if objection := judge.objection_to_notice(now):
            raise WechatError(403, "RULE_LIMIT", objection)
        notice = {"at": now.isoformat(), "most": most, "days": days, "is_used": False}
        self._book.put(CONTRACT, contract["contract_code"], contract | {"notice": notice})

    def tell_of_failure(self, contract_id: str, body: dict[str, Any]) -> None:
        """Remind the payer after a failed deduction: `.../fail-notify`."""
        check_names(body, {"mchid", "appid"}, {"mchid", "appid"})
        self._in_force(contract_id)

    def standing(self, contract: Document) -> judge.Standing:
        """The contract as the judge sees it."""
        kept = contract["notice"]
        notice = kept and judge.Notice(
            datetime.fromisoformat(kept["at"]), kept["most"], kept["days"], kept["is_used"]
        )
        return judge.Standing(
            datetime.fromisoformat(contract["signed_at"]), contract["has_deducted"], notice
        )

    def has_paid(self, contract: Document) -> None:
        """A deduction succeeded: it was the one of its notice, and none is the first any more."""
        notice = contract["notice"] and contract["notice"] | {"is_used": True}
        contract |= {"has_deducted": True, "notice": notice}
        self._book.put(CONTRACT, contract["contract_code"], contract)

    def _in_force(self, contract_id: str) -> Document:
        contract = self.by_id(contract_id)
        if contract is None or contract["state"] != IN_FORCE:
            raise contract_missing()
        return contract


def contract_fields(contract: Document) -> dict[str, str]:
    """The contract as its query tells it, times in Unix seconds."""
    fields = {
        "contract_id": contract["contract_id"],
        "plan_id": contract["plan_id"],
        "openid": contract["openid"],
        "request_serial": contract["request_serial"],
        "contract_code": contract["contract_code"],
        "contract_display_account": contract["display_account"],
        "contract_state": contract["state"],
        "contract_signed_time": _seconds(contract["signed_at"]),
        "contract_expired_time": _seconds(contract["expires_at"]),
    }
    if contract["state"] == IN_FORCE:
        return fields
    return fields | {
        "contract_terminated_time": _seconds(contract["ended_at"]),
        "contract_termination_mode": contract["ended_by"],
        "contract_termination_remark": contract["remark"],
    }


def code_of(reference: str) -> str:
    """The contract_code behind a method's id, which it is without the underscore."""
    match = _METHOD_ID.fullmatch(reference)
    return f"pm{match[1]}" if match else reference


def reference_of(contract_code: str) -> str:
    """The method's id behind a contract_code; one that is not like ours stands for itself."""
    reference = f"pm_{contract_code[2:]}"
    return reference if code_of(reference) == contract_code else contract_code


def contract_missing() -> WechatError:
    return WechatError(403, "CONTRACT_NOT_EXIST", "签约协议不存在")


def _read_notice(body: dict[str, Any]) -> tuple[int, int]:
    """Fen and days."""
    check_names(body, {"mchid", "appid", "estimated_amount"}, _NOTICE)
    amount, duration = body["estimated_amount"], body.get("deduct_duration", {})
    if not isinstance(amount, dict) or not isinstance(duration, dict):
        raise parameter_error("estimated_amount", "is an object")
    check_names(amount, {"amount", "currency"}, {"amount", "currency"}, "estimated_amount.")
    if type(amount["amount"]) is not int or amount["amount"] < 1 or amount["currency"] != "CNY":
        raise parameter_error("estimated_amount.amount", "is a whole number of fen, at least 1")
    days = duration.get("count", judge.USUAL_DAYS)
    if type(days) is not int or not 1 <= days <= judge.USUAL_DAYS:
        raise parameter_error("deduct_duration.count", f"is 1 to {judge.USUAL_DAYS}")
    if duration.get("unit", "DAY") != "DAY":
        raise parameter_error("deduct_duration.unit", "is DAY")
    return amount["amount"], days


def _seconds(text: str) -> str:
    return str(int(datetime.fromisoformat(text).timestamp()))
