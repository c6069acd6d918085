"""What the workflows and activities of saved payment methods say to each other."""

from datetime import date, datetime
from typing import Final

from billing.messages import Command, Message
from billing.method import MethodStatus, SavedMethod
from billing.payment import Failure, GatewayName

METHOD_WORKFLOW: Final = "MethodSetup"
METHOD_AFTER_WORKFLOW: Final = "MethodAfter"


class MethodOrder(Message):
    """What the application wants saved; the input of `MethodSetup`.

    `most_minor` (minor units of `currency`) is the most that one charge may come to, None for no
    limit; `every_months` how often it will be charged, None for no rhythm, and `first_charge_on`
    the first day of that, in Beijing. `subscription_id` is the subscription that it was asked for
    by, and that is told of it. `resumed` marks a run started from the row.
    """

    method_id: str
    application: str
    user_id: str
    gateway: GatewayName
    currency: str
    most_minor: int | None = None
    every_months: int | None = None
    first_charge_on: date | None = None
    return_url: str | None = None
    subscription_id: str | None = None
    created_at: datetime
    resumed: bool = False


class MethodStanding(Message):
    """Where a method stands after an activity.

    `is_released` says that its gateway keeps no mandate that might still be charged: one that has
    ended here and is not released is still to be revoked there. `needs_attention` says that the
    gateway's word on it makes no sense.
    """

    method: SavedMethod
    is_released: bool
    needs_attention: bool = False


class OpenMethod(Message):
    order: MethodOrder
    now: datetime


class SettleMethod(Message):
    """Ask the gateway what became of the method, and record it."""

    method_id: str
    gateway: GatewayName
    now: datetime


class DeleteMethod(Command):
    """End the method; unless `is_forced` only where nothing that has not ended is charged to it."""

    is_forced: bool = True


class RevokeMethod(Message):
    """Give the method its final status, then have the gateway end it too.

    `failure` goes with the status failed; `order` is given where the row may not have been written
    yet. Unless `is_forced` one that something is charged to is left as it is.
    """

    method_id: str
    gateway: GatewayName
    status: MethodStatus
    now: datetime
    failure: Failure | None = None
    order: MethodOrder | None = None
    is_forced: bool = True


class MakeDefault(Message):
    method_id: str
    now: datetime


class MethodAfterInput(Message):
    method_id: str
    gateway: GatewayName


class MethodEnded(Message):
    """What either workflow leaves behind; the record knows the rest."""

    method_id: str
    status: MethodStatus
