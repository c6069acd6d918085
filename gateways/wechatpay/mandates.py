"""Contracts: consent to be charged without being there (the classic periodic deduction).

The payer signs at a page of WeChat Pay's; it is known there by our number only once it is signed.
A charge must be announced two days or more before (`billing.rails`), by day only.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Final
from urllib.parse import quote, urlencode

from billing.errors import AnswerUntrusted, CurrencyNotSupported, OutcomeUnknown
from billing.payment import Redirect
from gateways.gateway import AlreadyOrdered, Opened, Refused
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateOrder,
    MandateRefused,
    MandateState,
)
from gateways.meaning import Meaning
from gateways.wechatpay import v2
from gateways.wechatpay.connection import Connection
from gateways.wechatpay.outcomes import decline_of
from gateways.wechatpay.requests import CURRENCY, Contracting, serialized

SIGN_PATH: Final = "/papay/entrustweb"
QUERY_PATH: Final = "/papay/querycontract"
DELETE_PATH: Final = "/papay/deletecontract"
DEDUCT_DAYS: Final = 7
"""Days that follow a notice and its waiting day, in which the charge may be made."""

_VERSION: Final = "1.0"
_LONGEST_ACCOUNT: Final = 32
_NOT_A_NAME: Final = re.compile(r"[^\w.@+-]")
_STATES: Final[Mapping[str, MandateState]] = {
    "0": MandateState.ACTIVE,
    "1": MandateState.ENDED,
    "9": MandateState.PENDING,
}
"""In force, not in force, being signed. Only what is in force may be charged."""


class WechatpayMandates:
    """See `gateways.mandates.Mandates`."""

    def __init__(self, connection: Connection, contracting: Contracting, notify_url: str) -> None:
        self._connection = connection
        self._contracting = contracting
        self._notify_url = notify_url

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> None:
        """WeChat Pay keeps no customers of ours."""

    async def set_up(self, order: MandateOrder) -> Opened | Refused | AlreadyOrdered:
        """The signed address of WeChat Pay's page, to be opened within WeChat; no call. The payer
        comes back to the page they came from: WeChat Pay takes no address for that."""
        _check_currency(order.terms.currency)
        account = self._connection.account
        fields = {
            "appid": account.appid,
            "mch_id": account.mchid,
            "plan_id": self._contracting.plan_id,
            "contract_code": order.number,
            "request_serial": str(_serial(order.number)),
            "contract_display_account": _NOT_A_NAME.sub("_", order.user_id)[:_LONGEST_ACCOUNT],
            "notify_url": self._notify_url,
            "version": _VERSION,
            "timestamp": str(int(order.created_at.timestamp())),
            "return_web": "1" if order.return_url else "",
        }
        query = urlencode(v2.signed(fields, self._contracting.key), quote_via=quote, safe="")
        return Opened(Redirect(url=f"{account.api_base}{SIGN_PATH}?{query}"), reference=None)

    async def query(self, mandate: Mandate) -> MandateObservation:
        told = await self._connection.post_xml(
            self._contracting, QUERY_PATH, {**self._named(mandate), "version": _VERSION}
        )
        if told.meaning is Meaning.ABSENT:
            # The one code says that there never was such a contract, and that it was ended.
            state = MandateState.ABSENT if mandate.reference is None else MandateState.ENDED
            return MandateObservation(state, told.code, reference=mandate.reference)
        if told.meaning is not None:
            raise OutcomeUnknown(told.detail)
        fields = {name: str(value) for name, value in told.fields.items()}
        code, reference = fields.get("contract_code"), fields.get("contract_id") or None
        if code != mandate.number or mandate.reference not in (None, reference):
            raise AnswerUntrusted(
                "mandate_mismatch",
                f"asked about {mandate.number}, WeChat Pay's answer is about {code}, contract"
                f" {reference}",
            )
        status = fields.get("contract_state") or "(none)"
        state = _STATES.get(status, MandateState.UNRECOGNISED)
        if state is MandateState.ACTIVE and reference is None:
            raise OutcomeUnknown(f"WeChat Pay calls {code} signed, without a contract_id")
        if state is MandateState.ENDED and reference is None:
            state = MandateState.ABSENT
        ends_at = fields.get(
            "contract_terminated_time" if state is MandateState.ENDED else "contract_expired_time"
        )
        return MandateObservation(
            state,
            status,
            reference=reference,
            signed_at=v2.read_time(fields.get("contract_signed_time")),
            ends_at=v2.read_time(ends_at),
        )

    async def revoke(self, mandate: Mandate) -> None:
        fields = {
            **self._named(mandate),
            "contract_termination_remark": "ended by the merchant",
            "version": _VERSION,
        }
        await self._connection.post_xml(self._contracting, DELETE_PATH, fields)

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        _check_currency(currency)
        if mandate.reference is None:
            raise MandateRefused(decline_of("CONTRACT_NOT_EXIST"))
        account = self._connection.account
        body = {
            "mchid": account.mchid,
            "appid": account.appid,
            "deduct_duration": {"count": DEDUCT_DAYS, "unit": "DAY"},
            "estimated_amount": {"amount": amount_minor, "currency": CURRENCY},
        }
        path = f"/v3/papay/contracts/{quote(mandate.reference, safe='')}/notify"
        told = await self._connection.call("POST", path, serialized(body), may_be_empty=True)
        if told.meaning is not None:
            raise MandateRefused(decline_of(told.code))

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        """WeChat Pay keeps no day of the next charge."""

    def _named(self, mandate: Mandate) -> dict[str, str]:
        if mandate.reference is not None:
            return {"contract_id": mandate.reference}
        return {"plan_id": self._contracting.plan_id, "contract_code": mandate.number}


def _serial(number: str) -> int:
    """The number of the request: from 1 to the largest that 64 bits with a sign can hold."""
    return (int.from_bytes(hashlib.sha256(number.encode()).digest()[:8]) >> 1) or 1


def _check_currency(currency: str) -> None:
    if currency != CURRENCY:
        raise CurrencyNotSupported(f"WeChat Pay does not take {currency}", param="currency")
