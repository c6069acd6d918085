"""What a command does to a subscription: pure, so that a preview answers what doing it would.

While a charge is under way a subscription can only be ended, now or with its period, and that be
taken back: everything else is decided upon what that charge leaves.
"""

from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict

from billing.changes import change, change_method
from billing.charges import Move, charging, minimum_of, payment
from billing.decisions import require_alive, whole_second
from billing.dunning import Debt, Step, allowed_from, timetable
from billing.errors import (
    CurrencyNotSupported,
    InvalidRequest,
    SubscriptionEnded,
    SubscriptionNotChangeable,
    SubscriptionNotResumable,
)
from billing.lifecycle import cancel, is_used_up, move_end, pause, resume, used_until, waive
from billing.moves import renewal_of, retry
from billing.payment import GatewayName
from billing.proration import Preview
from billing.subscription import ChangeKind, Decision, StepKind, Subscription, SubscriptionStatus
from billing.subscription_messages import (
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    Charge,
    GivingBack,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    PaySubscription,
    ResumeSubscription,
    SubscriptionCommand,
    SubscriptionStanding,
    SubscriptionTerms,
)

_S: Final = SubscriptionStatus

SUBSCRIPTION_REFUSALS: Final = (
    SubscriptionEnded,
    SubscriptionNotChangeable,
    SubscriptionNotResumable,
    CurrencyNotSupported,
    InvalidRequest,
)
"""What a command comes to that cannot be carried out: nothing was changed."""

QUOTE_LIFE: Final = timedelta(minutes=10)
"""For so long a change is charged as it was previewed."""

INSUFFICIENT: Final = "insufficient_funds"
"""The decline that a timetable of dunning is told for."""


class Quote(BaseModel):
    """What a command would come to: `preview` is what is charged at `effective_at`, to the saved
    method or, with `payment_method_id` null, by hand; `refund` (minor units) is given back.
    `subscription` is as it would be once that is paid, `if_unpaid` what is done where the renewal
    after that is declined for lack of funds each time."""

    model_config = ConfigDict(frozen=True)

    kind: StepKind
    change: ChangeKind | None
    effective_at: AwareDatetime
    preview: Preview
    refund: int
    payment_method_id: str | None
    subscription: Subscription
    if_unpaid: tuple[Step, ...]


def commanded(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    command: SubscriptionCommand,
    now: datetime,
) -> tuple[Decision, Move]:
    """What the command costs and changes, and how it is carried out.

    Raises SubscriptionEnded, SubscriptionNotChangeable, SubscriptionNotResumable, InvalidRequest
    and CurrencyNotSupported; nothing has changed then.
    """
    found = standing.subscription
    require_alive(found)
    match command:
        case CancelSubscription():
            return _cancel(standing, command, now)
        case OperateSubscription(action=OperatorAction.END):
            ending = CancelSubscription(at_period_end=False)
            return _cancel(standing, ending, now, data=_audit(command))
        case ResumeSubscription() if found.cancel_at_period_end:
            undo, move = _free(standing, resume(found, now), "undone")
            return undo, move.model_copy(update={"debt": standing.debt})
    _require_quiet(standing)
    match command:
        case PauseSubscription():
            decision = pause(found, now, at_period_end=command.at_period_end, until=command.until)
            name = "pause_scheduled" if command.at_period_end else "paused"
            return _free(standing, decision, name)
        case ResumeSubscription():
            decision = resume(found, now, minimum=minimum_of(found, terms))
            name = "undone" if decision.kind is StepKind.UNDO else "resumed"
            return _costing(standing, terms, decision, name, now)
        case ChangeSubscription():
            at = _quoted_at(standing, command, now)
            minimum = minimum_of(found, terms)
            refunded = standing.refunded
            decision = change(
                found, command.plan, at, command.when, minimum=minimum, refunded=refunded
            )
            _require_quoted(found, command, decision)
            return _changing(standing, terms, decision, command, now)
        case ChangeMethod():
            return _other_method(standing, command, now)
        case PaySubscription():
            return _pay(standing, terms, command, now)
        case OperateSubscription():
            return _operate(standing, terms, command, now)


def _require_quiet(standing: SubscriptionStanding) -> None:
    """Raises SubscriptionNotChangeable while a charge is under way."""
    charge = standing.charge
    if charge is None:
        return
    if standing.is_paid_ahead:
        raise SubscriptionNotChangeable(
            f"payment {charge.payment_id} has paid for the next period already: wait until that"
            f" begins, at {charge.decision.effective_at:%Y-%m-%d %H:%M} UTC"
        )
    raise SubscriptionNotChangeable(
        f"payment {charge.payment_id} is under way: wait for its end, or cancel the payment"
    )


