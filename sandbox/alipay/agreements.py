"""Agreements between payers and the merchant: signed at Alipay's page, ended by either side.

Business time is an agreement's own: what a control has set for it, else the time on the wall.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from sandbox.alipay.calls import Call, beijing_text
from sandbox.alipay.errors import AgreementError, invalid_parameter
from sandbox.alipay.judge import LAST_DAY, Plan
from sandbox.alipay.notifications import agreement_notification
from sandbox.alipay.terms import read_yuan, yuan
from sandbox.alipay.trades import NAME
from sandbox.beijing import BEIJING
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.numbers import digits

SIGN: Final = "alipay.user.agreement.page.sign"
NORMAL: Final = "NORMAL"
STOP: Final = "STOP"
PRODUCTS: Final = {
    "CYCLE_PAY_AUTH_P": "CYCLE_PAY_AUTH",
    "GENERAL_WITHHOLDING_P": "GENERAL_WITHHOLDING",
}
INVALID_TIME: Final = "2115-02-01 00:00:00"

_AGREEMENT: Final = "alipay_agreement"
_CLOCK: Final = "alipay_clock"
_KNOWN: Final = frozenset(
    """personal_product_code product_code sign_scene external_agreement_no external_logon_id
    access_params period_rule_params sign_validity_period sign_notify_url effect_time
    third_party_type agreement_effect_type""".split()
)
_RULES: Final = frozenset(
    "period_type period execute_time single_amount total_amount total_payments".split()
)
_NUMBER: Final = re.compile(r"[0-9A-Za-z]{1,32}", re.ASCII)
_METHOD_ID: Final = re.compile(r"pm_([0-9a-z]{26})", re.ASCII)


class Agreements:
    """The agreements of one merchant. What changes something is for use inside a transaction of
    the book; methods raise TradeError."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book

    def by_number(self, number: str) -> Document | None:
        return self._book.get(_AGREEMENT, number)

    def by_agreement_no(self, agreement_no: str) -> Document | None:
        found = self._book.find(_AGREEMENT, agreement_no=agreement_no)
        return found[0] if found else None

    def by_reference(self, reference: str) -> Document | None:
        """By the method's id, or by either number of the agreement."""
        return self.by_number(number_of(reference)) or self.by_agreement_no(reference)

    def newest(self, limit: int) -> list[Document]:
        return self._book.newest(_AGREEMENT, limit)

    def named(self, business: Mapping[str, Any]) -> Document | None:
        """The one that a call names: by agreement_no, else by all of product, scene and our
        number."""
        if agreement_no := business.get("agreement_no"):
            return self.by_agreement_no(str(agreement_no))
        agreement = self.by_number(str(business.get("external_agreement_no", "")))
        names = ("personal_product_code", "sign_scene")
        if agreement and all(agreement[name] == business.get(name) for name in names):
            return agreement
        return None

    def now(self, number: str) -> datetime:
        """Its business time."""
        kept = self._book.get(_CLOCK, number)
        return datetime.fromisoformat(kept["now"]) if kept else self._sandbox.clock()

    def set_clock(self, number: str, now: datetime | None) -> None:
        """Business time stands at that instant until set again; None: it is wall time."""
        if now is None:
            self._book.delete(_CLOCK, number)
        else:
            self._book.put(_CLOCK, number, {"now": now.isoformat()})

    def sign(self, call: Call) -> Document:
        """The payer agrees."""
        business = call.business
        rules = read_request(business)
        number = business["external_agreement_no"]
        if self.by_number(number) is not None:
            raise AgreementError("USER_AGREEMENT_EXIST", "用户已签约该协议")
        now = self.now(number)
        agreement = {
            "number": number,
            "agreement_no": f"{now.astimezone(BEIJING):%Y%m%d}{digits(12)}",
            "reference": reference_of(number),
            "personal_product_code": business["personal_product_code"],
            "sign_scene": business["sign_scene"],
            "status": NORMAL,
            "user_id": f"2088{digits(12)}",
            "signed_at": now.isoformat(),
            "ended_at": None,
            "plan": rules,
            "last_deduct": None,
            "steering": None,
        }
        self.keep(agreement)
        url = business.get("sign_notify_url") or call.notify_url
        self._tell(agreement, "dut_user_sign", url)
        return agreement

    def end(self, agreement: Document, notify_url: str | None) -> None:
        """Either side's: a payer's own is told to the application's gateway address alone."""
        if agreement["status"] != NORMAL:
            raise AgreementError("USER_AGREEMENT_STATUS_NOT_NORMAL", "协议已解约")
        now = self.now(agreement["number"])
        agreement |= {"status": STOP, "ended_at": now.isoformat()}
        self.keep(agreement)
        self._tell(agreement, "dut_user_unsign", notify_url)

    def query(self, call: Call) -> dict[str, Any]:
        """What alipay.user.agreement.query answers."""
        agreement = self.named(call.business)
        if agreement is None or (
            agreement["status"] == STOP and "agreement_no" not in call.business
        ):
            raise AgreementError("USER_AGREEMENT_NOT_EXIST", "用户协议不存在")
        if agreement["status"] == STOP:
            raise AgreementError("AGREEMENT_HAS_UNSIGNED", "用户协议已解约")
        return agreement_fields(agreement)

    def unsign(self, call: Call) -> dict[str, Any]:
        agreement = self.named(call.business)
        if agreement is None:
            raise AgreementError("AGREEMENT_NOT_EXIST", "协议不存在")
        self.end(agreement, call.notify_url)
        return {}

    def modify(self, call: Call) -> dict[str, Any]:
        """Move the deduct date, later only."""
        agreement = self.by_agreement_no(str(call.business.get("agreement_no", "")))
        if agreement is None or agreement["status"] != NORMAL:
            raise AgreementError("USER_AGREEMENT_NOT_EXIST", "用户协议不存在")
        plan = plan_of(agreement)
        wanted = _read_date(call.business.get("deduct_time"), "deduct_time")
        if plan is None:
            raise AgreementError("INVALID_PARAMETER", "the agreement has no execution plan")
        if objection := plan.objection_to_move(wanted):
            raise AgreementError("INVALID_PARAMETER", objection)
        agreement["plan"]["deduct_on"] = wanted.isoformat()
        self.keep(agreement)
        return {"agreement_no": agreement["agreement_no"], "deduct_time": wanted.isoformat()}

    def keep(self, agreement: Document) -> None:
        self._book.put(_AGREEMENT, agreement["number"], agreement)

    def has_paid(self, agreement: Document) -> None:
        """A charge succeeded: the plan moves on by one period."""
        now = self.now(agreement["number"])
        agreement["last_deduct"] = now.isoformat()
        plan = plan_of(agreement)
        if plan is not None:
            agreement["plan"]["deduct_on"] = plan.following.isoformat()
        self.keep(agreement)

    def _tell(self, agreement: Document, notify_type: str, notify_url: str | None) -> None:
        self._sandbox.delivery.enqueue(
            NAME,
            url=notify_url or f"{self._sandbox.public_url}/api/v1/payment/webhook/alipay",
            number=agreement["number"],
            reference=agreement["reference"],
            event_type=notify_type,
            payload=agreement_notification(
                agreement, notify_type, INVALID_TIME, self._sandbox.keys[NAME]
            ),
        )


