"""Agreements: consent to be charged without being there, by cycle pay or general withholding.

The payer signs at a page of Alipay's; it is known there by our number only once it is signed. With
a rhythm it is cycle pay: one charge a period, on its deduct date or the days before
(`billing.rails`), and never above its amount.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final

from billing.errors import AnswerUntrusted, CurrencyNotSupported, OutcomeUnknown
from billing.money import format_minor
from billing.payment import DeclineClass, Failure, Redirect
from billing.rails import ALIPAY_LAST_DAY
from gateways.alipay.connection import Connection, failed
from gateways.alipay.outcomes import BUSINESS_FAILURE, SUB_CODES, SUCCESS, decline_of, last_word
from gateways.alipay.requests import (
    CURRENCY,
    encoded,
    read_beijing_text,
    read_yuan,
    request_parameters,
)
from gateways.alipay.signature import Node
from gateways.gateway import AlreadyOrdered, Opened, Refused
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateOrder,
    MandateRefused,
    MandateState,
    MandateTerms,
)
from gateways.meaning import Meaning

SIGN: Final = "alipay.user.agreement.page.sign"
QUERY: Final = "alipay.user.agreement.query"
UNSIGN: Final = "alipay.user.agreement.unsign"
MODIFY: Final = "alipay.user.agreement.executionplan.modify"
CYCLE_PAY: Final = "CYCLE_PAY_AUTH"
WITHHOLDING: Final = "GENERAL_WITHHOLDING"

_CHANNEL: Final = "QRCODEORSMS"
"""The page is opened in a browser, of whatever device."""
_OPEN_ENDED: Final = 2100
"""Alipay writes a year after this one for an agreement without an end."""
_STATES: Final[Mapping[str, MandateState]] = {
    "TEMP": MandateState.PENDING,
    "NORMAL": MandateState.ACTIVE,
    "STOP": MandateState.ENDED,
}
_NOT_REFUSED: Final = frozenset({Meaning.UNKNOWN, Meaning.THROTTLED, Meaning.MISCONFIGURED})
_ENDED: Final = "AGREEMENT_HAS_UNSIGNED"


class AlipayMandates:
    """See `gateways.mandates.Mandates`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> None:
        """Alipay keeps no customers of ours."""

    async def set_up(self, order: MandateOrder) -> Opened | Refused | AlreadyOrdered:
        """The signed address of Alipay's page; no call. Cycle pay takes a limit and a first day."""
        if order.terms.currency != CURRENCY:
            raise CurrencyNotSupported(
                f"Alipay does not take {order.terms.currency}", param="currency"
            )
        business: dict[str, object] = {
            **self._named(order.number, order.terms.every_months),
            "product_code": product_code(order.terms.every_months),
            "access_params": {"channel": _CHANNEL},
            "sign_notify_url": self._connection.notify_url,
        }
        if order.terms.every_months is not None:
            rule = _period_rule(order.terms)
            if isinstance(rule, Refused):
                return rule
            business["period_rule_params"] = rule
        account = self._connection.account
        text = encoded(
            request_parameters(
                account,
                SIGN,
                business,
                self._connection.clock(),
                notify_url=self._connection.notify_url,
                return_url=order.return_url,
            )
        )
        return Opened(Redirect(url=f"{account.gateway_url}?{text}"), reference=None)

    async def query(self, mandate: Mandate) -> MandateObservation:
        node = await self._connection.call(QUERY, self._wanted(mandate))
        if node.text("code") == SUCCESS:
            return _observation(mandate, node)
        word = _failure(QUERY, node)
        # One code says that there never was such an agreement, and that it was ended.
        is_known = mandate.reference is not None or word == _ENDED
        state = MandateState.ENDED if is_known else MandateState.ABSENT
        return MandateObservation(state, word, reference=mandate.reference)

    async def revoke(self, mandate: Mandate) -> None:
        node = await self._connection.call(UNSIGN, self._wanted(mandate), is_reported=True)
        if node.text("code") != SUCCESS:
            _failure(UNSIGN, node)

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        """Alipay tells the payer itself."""

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        """Move the deduct date of cycle pay. One that Alipay refuses to move may have been moved
        before, by a call whose answer was lost."""
        if mandate.rhythm_months is None:
            return
        if mandate.reference is None:
            raise MandateRefused(decline_of("AGREEMENT_NOT_EXIST"))
        wanted = {"agreement_no": mandate.reference, "deduct_time": charge_on.isoformat()}
        node = await self._connection.call(MODIFY, wanted)
        if node.text("code") != SUCCESS:
            refusal = _refusal_to_move(node)
            if (await self.query(mandate)).charge_on != charge_on:
                raise MandateRefused(refusal)
            return
        told = node.text("agreement_no"), (node.text("deduct_time") or "")[:10]
        if told != (mandate.reference, charge_on.isoformat()):
            raise AnswerUntrusted(
                "mandate_mismatch",
                f"asked to move {mandate.number} to {charge_on}, Alipay's answer is about"
                f" {told[0]} and {told[1]}",
            )

    def _wanted(self, mandate: Mandate) -> dict[str, object]:
        if mandate.reference is not None:
            return {"agreement_no": mandate.reference}
        return self._named(mandate.number, mandate.rhythm_months)

    def _named(self, number: str, every_months: int | None) -> dict[str, object]:
        return {
            "personal_product_code": f"{product_code(every_months)}_P",
            "sign_scene": self._connection.account.sign_scene,
            "external_agreement_no": number,
        }