def _cancel(
    standing: SubscriptionStanding,
    command: CancelSubscription,
    now: datetime,
    data: dict[str, str] | None = None,
) -> tuple[Decision, Move]:
    found, charge = standing.subscription, standing.charge
    decision = cancel(
        found,
        now,
        at_period_end=command.at_period_end,
        refund=command.refund,
        is_charged=charge is not None,
        refunded=standing.refunded,
    )
    leaving = standing.model_copy(update={"subscription": decision.after})
    is_later = decision.after.cancel_at_period_end
    if is_later and charge is not None:
        decision = decision.model_copy(update={"effective_at": _left_at(leaving, charge, now)})
    back = _unused(found, now) if command.refund else None
    name = "cancellation_scheduled" if is_later else "canceled"
    move = Move(
        event=f"subscription.{name}",
        subscription=decision.after,
        debt=standing.debt if is_later else None,
        data=data or {},
        giving_back=back,
        is_abandoning=leaving.is_forgone if is_later else charge is not None,
    )
    return decision, move


def _left_at(leaving: SubscriptionStanding, charge: Charge, now: datetime) -> datetime:
    """When what is about to end does, the charge under way being paid unless it is forgone."""
    found = leaving.subscription
    if not leaving.is_forgone:
        return charge.decision.after.period.end
    return now if is_used_up(found, now) else found.period.end


def _unused(found: Subscription, now: datetime) -> GivingBack | None:
    """What is unused; what of it has gone back already is seen as the refunds are reserved."""
    until = used_until(found, now)
    rest = found.paid.unused(until) if found.paid else 0
    if not rest:
        return None
    return GivingBack(amount=rest, used_until=until, reason="the subscription was canceled")


def _free(standing: SubscriptionStanding, decision: Decision, name: str) -> tuple[Decision, Move]:
    return decision, Move(event=f"subscription.{name}", subscription=decision.after)


def _costing(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    decision: Decision,
    name: str,
    now: datetime,
) -> tuple[Decision, Move]:
    found = standing.subscription
    is_later = decision.effective_at > now
    if is_later or not decision.preview.total:
        return _free(standing, decision, name)
    return decision, charging(found, terms, decision, found.payment_method_id)


def _changing(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    decision: Decision,
    command: ChangeSubscription,
    now: datetime,
) -> tuple[Decision, Move]:
    found = standing.subscription
    if decision.effective_at > now:
        return _free(standing, decision, "change_scheduled")
    if decision.kind is StepKind.UNDO:
        return _free(standing, decision, "undone")
    if not decision.preview.total:
        return _free(standing, decision, "changed")
    method_id = None if command.way else found.payment_method_id
    return decision, charging(found, terms, decision, method_id, way=command.way)


def _quoted_at(
    standing: SubscriptionStanding, command: ChangeSubscription, now: datetime
) -> datetime:
    """The instant that is charged for. Raises InvalidRequest for a quote that no longer holds: one
    is told in whole seconds, and does not hold either where money went back within its second."""
    at, found = command.quoted_at, standing.subscription
    if at is None or at == found.period.end:
        return now
    is_refunded_since = standing.refunded_at is not None and standing.refunded_at > at
    is_fresh = max(now - QUOTE_LIFE, whole_second(found.updated_at)) <= at <= now
    if is_refunded_since or not is_fresh:
        raise InvalidRequest(
            "quoted_at is that of no preview of the last ten minutes, or the subscription or what"
            " was refunded of it has changed since: preview it again",
            param="quoted_at",
        )
    return at


def _require_quoted(found: Subscription, command: ChangeSubscription, decision: Decision) -> None:
    """What was previewed for the period's end happens then, and costs the same until then. Raises
    InvalidRequest where the change would happen at another time."""
    quoted_at = command.quoted_at
    if quoted_at == found.period.end and decision.effective_at != quoted_at:
        raise InvalidRequest(
            "quoted_at is the period's end, and the change would take effect at once",
            param="quoted_at",
        )


