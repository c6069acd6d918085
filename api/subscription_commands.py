"""Commands to a subscription's process, each given once and answered with what it came to."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from fastapi import Request
from fastapi.responses import Response
from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.workflow import UpdateMethodMultiParam

from api.authentication import Caller
from api.commands import NotRunning, id_of
from api.context import context
from api.idempotency import Answer, claimed_before, once
from api.problems import unavailable
from api.signatures import ask_signature
from api.subscription_lookup import (
    FoundSubscription,
    details,
    details_with,
    find_subscription,
)
from billing.decisions import require_alive
from billing.errors import BillingError
from billing.messages import Command
from billing.subscription import Subscription
from billing.subscription_messages import (
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    OperateSubscription,
    PauseSubscription,
    PaySubscription,
    ResumeSubscription,
    SubscriptionAnswer,
    SubscriptionCommand,
    SubscriptionOver,
    SubscriptionStart,
)
from runtime import attributes
from runtime.queues import CORE
from storage.claims import Claim
from workflows.subscription import SubscriptionWorkflow

_WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=5)
_COMMANDS: Final[Mapping[str, type[SubscriptionCommand]]] = {
    "cancel": CancelSubscription,
    "pause": PauseSubscription,
    "resume": ResumeSubscription,
    "change": ChangeSubscription,
    "change_method": ChangeMethod,
    "pay": PaySubscription,
    "operate": OperateSubscription,
}


async def begun(
    request: Request, start: SubscriptionStart, command_id: str, claim: Claim
) -> SubscriptionAnswer | None:
    """Started once; update-with-start is for subscriptions without a row only, as after Temporal's
    retention it would begin anew."""
    commands, order = context(request).commands, start.order
    message = Command(application=start.application)
    try:
        if not claim.is_new:
            found = await find_subscription(request, order.id, start.application)
            if found.is_recorded:
                return await commands.tell(
                    SubscriptionWorkflow.create, message, order.id, command_id
                )
        return await commands.start(
            SubscriptionWorkflow.create, message, _starting(start), order.id, command_id
        )
    except NotRunning:
        return None


async def commanded(
    request: Request,
    caller: Caller,
    subscription_id: str,
    key: str | None,
    name: str,
    update: UpdateMethodMultiParam[[Any, Any], SubscriptionAnswer],
    command_of: Callable[[Subscription], SubscriptionCommand],
    afterwards: Callable[[], Awaitable[None]] | None = None,
    beforehand: Callable[[Subscription], Awaitable[None]] | None = None,
) -> Response:
    """Give the subscription's process a command, once for each key; `name` is the command's, and
    `afterwards` what is to be done once it is carried out, before that is shown. `beforehand` may
    refuse it, unless it was answered before."""
    found = await find_subscription(request, subscription_id, caller.application)
    try:
        command = command_of(found.subscription)
    except BillingError as refusal:
        claim = await claimed_before(request, caller, key, refusal)
        command = _COMMANDS[name].model_validate_json(claim.request)

    async def act(_: Claim | None) -> Answer:
        if beforehand is not None:
            await beforehand(found.subscription)
        command_id = id_of(f"subscription_{name}", caller.application, key)
        answer = await _told(request, found, update, command, command_id)
        if answer is not None and afterwards is not None:
            await afterwards()
        return await shown(request, caller, subscription_id, answer, status_code=200)

    return await once(
        request,
        caller,
        key,
        command=f"subscription_{name}",
        object_id=subscription_id,
        message=command.model_dump_json().encode(),
        act=act,
    )


async def _told(
    request: Request,
    found: FoundSubscription,
    update: UpdateMethodMultiParam[[Any, Any], SubscriptionAnswer],
    command: SubscriptionCommand,
    command_id: str,
) -> SubscriptionAnswer | None:
    wired, subscription_id = context(request), found.subscription.id
    for is_first in (True, False):
        try:
            return await wired.commands.tell(update, command, subscription_id, command_id)
        except NotRunning:
            now = await find_subscription(request, subscription_id, found.record.start.application)
            require_alive(now.subscription)
            if not (is_first and now.is_recorded):
                break
            # A process that was lost goes on from the record.
            await wired.resumption.resume_subscription(subscription_id)
    raise unavailable("the subscription's process")


async def shown(
    request: Request,
    caller: Caller,
    subscription_id: str,
    answer: SubscriptionAnswer | None,
    *,
    status_code: int,
) -> Answer:
    """What the command came to, with the payment that is waited for; 202 without an answer yet."""
    if answer is None:
        told = await details(request, subscription_id, caller.application)
        return Answer(202, told.model_dump_json().encode())
    if answer.payment_id is None:
        told = await details(request, subscription_id, caller.application)
    else:
        told = await details_with(
            request,
            subscription_id,
            caller.application,
            answer.payment_id,
            is_leaving=answer.subscription.cancel_at_period_end,
        )
    return Answer(status_code, told.model_dump_json().encode())


def signing(
    request: Request, caller: Caller, subscription_id: str, return_url: str | None
) -> Callable[[], Awaitable[None]]:
    """Has the payer asked for the signature that is missing, if any."""

    async def sign() -> None:
        found = await find_subscription(request, subscription_id, caller.application)
        await ask_signature(request, found.record.standing, caller.application, return_url)

    return sign


def _starting(
    start: SubscriptionStart,
) -> WithStartWorkflowOperation[SubscriptionWorkflow, SubscriptionOver]:
    """One that was lost before it had a row may be started again."""
    return WithStartWorkflowOperation(
        SubscriptionWorkflow.run,
        start,
        id=start.order.id,
        task_queue=CORE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        search_attributes=attributes.at_subscription_start(start.order),
        static_summary=attributes.subscription_summary(start.order),
    )
