"""Charges by agreement: alipay.trade.pay without the payer.

One `out_trade_no` is charged at most once, so that an unknown outcome is repeated as it was. A
declined charge can leave a trade that still waits for its payer, so a refusal is believed only once
that trade is closed, or there is none.
"""

from typing import Final

from billing.errors import InvalidRequest, OutcomeUnknown
from billing.money import format_minor
from gateways.alipay.connection import Connection, failed
from gateways.alipay.mandates import product_code
from gateways.alipay.outcomes import (
    BUSINESS_FAILURE,
    SUCCESS,
    WAITS,
    decline_of,
    is_decline,
    last_word,
)
from gateways.alipay.requests import CLOSE, CURRENCY, beijing_text, check_number, subject_of
from gateways.gateway import AlreadyOrdered, OpenOutcome, Order, Refused
from gateways.meaning import Meaning

PAY: Final = "alipay.trade.pay"


async def charge(connection: Connection, order: Order) -> OpenOutcome:
    """See `gateways.mandates`. Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured,
    AnswerUntrusted, and InvalidRequest where there is no agreement to charge."""
    node = await connection.call(PAY, charge_parameters(order), is_reported=True)
    code, word = node.text("code"), last_word(node.text("sub_code"))
    if code in (SUCCESS, WAITS):
        # 10003 can come without our number; what it says is asked about by that number anyway.
        if code == SUCCESS:
            check_number(order, node)
        return AlreadyOrdered()
    if code == BUSINESS_FAILURE and is_decline(word):
        if not node.is_signed:
            raise OutcomeUnknown(f"Alipay's refusal of {order.number} carries no signature")
        # The agreement may refuse a repeat of what an earlier call, its answer lost, has taken.
        return (
            Refused(decline_of(word)) if await _is_closed(connection, order) else AlreadyOrdered()
        )
    meaning, detail = failed(PAY, node)
    if meaning is Meaning.ORDERED:
        return AlreadyOrdered()
    raise OutcomeUnknown(detail)


def charge_parameters(order: Order) -> dict[str, object]:
    """Raises InvalidRequest where there is no agreement to charge."""
    if order.mandate is None or order.mandate.reference is None:
        raise InvalidRequest("there is no signed agreement to charge", param="payment_method_id")
    return {
        "out_trade_no": order.number,
        "total_amount": format_minor(order.amount_minor, CURRENCY),
        "subject": subject_of(order),
        "product_code": product_code(order.mandate.rhythm_months),
        "agreement_params": {"agreement_no": order.mandate.reference},
        "time_expire": beijing_text(order.expires_at),
    }


async def _is_closed(connection: Connection, order: Order) -> bool:
    """Whether no money will be taken under this number: its trade is closed now, or never was."""
    node = await connection.call(CLOSE, {"out_trade_no": order.number})
    if node.text("code") == SUCCESS:
        check_number(order, node)
        return True
    meaning, detail = failed(CLOSE, node)
    if meaning is Meaning.ABSENT and node.is_signed:
        return True
    if meaning is Meaning.ORDERED:
        return False
    raise OutcomeUnknown(detail)