def read_request(business: Mapping[str, Any]) -> dict[str, Any] | None:
    """Check what a page of signing is asked for; its plan, None for general withholding."""
    if unknown := sorted(set(business) - _KNOWN):
        raise invalid_parameter(unknown[0], f"is no parameter of {SIGN}")
    product = business.get("personal_product_code")
    if product not in PRODUCTS:
        raise invalid_parameter("personal_product_code", f"is one of {', '.join(PRODUCTS)}")
    if business.get("product_code", PRODUCTS[product]) != PRODUCTS[product]:
        raise invalid_parameter("product_code", f"of {product} is {PRODUCTS[product]}")
    number, scene = business.get("external_agreement_no"), business.get("sign_scene")
    if not isinstance(number, str) or not _NUMBER.fullmatch(number):
        raise invalid_parameter("external_agreement_no", "is 1 to 32 letters and digits")
    if not isinstance(scene, str) or not 0 < len(scene) <= 64:
        raise invalid_parameter("sign_scene", "is text of at most 64 characters")
    access = business.get("access_params")
    channel = access.get("channel") if isinstance(access, dict) else None
    if channel not in ("ALIPAYAPP", "QRCODE", "QRCODEORSMS"):
        raise invalid_parameter("access_params", "has a channel of Alipay's")
    rules = business.get("period_rule_params")
    if product != "CYCLE_PAY_AUTH_P":
        if rules is not None:
            raise invalid_parameter("period_rule_params", "is for cycle pay alone")
        return None
    return _read_rules(rules)