def _other_method(
    standing: SubscriptionStanding, command: ChangeMethod, now: datetime
) -> tuple[Decision, Move]:
    found, debt = standing.subscription, standing.debt
    decision = change_method(
        found,
        command.gateway,
        command.payment_method_id,
        now,
        backup_payment_method_id=command.backup_payment_method_id,
    )
    if debt is not None:
        debt = debt.model_copy(
            update={
                "method_id": command.payment_method_id,
                "method_since": now,
                "backup_method_id": command.backup_payment_method_id,
                "not_before": None,
            }
        )
    move = Move(
        event="subscription.method_changed",
        subscription=decision.after,
        debt=debt,
        is_other_method=command.payment_method_id != found.payment_method_id,
    )
    return decision, move


def _pay(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    command: PaySubscription,
    now: datetime,
) -> tuple[Decision, Move]:
    found = standing.subscription
    _require_gateway(found, command.way.gateway)
    if found.status is _S.PAST_DUE:
        decision = payment(found, now)
        move = charging(found, terms, decision, None, way=command.way)
        return decision, move.model_copy(update={"debt": standing.debt})
    decision = _renewal_ahead(standing, terms)
    return decision, charging(found, terms, decision, None, way=command.way)


def _renewal_ahead(standing: SubscriptionStanding, terms: SubscriptionTerms) -> Decision:
    """The renewal that a customer without a mandate was asked for, and pays before it is due."""
    found = standing.subscription
    is_asked = (
        found.status in (_S.ACTIVE, _S.TRIALING)
        and found.payment_method_id is None
        and standing.announced is not None
    )
    decision = renewal_of(standing, terms) if is_asked else None
    if decision is None:
        raise SubscriptionNotChangeable("there is nothing to be paid")
    return decision


def _require_gateway(found: Subscription, gateway: GatewayName) -> None:
    if gateway is not GatewayName.STRIPE and found.plan.currency != "CNY":
        raise InvalidRequest(f"{gateway} takes CNY only", param="gateway")


def _operate(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    command: OperateSubscription,
    now: datetime,
) -> tuple[Decision, Move]:
    found, data = standing.subscription, _audit(command)
    if command.action is OperatorAction.MOVE:
        if command.until is None:
            raise InvalidRequest("say to when the period's end is moved", param="until")
        decision = move_end(found, command.until, now)
        move = Move(event="subscription.period_moved", subscription=decision.after, data=data)
        return decision, move
    if found.status is not _S.PAST_DUE or standing.debt is None:
        raise SubscriptionNotChangeable("nothing is owed")
    decision = payment(found, now)
    if command.action is OperatorAction.WAIVE:
        forgiven = waive(found, now)
        free = decision.preview.model_copy(
            update={"lines": (), "total": 0, "balance_after": forgiven.balance}
        )
        decision = decision.model_copy(update={"preview": free, "after": forgiven})
        return decision, Move(event="subscription.waived", subscription=forgiven, data=data)
    if found.payment_method_id is None:
        raise SubscriptionNotChangeable("it has no saved method to be charged")
    allowed = allowed_from(terms.schedule, standing.debt, found.payment_method_id, now)
    if allowed > now:
        raise SubscriptionNotChangeable(
            f"card networks allow no more tries of its method before {allowed:%Y-%m-%d %H:%M} UTC"
        )
    move = retry(standing, terms, found.payment_method_id, now)
    return decision, move.model_copy(update={"data": data})


def quoted(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    command: SubscriptionCommand,
    now: datetime,
) -> Quote:
    """What the command would come to, given now. Raises as `commanded`."""
    decision, move = commanded(standing, terms, command, now)
    late: tuple[Step, ...] = ()
    renewal = None
    if decision.after.status in (_S.ACTIVE, _S.TRIALING):
        renewal = renewal_of(SubscriptionStanding(subscription=decision.after, version=0), terms)
    if renewal is not None:
        debt = Debt(
            due_at=renewal.effective_at,
            ends_at=renewal.after.period.end,
            zone=decision.after.zone,
            method_id=decision.after.payment_method_id,
            backup_method_id=decision.after.backup_payment_method_id,
        )
        late = timetable(terms.schedule, debt, INSUFFICIENT)
    return Quote(
        kind=decision.kind,
        change=decision.change,
        effective_at=decision.effective_at,
        preview=decision.preview,
        refund=decision.refund,
        payment_method_id=_charged_to(decision, move),
        subscription=decision.after,
        if_unpaid=late,
    )


def _charged_to(decision: Decision, move: Move) -> str | None:
    """What is charged later is so to the saved method that there is."""
    if move.charge is not None:
        return move.charge.method_id
    return decision.after.payment_method_id if decision.preview.total else None


def _audit(command: OperateSubscription) -> dict[str, str]:
    return {"reason": command.reason, "operated_by": command.operated_by}
