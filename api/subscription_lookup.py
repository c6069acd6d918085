"""Finding a subscription for an application: its row, or the claim that will become one; and the
payment that it waits for."""

import asyncio
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from pydantic import AwareDatetime

from api.commands import NotRunning, id_of
from api.context import context
from api.method_lookup import find_usable
from api.orders import unrecorded
from api.problems import RequestRefused
from api.signatures import find_signature
from api.subscription_time import as_of_now
from billing.charges import order_of
from billing.errors import InvalidRequest, MethodNotUsable, SubscriptionNotFound
from billing.identifiers import is_subscription_id
from billing.messages import Command
from billing.method import SavedMethod
from billing.moves import start_of
from billing.payment import GatewayName, Payment
from billing.subscription import Subscription
from billing.subscription_messages import SubscriptionStanding, SubscriptionStart
from storage.subscriptions import SubscriptionRecord
from workflows.payment import PaymentWorkflow

SUBSCRIBE: Final = "subscribe"
"""The command whose claim stands for a subscription before its row does."""

_LOOKS: Final = 20
_PAUSE_SECONDS: Final = 0.1


class SubscriptionDetails(Subscription):
    """A subscription, the payment that it waits for, and when something happens by itself.

    `ends_at` is when it ends, where that is to come: with the next period where that is paid for
    already, null while a payment under way decides. `signature` is the saved method that the payer
    is asked to sign where theirs may not be charged what the plan costs: once it is active, it
    takes the old one's place by itself.
    """

    payment: Payment | None = None
    signature: SavedMethod | None = None
    ends_at: AwareDatetime | None = None
    next_at: AwareDatetime | None = None


@dataclass(frozen=True)
class FoundSubscription:
    """`is_recorded` is False while it is claimed and its row not yet written."""

    record: SubscriptionRecord
    is_recorded: bool

    @property
    def subscription(self) -> Subscription:
        return self.record.standing.subscription


async def find_subscription(
    request: Request, subscription_id: str, application: str
) -> FoundSubscription:
    """It as it stands. Raises SubscriptionNotFound, also for another application's."""
    if not is_subscription_id(subscription_id):
        raise SubscriptionNotFound("there is no such subscription")
    async with context(request).database.single() as work:
        record = await work.subscriptions.find(subscription_id, application=application)
        if record is not None:
            return FoundSubscription(record, is_recorded=True)
        claim = await work.claims.find_by_object(subscription_id, application)
    if claim is None or claim.command != SUBSCRIBE:
        raise SubscriptionNotFound("there is no such subscription")
    start = SubscriptionStart.model_validate_json(claim.request)
    standing = SubscriptionStanding(subscription=start_of(start), version=0)
    return FoundSubscription(SubscriptionRecord(start, standing), is_recorded=False)


async def is_recorded(request: Request, subscription_id: str, application: str) -> bool:
    """Whether its row is written. Raises SubscriptionNotFound."""
    return (await find_subscription(request, subscription_id, application)).is_recorded


async def details(request: Request, subscription_id: str, application: str) -> SubscriptionDetails:
    """The subscription as it stands, with the payment under way as it stands."""
    found = await find_subscription(request, subscription_id, application)
    charge = found.record.standing.charge
    if charge is None:
        return await _joined(request, found.record, None)
    payment = await _row(request, charge.payment_id, application)
    # Ordered, and its row not yet written.
    ordered = unrecorded(order_of(charge, found.subscription, application))
    return await _joined(request, found.record, payment or ordered)


async def details_with(
    request: Request,
    subscription_id: str,
    application: str,
    payment_id: str,
    *,
    is_leaving: bool = False,
) -> SubscriptionDetails:
    """As `details`, once the payer's instructions for that payment are there, or it has ended and
    the subscription knows: what is not there in time is left out. One that `is_leaving` may be
    having the payment closed."""
    payment = await _instructed(request, payment_id, application)
    has_ended = payment is not None and payment.status.is_terminal
    for _ in range(_LOOKS if has_ended or is_leaving else 0):
        found = await find_subscription(request, subscription_id, application)
        standing = found.record.standing
        if standing.charge is None or standing.charge.payment_id != payment_id:
            return await _joined(request, found.record, None)
        if not has_ended and not standing.is_forgone and standing.charge_end is None:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return await details(request, subscription_id, application)


async def require_methods(
    request: Request,
    subscription_id: str,
    application: str,
    user_id: str,
    gateway: GatewayName,
    method_id: str | None,
    backup_id: str | None,
) -> None:
    """Raises MethodNotUsable unless each is None or an active method of that user and gateway that
    can carry the subscription, InvalidRequest for a backup of nothing, or of itself.

    Alipay's cycle pay and WeChat Pay's contracts take one charge a period, whatever it is for.
    """
    if backup_id is not None and backup_id == method_id:
        raise InvalidRequest("the backup is the method itself", param="backup_payment_method_id")
    if backup_id is not None and method_id is None:
        raise InvalidRequest(
            "a backup goes with payment_method_id", param="backup_payment_method_id"
        )
    given = {"payment_method_id": method_id, "backup_payment_method_id": backup_id}
    async with context(request).database.single() as work:
        for param, wanted_id in given.items():
            if wanted_id is None:
                continue
            record = await find_usable(work, wanted_id, application, user_id, gateway, param=param)
            if not record.mandate.has_windows:
                continue
            other = await work.subscriptions.user_of(wanted_id, but_for=subscription_id)
            if other is not None:
                raise MethodNotUsable(
                    f"{param} carries {other} already, and may be charged once a period: save"
                    " another method, or end that first",
                    param=param,
                )


async def _instructed(request: Request, payment_id: str, application: str) -> Payment | None:
    command_id = id_of("create", application, payment_id)
    try:
        payment = await context(request).commands.tell(
            PaymentWorkflow.create, Command(application=application), payment_id, command_id
        )
    except (NotRunning, RequestRefused):
        payment = None
    return payment or await _row(request, payment_id, application)


async def _row(request: Request, payment_id: str, application: str) -> Payment | None:
    async with context(request).database.single() as work:
        record = await work.payments.find(payment_id, application=application)
    return None if record is None else record.payment


async def _joined(
    request: Request, record: SubscriptionRecord, payment: Payment | None
) -> SubscriptionDetails:
    found = await as_of_now(request, record)
    async with context(request).database.single() as work:
        signature = await find_signature(work, record.standing)
    return SubscriptionDetails(
        **dict(found),
        payment=payment,
        signature=signature,
        ends_at=record.standing.ends_at,
        next_at=record.next_at or record.standing.taken_at,
    )
