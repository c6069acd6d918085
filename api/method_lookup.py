"""Finding a saved method for an application: its row, or the claim that will become one."""

from dataclasses import dataclass
from typing import Final

from fastapi import Request

from api.context import context
from billing.errors import MethodNotFound, MethodNotUsable
from billing.identifiers import is_method_id
from billing.messages import PaymentOrder
from billing.method import MethodStatus, SavedMethod
from billing.method_messages import MethodOrder
from billing.payment import GatewayName, NoAction
from storage.database import UnitOfWork
from storage.method_rows import MethodRecord

SAVE: Final = "save_method"
"""The command whose claim stands for a method before its row does."""


@dataclass(frozen=True)
class FoundMethod:
    """`is_recorded` is False while the method is claimed and its row not yet written."""

    method: SavedMethod
    is_recorded: bool


async def find_method(request: Request, method_id: str, application: str) -> FoundMethod:
    """The method as it stands. Raises MethodNotFound, also for another application's."""
    if not is_method_id(method_id):
        raise MethodNotFound("there is no such payment method")
    async with context(request).database.single() as work:
        record = await work.methods.find(method_id, application=application)
        if record is not None:
            return FoundMethod(record.method, is_recorded=True)
        claim = await work.claims.find_by_object(method_id, application)
    if claim is None or claim.command != SAVE:
        raise MethodNotFound("there is no such payment method")
    order = MethodOrder.model_validate_json(claim.request)
    return FoundMethod(_unrecorded(order), is_recorded=False)


async def require_usable(request: Request, order: PaymentOrder) -> None:
    """Raises MethodNotUsable for an order that its saved method cannot pay for.

    What is charged in the end is decided as it is first asked for (`activities.charging`).
    """
    if order.payment_method_id is None:
        return
    async with context(request).database.single() as work:
        record = await find_usable(
            work, order.payment_method_id, order.application, order.user_id, order.gateway
        )
    if not record.mandate.allows(order.amount_minor, order.currency):
        raise MethodNotUsable(
            f"one charge to this method comes to at most {record.method.most} in minor units",
            param="amount",
        )


async def find_usable(
    work: UnitOfWork,
    method_id: str,
    application: str,
    user_id: str,
    gateway: GatewayName,
    *,
    param: str = "payment_method_id",
) -> MethodRecord:
    """The method, an active one of that user and gateway. Raises MethodNotUsable, which names the
    parameter that it was given as."""
    record = await work.methods.find(method_id, application=application)
    if record is None or (record.method.user_id, record.method.gateway, record.method.status) != (
        user_id,
        gateway,
        MethodStatus.ACTIVE,
    ):
        raise MethodNotUsable(
            f"{param} is none of an active method of this user at this gateway", param=param
        )
    return record


def _unrecorded(order: MethodOrder) -> SavedMethod:
    return SavedMethod(
        id=order.method_id,
        user_id=order.user_id,
        gateway=order.gateway,
        status=MethodStatus.PENDING,
        most=order.most_minor,
        next_action=NoAction(),
        created_at=order.created_at,
        updated_at=order.created_at,
    )
