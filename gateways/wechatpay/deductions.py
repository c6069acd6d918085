"""Charges by contract: asked for with `pappayapply`, which only accepts them, and queried with
`paporderquery`, which tells what became of them.

One `out_trade_no` is charged at most once, so that an unknown outcome is repeated as it was.
"""

from collections.abc import Mapping

from billing.errors import AnswerUntrusted, InvalidRequest, OutcomeUnknown
from gateways.gateway import (
    AlreadyOrdered,
    Observation,
    ObservedState,
    OpenOutcome,
    Order,
    Receipt,
    Refused,
    check_receipt,
)
from gateways.meaning import Meaning
from gateways.wechatpay import v2
from gateways.wechatpay.connection import Connection
from gateways.wechatpay.outcomes import DEDUCT_STATES, decline_of
from gateways.wechatpay.requests import CURRENCY, Contracting

APPLY_PATH = "/pay/pappayapply"
QUERY_PATH = "/pay/paporderquery"
Fields = Mapping[str, object]
_TRADE_TYPE = "PAP"
_OWN_ADDRESS = "127.0.0.1"
"""Told as the payer's where there is none: nobody is at a device."""
_TAKEN = (ObservedState.PAID, ObservedState.PROCESSING)


class Deductions:
    def __init__(self, connection: Connection, contracting: Contracting, notify_url: str) -> None:
        self._connection = connection
        self._contracting = contracting
        self._notify_url = notify_url

    async def open(self, order: Order) -> OpenOutcome:
        """See `gateways.mandates`. Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured,
        AnswerUntrusted, and InvalidRequest where there is no contract to charge."""
        if order.mandate is None or order.mandate.reference is None:
            raise InvalidRequest("there is no signed contract to charge", param="payment_method_id")
        fields = {
            "nonce_str": self._connection.nonce(),
            "body": v2.plain_text(order.description),
            "out_trade_no": order.number,
            "total_fee": str(order.amount_minor),
            "fee_type": CURRENCY,
            "spbill_create_ip": (order.payer and order.payer.client_ip) or _OWN_ADDRESS,
            "notify_url": self._notify_url,
            "trade_type": _TRADE_TYPE,
            "contract_id": order.mandate.reference,
        }
        told = await self._connection.post_xml(self._contracting, APPLY_PATH, fields)
        if told.meaning is None or told.meaning is Meaning.ORDERED:
            if told.fields.get("out_trade_no", order.number) != order.number:
                raise AnswerUntrusted(
                    "order_mismatch", f"the answer to {order.number} is about another order"
                )
            return AlreadyOrdered()
        # A refusal leaves the way free for another charge: see first that this one was not taken
        # before, by a call whose answer was lost.
        known = await self.query(order, None)
        return AlreadyOrdered() if known.state in _TAKEN else Refused(decline_of(told.code))

    async def query(self, order: Order, gateway_number: str | None) -> Observation:
        """See `Gateway.query`."""
        asked = (
            {"transaction_id": gateway_number} if gateway_number else {"out_trade_no": order.number}
        )
        fields = {"nonce_str": self._connection.nonce(), **asked}
        told = await self._connection.post_xml(self._contracting, QUERY_PATH, fields)
        if told.meaning is Meaning.ABSENT:
            return Observation(ObservedState.ABSENT, told.code)
        if told.meaning is not None:
            raise OutcomeUnknown(told.detail)
        number, reference = _text(told.fields, "out_trade_no"), _text(told.fields, "transaction_id")
        if number != order.number or gateway_number not in (None, reference):
            raise AnswerUntrusted(
                "order_mismatch",
                f"asked about {gateway_number or order.number}, WeChat Pay's answer is about"
                f" {number}, transaction {reference}",
            )
        status = _text(told.fields, "trade_state") or "(none)"
        state = DEDUCT_STATES.get(status, ObservedState.UNRECOGNISED)
        return Observation(
            state,
            status,
            reference=reference,
            receipt=self._receipt(order, told.fields, reference)
            if state is ObservedState.PAID
            else None,
            failure=decline_of(_text(told.fields, "err_code") or status)
            if state is ObservedState.DEAD
            else None,
        )

    def _receipt(self, order: Order, fields: Fields, reference: str | None) -> Receipt:
        if reference is None:
            raise OutcomeUnknown(f"WeChat Pay calls {order.number} paid, without a transaction_id")
        total = _text(fields, "total_fee") or ""
        if not (total.isascii() and total.isdecimal() and len(total) <= 12):
            raise AnswerUntrusted(
                "amount_mismatch",
                f"the gateway reports {order.number} as paid without an amount that can be read",
            )
        return check_receipt(
            order,
            Receipt(
                gateway_reference=reference,
                amount_minor=int(total),
                currency=_text(fields, "fee_type") or CURRENCY,
                # The money is certain even where its instant is not told: then it is known now.
                paid_at=v2.read_time(_text(fields, "time_end")) or self._connection.clock(),
            ),
        )


def _text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None
