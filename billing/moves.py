"""What the process of a subscription does next, as pure decisions over what stands in its record.

A `Move` is one write of the record and what follows from it: a charge that begins, money that is
given back. `when_due` tells when something happens by itself and `on_time` what; `on_charge_ended`
what a payment has come to; commands are answered in `billing.subscription_commands`. Whatever a
charge pays for takes effect once it is paid (`Charge.decision`), and one charge is under way at a
time, so that each of them is decided upon what the one before has left.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from billing.charges import Move, Wanted, charging, left_by, minimum_of, payment, payment_of
from billing.decisions import updated
from billing.dunning import (
    Debt,
    DunningAction,
    Step,
    Try,
    carried_out,
    declined,
    next_step,
    postponed,
)
from billing.lifecycle import (
    at_period_end,
    cancel,
    expire,
    is_used_up,
    paid_up,
    resume,
    sign_up,
    unpaid,
)
from billing.payment import (
    DeclineClass,
    Failure,
    GatewayName,
    PaymentStatus,
)
from billing.rails import next_by_day, wechat_notice_window
from billing.subscription import (
    Decision,
    StepKind,
    Subscription,
    SubscriptionStatus,
)
from billing.subscription_messages import (
    Announced,
    Charge,
    ChargeEnd,
    ChargeStatus,
    GivingBack,
    SubscriptionStanding,
    SubscriptionStart,
    SubscriptionTerms,
)

_S: Final = SubscriptionStatus

UNPAID: Final = Failure(
    code="not_paid",
    advice=DeclineClass.NEEDS_CUSTOMER,
    message="the customer did not pay in the time there was for it",
)
ASKED_AHEAD: Final = timedelta(days=3)
"""How long before a renewal a customer without a mandate is asked for it, and may pay it."""
RETURN_REASON: Final = "the subscription had ended when this was paid"

_PAID_EVENTS: Final[Mapping[StepKind, str]] = {
    StepKind.SIGN_UP: "subscription.activated",
    StepKind.PAYMENT: "subscription.recovered",
    StepKind.RENEWAL: "subscription.renewed",
    StepKind.RESUMPTION: "subscription.resumed",
    StepKind.CHANGE: "subscription.changed",
}


def start_of(start: SubscriptionStart) -> Subscription:
    """The subscription as it is first written."""
    return sign_up(start.order, start.created_at, minimum=start.terms.minimum)


def first(standing: SubscriptionStanding, terms: SubscriptionTerms, now: datetime) -> Move:
    """The charge that the sign-up waits for; none where nothing is to be paid."""
    waiting = standing.subscription
    assert waiting.owed is not None, "a sign-up that owes nothing"
    running = paid_up(waiting, now)
    if not waiting.owed.total:
        name = "trial_started" if running.is_trial else "activated"
        return Move(event=f"subscription.{name}", subscription=running)
    decision = payment_of(StepKind.SIGN_UP, waiting.owed, running, now)
    return charging(waiting, terms, decision, waiting.payment_method_id, is_due=True)


def when_due(standing: SubscriptionStanding, terms: SubscriptionTerms) -> datetime | None:
    """When something happens by itself; None while a payment or a person decides."""
    found = standing.subscription
    if standing.charge is not None or found.status.is_terminal:
        return None
    if found.status is _S.PAUSED:
        return found.pause.ends_at if found.pause else None
    if found.status is _S.INCOMPLETE:
        return found.created_at
    if found.status is _S.PAST_DUE:
        return next_step(terms.schedule, _debt_of(standing)).at
    return found.period.end


def ahead_due(standing: SubscriptionStanding, terms: SubscriptionTerms) -> datetime | None:
    """When the renewal to come is announced: to WeChat Pay, which demands it of a contract, or to a
    customer who pays by hand. None where it is announced already, or needs no announcement. What
    has become dearer since is announced to WeChat Pay as soon as that takes notices."""
    found = standing.subscription
    if found.status not in (_S.ACTIVE, _S.TRIALING) or standing.charge is not None:
        return None
    is_by_hand = found.payment_method_id is None
    if not is_by_hand and found.gateway is not GatewayName.WECHATPAY:
        return None
    decision = renewal_of(standing, terms)
    if decision is None:
        return None
    is_told = announced_for(standing, decision) is not None
    if is_by_hand:
        return None if is_told else found.period.end - ASKED_AHEAD
    opens_at = wechat_notice_window(found.period.end).opens_at
    if not is_told:
        return opens_at
    if not is_above_announced(standing, terms):
        return None
    return max(opens_at, next_by_day(found.updated_at))


def renewal_of(standing: SubscriptionStanding, terms: SubscriptionTerms) -> Decision | None:
    """The renewal that the end of the running period brings, where it costs something."""
    decision = at_period_end(
        standing.subscription, minimum=minimum_of(standing.subscription, terms)
    )
    is_charged = decision.kind is StepKind.RENEWAL and decision.preview.total > 0
    return decision if is_charged else None


def announced_for(standing: SubscriptionStanding, decision: Decision) -> Announced | None:
    """What was announced of that very period."""
    announced = standing.announced
    number = decision.after.period.number
    return announced if announced and announced.number == number else None


def is_above_announced(standing: SubscriptionStanding, terms: SubscriptionTerms) -> bool:
    """Whether the renewal to come costs more than was announced of it, which WeChat Pay does not
    deduct: that takes another notice, whose days count anew."""
    decision = renewal_of(standing, terms)
    announced = announced_for(standing, decision) if decision else None
    return bool(decision and announced and decision.preview.total > announced.amount)


def asked_ahead(standing: SubscriptionStanding, decision: Decision, now: datetime) -> Move:
    """The customer is asked for a renewal to come."""
    total, period = decision.preview.total, decision.after.period
    return Move(
        event="subscription.payment_requested",
        subscription=standing.subscription,
        data={"amount": total, "due_at": decision.effective_at.isoformat()},
        announced=Announced(number=period.number, sent_at=now, amount=total),
    )


def on_time(standing: SubscriptionStanding, terms: SubscriptionTerms, now: datetime) -> Move:
    """What happens by itself at `when_due`, carried out now."""
    found = standing.subscription
    if found.status is _S.INCOMPLETE:
        return first(standing, terms, now)
    if found.status is _S.PAST_DUE:
        return _dunned(standing, terms, now)
    if found.status is _S.PAUSED:
        ends_at = found.pause and found.pause.ends_at
        decision = resume(found, ends_at or now, minimum=minimum_of(found, terms))
        return _due(found, terms, decision, "subscription.resumed")
    decision = at_period_end(found, minimum=minimum_of(found, terms))
    names = {
        StepKind.CANCELLATION: "subscription.canceled",
        StepKind.PAUSE: "subscription.paused",
        StepKind.RENEWAL: "subscription.renewed",
    }
    return _due(found, terms, decision, names[decision.kind])


def uncarried(move: Move, standing: SubscriptionStanding, now: datetime) -> Move:
    """The move where the mandate cannot carry its charge: the backup is charged, or the customer is
    asked."""
    wanted = move.charge
    assert wanted is not None, "no charge that could be carried"
    found = standing.subscription
    if wanted.kind is StepKind.PAYMENT:
        debt = _debt_of(standing)
        is_backup = wanted.method_id == debt.backup_method_id
        left = debt.method_id if is_backup else debt.backup_method_id
        debt = debt.model_copy(
            update={"method_id": left, "backup_method_id": None, "not_before": None}
        )
        event = "payment_failed" if left else "payment_requested"
        return Move(
            event=f"subscription.{event}", subscription=found, debt=debt, is_other_method=True
        )
    if wanted.is_due and wanted.kind is not StepKind.SIGN_UP:
        backup = found.backup_payment_method_id
        owed = _left_unpaid(found, wanted.decision, now, method_id=backup)
        return owed.model_copy(update={"is_other_method": True})
    return move.model_copy(update={"charge": wanted.model_copy(update={"method_id": None})})


def retry_postponed(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    wanted: Wanted,
    at: datetime,
    now: datetime,
) -> Move:
    """The gateway has told when what is owed may be charged."""
    assert wanted.method_id is not None, "nothing is asked of a gateway where the customer pays"
    return Move(
        event="subscription.retry_postponed",
        subscription=standing.subscription,
        debt=postponed(terms.schedule, _debt_of(standing), wanted.method_id, at, now),
        data={"retry_at": at.isoformat()},
    )


def rescheduled(standing: SubscriptionStanding, at: datetime) -> Move:
    """The gateway has told when the charge that is due may be made."""
    return Move(
        event="subscription.rescheduled",
        subscription=standing.subscription,
        debt=standing.debt,
        data={"charge_at": at.isoformat()},
    )


def on_charge_ended(
    standing: SubscriptionStanding, end: ChargeEnd, terms: SubscriptionTerms, now: datetime
) -> Move:
    """What the payment of the charge under way has come to."""
    charge, found = standing.charge, standing.subscription
    assert charge is not None, "no charge was under way"
    is_paid = end.status is PaymentStatus.SUCCEEDED
    data = {"payment_id": charge.payment_id, "kind": charge.kind.value}
    if found.status.is_terminal:
        back = GivingBack(payment_id=charge.payment_id, reason=RETURN_REASON)
        return Move(
            event="subscription.charge_returned" if is_paid else "subscription.charge_failed",
            subscription=found,
            data=data,
            closed=ChargeStatus.PAID if is_paid else ChargeStatus.FAILED,
            giving_back=back if is_paid else standing.giving_back,
        )
    if is_paid:
        after = updated(
            left_by(charge, found), now, latest_payment_id=charge.payment_id, failure=None
        )
        return Move(
            event=_PAID_EVENTS[charge.kind],
            subscription=after,
            data=data,
            closed=ChargeStatus.PAID,
        )
    is_leaving = found.cancel_at_period_end
    if is_leaving and (charge.kind is not StepKind.CHANGE or is_used_up(found, now)):
        failed = _left(found, end.failure, now)
    else:
        failed = _failed(standing, charge, end.failure or UNPAID, now)
    return failed.model_copy(update={"closed": ChargeStatus.FAILED, "data": data})


def _due(found: Subscription, terms: SubscriptionTerms, decision: Decision, event: str) -> Move:
    if not decision.preview.total:
        return Move(event=event, subscription=decision.after)
    if found.payment_method_id is None:
        return _left_unpaid(found, decision, decision.effective_at, method_id=None)
    return charging(found, terms, decision, found.payment_method_id, is_due=True)


def _left_unpaid(
    found: Subscription,
    decision: Decision,
    due_at: datetime,
    *,
    method_id: str | None,
    backup_method_id: str | None = None,
    failure: Failure | None = None,
    tries: tuple[Try, ...] = (),
) -> Move:
    """The period begins, and is owed. Its dunning counts from when it was first asked for, where
    that was later than it should have been."""
    late = updated(unpaid(found, decision), max(due_at, found.updated_at), failure=failure)
    debt = Debt(
        due_at=max(due_at, decision.effective_at),
        ends_at=late.period.end,
        zone=late.zone,
        method_id=method_id,
        backup_method_id=backup_method_id,
        tries=tries,
    )
    return Move(event="subscription.past_due", subscription=late, debt=debt)


def _left(found: Subscription, failure: Failure | None, now: datetime) -> Move:
    """The period that the customer wanted no more is not paid: it ends with the one before."""
    if not is_used_up(found, now):
        return Move(event="subscription.charge_failed", subscription=updated(found, now))
    ended = updated(cancel(found, now, at_period_end=True).after, now, failure=failure)
    return Move(event="subscription.canceled", subscription=ended)


def _failed(
    standing: SubscriptionStanding, charge: Charge, failure: Failure, now: datetime
) -> Move:
    found = standing.subscription
    if charge.kind is StepKind.SIGN_UP:
        ended = updated(expire(found, now).after, now, failure=failure)
        return Move(event="subscription.expired", subscription=ended)
    decline = failure.advice or DeclineClass.NEEDS_CUSTOMER
    if charge.kind is StepKind.PAYMENT:
        debt = _debt_of(standing)
        if charge.method_id is not None:
            debt = declined(debt, decline, failure.decline_code or failure.code)
        told = updated(found, now, failure=failure)
        return Move(event="subscription.payment_failed", subscription=told, debt=debt)
    if charge.is_due:
        tries: tuple[Try, ...] = ()
        if charge.method_id is not None:
            tried = Try(
                at=charge.opened_at,
                method_id=charge.method_id,
                decline=decline,
                decline_code=failure.decline_code or failure.code,
            )
            tries = (tried,)
        return _left_unpaid(
            found,
            charge.decision,
            charge.opened_at,
            method_id=found.payment_method_id,
            backup_method_id=found.backup_payment_method_id,
            failure=failure,
            tries=tries,
        )
    told = updated(found, now, failure=failure)
    return Move(event="subscription.change_failed", subscription=told, debt=standing.debt)


def _dunned(standing: SubscriptionStanding, terms: SubscriptionTerms, now: datetime) -> Move:
    found, debt = standing.subscription, _debt_of(standing)
    step = next_step(terms.schedule, debt)
    after = _carried_out(terms, debt, step, now)
    match step.kind:
        case DunningAction.RETRY:
            return retry(standing, terms, step.method_id, now)
        case DunningAction.ACCESS:
            assert step.access is not None
            told = updated(found, now, access=step.access)
            return Move(event="subscription.access_changed", subscription=told, debt=after)
        case DunningAction.REMIND:
            return Move(event="subscription.payment_reminder", subscription=found, debt=after)
        case DunningAction.ASK:
            return Move(event="subscription.payment_requested", subscription=found, debt=after)
        case DunningAction.END:
            return Move(event="subscription.expired", subscription=expire(found, now).after)
        case DunningAction.SETTLE:
            # The try's payment has ended, or it would be the charge under way: nobody knows how.
            unknown = declined(debt, DeclineClass.NEEDS_CUSTOMER, None)
            return Move(event="subscription.payment_failed", subscription=found, debt=unknown)


def retry(
    standing: SubscriptionStanding,
    terms: SubscriptionTerms,
    method_id: str | None,
    now: datetime,
) -> Move:
    """Charge what is owed to a saved method."""
    found, debt = standing.subscription, _debt_of(standing)
    step = Step(kind=DunningAction.RETRY, at=now, method_id=method_id)
    tried = _carried_out(terms, debt, step, now)
    return charging(found, terms, payment(found, now), method_id, debt=tried)


def _carried_out(terms: SubscriptionTerms, debt: Debt, step: Step, now: datetime) -> Debt:
    return carried_out(terms.schedule, debt, step, now)


def _debt_of(standing: SubscriptionStanding) -> Debt:
    assert standing.debt is not None, "past due without a debt"
    return standing.debt
