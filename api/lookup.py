"""Finding a payment for an application: its row, or the claim that will become one."""

from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import Request

from api.context import context
from api.orders import unrecorded
from billing.errors import PaymentNotFound
from billing.identifiers import is_payment_id
from billing.messages import PaymentOrder
from billing.payment import Payment

CREATE: Final = "create"
"""The command whose claim stands for a payment before its row does."""


@dataclass(frozen=True)
class Found:
    """`is_recorded` is False while the payment is claimed and its row not yet written."""

    payment: Payment
    order: PaymentOrder
    is_recorded: bool


async def find(request: Request, payment_id: str, application: str) -> Found:
    """The payment as it stands. Raises PaymentNotFound, also for another application's."""
    if not is_payment_id(payment_id):
        raise PaymentNotFound("there is no such payment")
    name_payment(request, payment_id)
    async with context(request).database.single() as work:
        record = await work.payments.find(payment_id, application=application)
        if record is not None:
            return Found(record.payment, record.order, is_recorded=True)
        claim = await work.claims.find_by_object(payment_id, application)
    if claim is None or claim.command != CREATE:
        raise PaymentNotFound("there is no such payment")
    order = PaymentOrder.model_validate_json(claim.request)
    return Found(unrecorded(order), order, is_recorded=False)


def name_payment(request: Request, payment_id: str) -> None:
    """Put the payment's id on every log line of this request."""
    request.state.payment_id = payment_id
    structlog.contextvars.bind_contextvars(payment_id=payment_id)