def agreement_fields(agreement: Document) -> dict[str, Any]:
    """The agreement as its query tells it."""
    signed = beijing_text(datetime.fromisoformat(agreement["signed_at"]))
    fields = {
        "agreement_no": agreement["agreement_no"],
        "external_agreement_no": agreement["number"],
        "personal_product_code": agreement["personal_product_code"],
        "sign_scene": agreement["sign_scene"],
        "principal_id": agreement["user_id"],
        "pricipal_type": "CARD",
        "status": agreement["status"],
        "sign_time": signed,
        "valid_time": signed,
        "invalid_time": INVALID_TIME,
    }
    plan = plan_of(agreement)
    if plan is not None:
        fields |= {
            "next_deduct_time": f"{plan.deduct_on} 00:00:00",
            "single_quota": yuan(plan.most),
        }
    if agreement["last_deduct"]:
        fields["last_deduct_time"] = beijing_text(datetime.fromisoformat(agreement["last_deduct"]))
    return fields


def plan_of(agreement: Document) -> Plan | None:
    """None for general withholding, which may be charged at any time."""
    kept = agreement["plan"]
    return kept and Plan(
        date.fromisoformat(kept["deduct_on"]), kept["period_type"], kept["period"], kept["most"]
    )


def number_of(reference: str) -> str:
    """Our number behind a method's id, which it is without the underscore."""
    match = _METHOD_ID.fullmatch(reference)
    return f"pm{match[1]}" if match else reference


def reference_of(number: str) -> str:
    """The method's id behind a number; one that is not like ours stands for itself."""
    reference = f"pm_{number[2:]}"
    return reference if number_of(reference) == number else number


def _read_rules(rules: object) -> dict[str, Any]:
    if not isinstance(rules, dict) or set(rules) - _RULES:
        raise invalid_parameter(
            "period_rule_params", f"is an object of {', '.join(sorted(_RULES))}"
        )
    period_type, period = rules.get("period_type"), rules.get("period")
    least = {"DAY": 7, "MONTH": 1}.get(str(period_type))
    if least is None or type(period) is not int or period < least:
        raise invalid_parameter("period", "is months, or at least 7 days")
    deduct_on = _read_date(rules.get("execute_time"), "execute_time")
    if period_type == "MONTH" and deduct_on.day > LAST_DAY:
        raise invalid_parameter("execute_time", f"is on a day from 1 to {LAST_DAY}")
    return {
        "period_type": period_type,
        "period": period,
        "deduct_on": deduct_on.isoformat(),
        "most": read_yuan(rules.get("single_amount"), "single_amount"),
    }


def _read_date(value: object, name: str) -> date:
    text = str(value)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise invalid_parameter(name, "is yyyy-MM-dd")
