"""Ordering a payment, whatever it is for: claimed, started once, answered with instructions."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Request
from fastapi.responses import Response

from api.authentication import Caller
from api.commands import NotRunning, id_of
from api.context import context
from api.idempotency import Answer, once
from api.lookup import CREATE, find, name_payment
from api.openapi import REPLAYED_HEADER, problems
from billing.messages import Command, PaymentOrder
from billing.payment import Payment, PaymentStatus
from storage.claims import Claim
from workflows.payment import PaymentWorkflow

ORDERED: Final[dict[int | str, dict[str, Any]]] = {
    201: {"headers": REPLAYED_HEADER},
    202: {"model": Payment, "description": "Under way: no instructions for the payer yet"},
    **problems(400, 401, 403, 413, 415, 422, 429, 500, 503),
}
"""What a route that orders a payment answers."""


async def order_once(
    request: Request,
    caller: Caller,
    key: str,
    new: PaymentOrder,
    check: Callable[[], Awaitable[None]] | None = None,
) -> Response:
    """Order the payment under the key: 201 once the payer has instructions, 202 until then.

    `check` may refuse it by what the record says, for as long as it has no row.
    """

    async def act(claim: Claim | None) -> Answer:
        assert claim is not None
        order = _renewed(PaymentOrder.model_validate_json(claim.request), new, claim)
        name_payment(request, order.payment_id)
        is_recorded = (
            not claim.is_new
            and (await find(request, order.payment_id, order.application)).is_recorded
        )
        if not is_recorded and check is not None:
            await check()
        payment = await _open(request, order, key, is_recorded=is_recorded)
        if payment is None:
            return answer(202, (await find(request, order.payment_id, order.application)).payment)
        return answer(201, payment)

    return await once(
        request,
        caller,
        key,
        command=CREATE,
        object_id=new.payment_id,
        message=new.model_dump_json().encode(),
        act=act,
    )


def answer(status_code: int, payment: Payment) -> Answer:
    return Answer(status_code, payment.model_dump_json().encode())


def _renewed(claimed: PaymentOrder, new: PaymentOrder, claim: Claim) -> PaymentOrder:
    """What was claimed, counting its time from now: a repeat may be the first to start it.

    Where it was started before, that start's own times stand.
    """
    if claim.is_new:
        return claimed
    return claimed.model_copy(update={"created_at": new.created_at, "expires_at": new.expires_at})


async def _open(
    request: Request, order: PaymentOrder, key: str, *, is_recorded: bool
) -> Payment | None:
    """The payment once the payer has instructions; None while it is under way.

    Update-with-start is for payments without a row only: after Temporal's retention it would
    start a second run.
    """
    commands = context(request).commands
    command_id = id_of("create", order.application, key)
    message = Command(application=order.application)
    try:
        if not is_recorded:
            return await commands.create(order, message, command_id)
        return await commands.give(
            order, PaymentWorkflow.create, message, command_id, is_recorded=True
        )
    except NotRunning:
        payment = (await find(request, order.payment_id, order.application)).payment
        return None if payment.status is PaymentStatus.CREATED else payment