def product_code(every_months: int | None) -> str:
    """The product by which an agreement of that rhythm is charged."""
    return WITHHOLDING if every_months is None else CYCLE_PAY


def _period_rule(terms: MandateTerms) -> dict[str, object] | Refused:
    if terms.most_minor is None or terms.first_charge_on is None:
        missing = "a limit to each charge" if terms.most_minor is None else "a first day"
        return Refused(
            Failure(
                code="mandate_refused",
                advice=DeclineClass.HARD,
                message=f"Alipay takes no recurring agreement without {missing}.",
            )
        )
    return {
        "period_type": "MONTH",
        "period": terms.every_months,
        "execute_time": _deductible(terms.first_charge_on).isoformat(),
        "single_amount": format_minor(terms.most_minor, CURRENCY),
    }


def _deductible(day: date) -> date:
    """The day, or the next that a period may have: the days after the 28th lie in the window of
    the first of the next month."""
    if day.day <= ALIPAY_LAST_DAY:
        return day
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _observation(mandate: Mandate, node: Node) -> MandateObservation:
    number, reference = node.text("external_agreement_no"), node.text("agreement_no")
    is_named = number == mandate.number or (number is None and mandate.reference is not None)
    if not is_named or mandate.reference not in (None, reference):
        raise AnswerUntrusted(
            "mandate_mismatch",
            f"asked about {mandate.number}, Alipay's answer is about {number}, agreement"
            f" {reference}",
        )
    status = node.text("status") or "(none)"
    state = _STATES.get(status, MandateState.UNRECOGNISED)
    if state is MandateState.ACTIVE and reference is None:
        raise OutcomeUnknown(f"Alipay calls {mandate.number} signed, without an agreement_no")
    ends_at = read_beijing_text(node.text("invalid_time"))
    return MandateObservation(
        state,
        status,
        reference=reference,
        most_minor=read_yuan(node.text("single_quota")),
        signed_at=read_beijing_text(node.text("sign_time")),
        ends_at=ends_at if ends_at and ends_at.year < _OPEN_ENDED else None,
        charge_on=_read_date(node.text("next_deduct_time")),
    )


def _read_date(text: str | None) -> date | None:
    """The day of `yyyy-MM-dd`, with or without a time after it."""
    try:
        return date.fromisoformat((text or "")[:10])
    except ValueError:
        return None


def _failure(method: str, node: Node) -> str:
    """The code by which Alipay says that there is no such agreement; raises whatever else it
    says. An answer without a signature says nothing."""
    meaning, detail = failed(method, node)
    if meaning is not Meaning.ABSENT or not node.is_signed:
        raise OutcomeUnknown(detail)
    return last_word(node.text("sub_code"))


def _refusal_to_move(node: Node) -> Failure:
    """Why the date stays. What is refused for any reason of the business has moved nothing."""
    word = last_word(node.text("sub_code"))
    is_refused = node.text("code") == BUSINESS_FAILURE and node.is_signed and word
    if not is_refused or SUB_CODES.get(word) in _NOT_REFUSED:
        _, detail = failed(MODIFY, node)
        raise OutcomeUnknown(detail)
    return decline_of(word, at_charge=False)
