"""What subscriptions did otherwise before, each by the name of its patch: runs that were recorded
then go on as they began."""

from datetime import datetime
from typing import Final

from temporalio import workflow

from billing.charges import Wanted
from billing.lifecycle import is_used_up
from billing.subscription import StepKind, SubscriptionStatus
from billing.subscription_messages import (
    CancelSubscription,
    ResumeSubscription,
    SubscriptionCommand,
    SubscriptionStanding,
)

ANNOUNCED_ANEW: Final = "announced-anew"
"""Histories recorded before have a command that leaves it at the old try."""

COMMANDS_FIRST: Final = "commands-first"
"""Histories recorded before have what is due charged though a command came as it was made ready."""

REFUNDS_READ: Final = "refunds-read"
"""Histories recorded before have a change decided without a look at what went back."""

_CARDS_LIMITED: Final = "cards-limited"
"""Histories recorded before have a card charged unasked."""

_LEFT_IN_CHARGES: Final = "left-in-charges"
"""Histories recorded before have a cancel at the period's end refused while a renewal waits, or is
charged or paid ahead, and any undo during a charge."""


def is_limited(wanted: Wanted) -> bool:
    """Whether a card, which knows no windows, is asked after all: what somebody is waiting for and
    its consent does not cover is paid by hand."""
    is_waited_for = wanted.kind is StepKind.SIGN_UP or not wanted.is_due
    is_retry = wanted.kind is StepKind.PAYMENT
    return is_waited_for and not is_retry and workflow.patched(_CARDS_LIMITED)


def is_taken(standing: SubscriptionStanding, command: SubscriptionCommand, now: datetime) -> bool:
    """Whether a command that the rules allow was allowed as this run came to it."""
    return was_taken(standing, command, now) or workflow.patched(_LEFT_IN_CHARGES)


def was_taken(standing: SubscriptionStanding, command: SubscriptionCommand, now: datetime) -> bool:
    """Whether it was allowed ever since."""
    found, is_charged = standing.subscription, standing.charge is not None
    match command:
        case CancelSubscription(at_period_end=True):
            is_running = found.status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIALING)
            return is_running and not is_charged and not is_used_up(found, now)
        case ResumeSubscription():
            return not is_charged
        case _:
            return True
