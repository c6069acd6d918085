"""The signature that is asked for where a saved method may not be charged what a plan costs.

A mandate is signed for the most that one charge may come to, and some for how often. A change to a
plan that goes beyond that has a new one asked for; one that lapsed, again with the next change, or
as the customer pays by hand. As soon as it is signed the subscription's workflow puts it in the old
one's place (`subscription.read` finds it); until then the customer is asked for each renewal.
"""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from fastapi import Request
from temporalio.service import RPCError

from api import method_commands
from api.commands import NotRunning, id_of
from api.context import context
from api.method_lookup import SAVE
from api.problems import RequestRefused
from billing.method import MethodStatus, SavedMethod
from billing.method_messages import MethodOrder
from billing.plans import Plan
from billing.subscription import Subscription
from billing.subscription_messages import METHOD_SIGNED, SubscriptionStanding
from storage.database import UnitOfWork
from storage.method_rows import MethodRecord
from storage.signatures import asked_signature

_SIGNAL_TIMEOUT: Final = timedelta(seconds=5)
_BEIJING: Final = timezone(timedelta(hours=8))


async def find_signature(work: UnitOfWork, standing: SubscriptionStanding) -> SavedMethod | None:
    """The last one asked for, whatever became of it; None where none is needed."""
    outgrown = await find_outgrown(work, standing.subscription, standing.plan_to_come)
    if outgrown is None:
        return None
    last, _ = await _asked(work, standing, outgrown)
    return None if last is None else last.method


async def find_outgrown(
    work: UnitOfWork, subscription: Subscription, plan: Plan
) -> MethodRecord | None:
    """The subscription's saved method, where that may not be charged what the plan costs, or not as
    often."""
    if subscription.payment_method_id is None:
        return None
    record = await work.methods.find(subscription.payment_method_id)
    if record is None or record.method.status is not MethodStatus.ACTIVE:
        return None
    mandate = record.mandate
    is_covered = mandate.allows(plan.amount, plan.currency) and mandate.keeps(plan.cycle.months)
    return None if is_covered else record


async def ask_signature(
    request: Request, standing: SubscriptionStanding, application: str, return_url: str | None
) -> None:
    """Have the payer asked to sign for what the plan to come costs, unless it needs no signature,
    or one that was asked for can still be given."""
    found, plan = standing.subscription, standing.plan_to_come
    async with context(request).database.single() as work:
        outgrown = await find_outgrown(work, found, plan)
        if outgrown is None or found.status.is_terminal:
            return
        last, following = await _asked(work, standing, outgrown)
    is_asked = last is not None and not last.method.status.is_terminal
    is_rhythmic = outgrown.order.every_months is not None
    now = datetime.now(UTC)
    first = max(found.period.end, now).astimezone(_BEIJING).date()
    order = MethodOrder(
        method_id=last.method.id if last is not None and is_asked else following,
        application=application,
        user_id=found.user_id,
        gateway=found.gateway,
        currency=plan.currency,
        most_minor=plan.amount,
        every_months=plan.cycle.months if is_rhythmic else None,
        first_charge_on=first if is_rhythmic else None,
        return_url=return_url or outgrown.order.return_url,
        subscription_id=found.id,
        created_at=now,
    )
    command_id = id_of(SAVE, application, order.method_id)
    try:
        await method_commands.save(context(request).commands, order, command_id, is_recorded=False)
    except NotRunning:
        # It has come to its end before: where it was signed then, for a change that was not paid,
        # the subscription looks for it again.
        handle = context(request).client.get_workflow_handle(found.id)
        with contextlib.suppress(RPCError):
            await handle.signal(METHOD_SIGNED, rpc_timeout=_SIGNAL_TIMEOUT)
    except RequestRefused:
        # It cannot be asked for now: whoever reads on sees none.
        return


async def _asked(
    work: UnitOfWork, standing: SubscriptionStanding, outgrown: MethodRecord
) -> tuple[MethodRecord | None, str]:
    amount = standing.plan_to_come.amount
    return await asked_signature(work.methods, standing.subscription.id, outgrown.method.id, amount)
