"""Canceled at the period's end while a charge is under way, or just made: what that comes to in
each case, what is told of it, and how it is taken back."""

from datetime import datetime, timedelta

import pytest

from billing.charges import Wanted
from billing.dunning import DunningSchedule
from billing.errors import SubscriptionNotChangeable
from billing.lifecycle import at_period_end, pause, resume
from billing.membership import Grant, GrantReason, granted, standing_at
from billing.moves import ahead_due, first, on_charge_ended, on_time, renewal_of, when_due
from billing.moves import start_of as subscription_of
from billing.payment import GatewayName, PaymentStatus
from billing.plans import Tier
from billing.subscription import StepKind, SubscriptionStatus
from billing.subscription_commands import commanded, quoted
from billing.subscription_messages import (
    Announced,
    CancelSubscription,
    ChangeSubscription,
    Charge,
    ChargeEnd,
    ChargeStatus,
    PaySubscription,
    ResumeSubscription,
    SubscriptionStanding,
)
from billing.upcoming import upcoming_of
from tests.billing.subscriptions import BEGIN, plan, running
from tests.workflows.scripted_subscription import HARD, METHOD_ID, subscription_start

S = SubscriptionStatus
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LEAVE = CancelSubscription()
BACK = ResumeSubscription()
START = subscription_start("sub_1", BEGIN, gateway=GatewayName.WECHATPAY, bought=plan())
TERMS = START.terms
ACTIVE = running().model_copy(
    update={"gateway": GatewayName.WECHATPAY, "payment_method_id": METHOD_ID}
)
BY_HAND = ACTIVE.model_copy(update={"payment_method_id": None})
END = ACTIVE.period.end
NEXT_END = at_period_end(ACTIVE).after.period.end


def begun(standing: SubscriptionStanding, wanted: Wanted | None, at: datetime) -> Charge:
    assert wanted is not None
    return Charge(
        number=2,
        payment_id="pay_2",
        kind=wanted.kind,
        way=wanted.way,
        method_id=wanted.method_id,
        is_due=wanted.is_due,
        decision=wanted.decision,
        opened_at=at,
        expires_at=at + 2 * HOUR,
    )


def with_charge(standing: SubscriptionStanding, at: datetime) -> SubscriptionStanding:
    """What is due begins to be charged."""
    move = on_time(standing, TERMS, at)
    return standing.model_copy(update={"charge": begun(standing, move.charge, at)})


def renewing() -> SubscriptionStanding:
    """The period is over, and the saved method charged for the next."""
    return with_charge(SubscriptionStanding(subscription=ACTIVE, version=2), END)


def ahead() -> SubscriptionStanding:
    """The next period's code is shown two days ahead."""
    announced = Announced(number=2, sent_at=END - 3 * DAY, amount=BY_HAND.plan.amount)
    asked = SubscriptionStanding(subscription=BY_HAND, version=2, announced=announced)
    _, move = commanded(asked, TERMS, PaySubscription(way=TERMS.way), END - 2 * DAY)
    return asked.model_copy(update={"charge": begun(asked, move.charge, END - 2 * DAY)})


def owing() -> SubscriptionStanding:
    """The period is over, nothing was charged for the next, and its customer is to pay."""
    late = on_time(SubscriptionStanding(subscription=BY_HAND, version=2), TERMS, END)
    return SubscriptionStanding(subscription=late.subscription, version=3, debt=late.debt)


def owing_with_a_code() -> SubscriptionStanding:
    owed = owing()
    _, move = commanded(owed, TERMS, PaySubscription(way=TERMS.way), END)
    return owed.model_copy(update={"charge": begun(owed, move.charge, END)})


def changing() -> SubscriptionStanding:
    """Its upgrade is to be paid by a code."""
    asked = SubscriptionStanding(subscription=BY_HAND, version=2)
    upgrade = ChangeSubscription(plan=plan(Tier.SUPER), way=TERMS.way)
    _, move = commanded(asked, TERMS, upgrade, BEGIN + DAY)
    return asked.model_copy(update={"charge": begun(asked, move.charge, BEGIN + DAY)})


def waking() -> SubscriptionStanding:
    """Paused since its period's end, and charged as the pause is over."""
    until = END + 9 * DAY
    asleep = at_period_end(pause(ACTIVE, BEGIN, at_period_end=True, until=until).after).after
    return with_charge(SubscriptionStanding(subscription=asleep, version=3), until)


def paid(standing: SubscriptionStanding) -> SubscriptionStanding:
    return standing.model_copy(update={"charge_end": end_of(standing, is_paid=True)})


def end_of(standing: SubscriptionStanding, *, is_paid: bool) -> ChargeEnd:
    assert standing.charge is not None
    status = PaymentStatus.SUCCEEDED if is_paid else PaymentStatus.FAILED
    failure = None if is_paid else HARD
    return ChargeEnd(payment_id=standing.charge.payment_id, status=status, failure=failure)


def left(standing: SubscriptionStanding, at: datetime) -> SubscriptionStanding:
    """The standing once the cancel at the period's end is written."""
    _, move = commanded(standing, TERMS, LEAVE, at)
    assert move.event == "subscription.cancellation_scheduled"
    return standing.model_copy(update={"subscription": move.subscription, "debt": move.debt})


def grant_of(standing: SubscriptionStanding, at: datetime) -> Grant:
    return granted([(standing_at(standing, DunningSchedule(), at), at)])


UNDER_WAY = {
    "renewing": (renewing, END + HOUR),
    "ahead": (ahead, END - DAY),
    "owing": (owing_with_a_code, END + HOUR),
    "waking": (waking, END + 9 * DAY + HOUR),
    "changing": (changing, BEGIN + DAY + HOUR),
}
each = pytest.mark.parametrize("name", UNDER_WAY)


@each
def test_paid_it_runs_for_what_was_paid_and_then_ends(name: str) -> None:
    made, at = UNDER_WAY[name]
    leaving = left(made(), at)
    assert leaving.charge is not None
    paid_for = leaving.charge.decision.after.period
    at = max(at, leaving.charge.decision.effective_at)
    move = on_charge_ended(leaving, end_of(leaving, is_paid=True), TERMS, at)
    found = move.subscription
    assert (found.status, found.period) == (S.ACTIVE, paid_for)
    assert (found.cancel_at_period_end, move.closed) == (True, ChargeStatus.PAID)
    assert found.canceled_at == leaving.subscription.canceled_at
    standing = SubscriptionStanding(subscription=found, version=9)
    assert ahead_due(standing, TERMS) is None
    assert when_due(standing, TERMS) == paid_for.end
    over = on_time(standing, TERMS, paid_for.end).subscription
    assert (over.status, over.ended_at) == (S.CANCELED, paid_for.end)


@each
def test_not_paid_it_ends_with_what_was_paid(name: str) -> None:
    made, at = UNDER_WAY[name]
    leaving = left(made(), at)
    move = on_charge_ended(leaving, end_of(leaving, is_paid=False), TERMS, at)
    found = move.subscription
    assert (move.closed, move.debt) == (ChargeStatus.FAILED, None)
    if name in ("ahead", "changing"):
        assert (found.status, found.period.end) == (S.ACTIVE, END)
        assert found.cancel_at_period_end
        assert move.event == f"subscription.{'change' if name == 'changing' else 'charge'}_failed"
    else:
        assert (found.status, found.ended_at) == (S.CANCELED, at)
        assert move.event == "subscription.canceled"


@each
def test_ended_at_once_nothing_is_to_come(name: str) -> None:
    made, at = UNDER_WAY[name]
    standing = made()
    _, move = commanded(standing, TERMS, CancelSubscription(at_period_end=False), at)
    assert upcoming_of(standing.model_copy(update={"subscription": move.subscription}), at) == ()


@each
def test_taken_back_it_is_as_if_it_had_never_been(name: str) -> None:
    made, at = UNDER_WAY[name]
    standing = made()
    leaving = left(standing, at)
    decision, move = commanded(leaving, TERMS, BACK, at + HOUR / 2)
    assert (decision.kind, move.event) == (StepKind.UNDO, "subscription.undone")
    assert (move.debt, move.is_abandoning) == (standing.debt, False)
    back = leaving.model_copy(update={"subscription": move.subscription, "debt": move.debt})
    later = max(at + HOUR, standing.charge.decision.effective_at if standing.charge else at)
    for is_paid in (True, False):
        ended = [
            on_charge_ended(one, end_of(one, is_paid=is_paid), TERMS, later)
            for one in (standing, back)
        ]
        plain, undone = [one.subscription.model_dump(exclude={"updated_at"}) for one in ended]
        assert plain == undone
        assert ended[0].debt == ended[1].debt


@pytest.mark.parametrize(
    ("name", "is_closed"),
    [("renewing", False), ("ahead", True), ("owing", True), ("changing", False)],
)
def test_only_a_code_for_another_period_is_closed(name: str, is_closed: bool) -> None:
    """A saved method may be charged already, and what is left may still be changed."""
    made, at = UNDER_WAY[name]
    _, move = commanded(made(), TERMS, LEAVE, at)
    assert move.is_abandoning is is_closed
    assert not commanded(paid(made()), TERMS, LEAVE, at)[1].is_abandoning


def test_paid_ahead_it_ends_with_the_period_that_is_paid() -> None:
    at = END - DAY
    standing = paid(ahead())
    quote = quoted(standing, TERMS, LEAVE, at)
    assert (quote.effective_at, quote.preview.total, quote.if_unpaid) == (NEXT_END, 0, ())
    leaving = left(standing, at)
    assert leaving.ends_at == NEXT_END
    grant = grant_of(leaving, at)
    assert (grant.until, grant.reason) == (NEXT_END, GrantReason.ENDING)
    assert grant_of(standing, at).until == END
    told = [(one.kind, one.at, one.amount) for one in upcoming_of(leaving, at)]
    assert told == [(StepKind.RENEWAL, END, 0), (StepKind.CANCELLATION, NEXT_END, 0)]
    back = commanded(leaving, TERMS, BACK, at)[1].subscription
    told = [
        (one.kind, one.at, one.amount)
        for one in upcoming_of(leaving.model_copy(update={"subscription": back}), at)
    ]
    assert told[:2] == [
        (StepKind.RENEWAL, END, 0),
        (StepKind.RENEWAL, NEXT_END, BY_HAND.plan.amount),
    ]
    with pytest.raises(SubscriptionNotChangeable, match="until that begins, at 2026-02-28"):
        commanded(standing, TERMS, PaySubscription(way=TERMS.way), at)


def test_paid_ahead_on_another_tier_this_one_is_renewed_and_that_one_ends() -> None:
    standing = paid(ahead())
    assert standing.charge is not None
    decision = standing.charge.decision
    dearer = decision.after.model_copy(update={"plan": plan(Tier.SUPER)})
    decision = decision.model_copy(update={"after": dearer})
    charge = standing.charge.model_copy(update={"decision": decision})
    leaving = left(standing.model_copy(update={"charge": charge}), END - DAY)
    grant = grant_of(leaving, END - DAY)
    assert (grant.tier, grant.until, grant.reason) == (Tier.BASIC, END, GrantReason.PAID)


def test_a_code_that_is_closed_is_told_as_not_paid() -> None:
    at = END - DAY
    leaving = left(ahead(), at)
    assert quoted(ahead(), TERMS, LEAVE, at).effective_at == END
    assert (leaving.ends_at, grant_of(leaving, at).until) == (None, END)
    [only] = upcoming_of(leaving, at)
    assert (only.kind, only.at) == (StepKind.CANCELLATION, END)
    at = END + HOUR
    assert quoted(owing_with_a_code(), TERMS, LEAVE, at).effective_at == at
    [only] = upcoming_of(left(owing_with_a_code(), at), at)
    assert (only.kind, only.at, only.status) == (StepKind.CANCELLATION, at, S.CANCELED)


def test_a_charge_under_way_is_told_as_paid_and_grants_meanwhile() -> None:
    at = END + HOUR
    assert quoted(renewing(), TERMS, LEAVE, at).effective_at == NEXT_END
    leaving = left(renewing(), at)
    grant = grant_of(leaving, at)
    assert (grant.tier, grant.until, grant.reason) == (Tier.BASIC, None, GrantReason.RENEWING)
    assert leaving.ends_at is None
    told = [(one.kind, one.at, one.amount) for one in upcoming_of(leaving, at)]
    assert told == [
        (StepKind.RENEWAL, END, ACTIVE.plan.amount),
        (StepKind.CANCELLATION, NEXT_END, 0),
    ]


@pytest.mark.parametrize(
    "standing", [SubscriptionStanding(subscription=ACTIVE, version=2), owing()]
)
def test_where_nothing_is_charged_yet_it_ends_at_once(standing: SubscriptionStanding) -> None:
    """A window is waited for, or a payday, or the customer."""
    at = END + HOUR
    quote = quoted(standing, TERMS, LEAVE, at)
    assert (quote.effective_at, quote.subscription.status) == (at, S.CANCELED)
    _, move = commanded(standing, TERMS, LEAVE, at)
    assert (move.event, move.debt, move.charge) == ("subscription.canceled", None, None)
    assert not move.is_abandoning


def test_a_notice_that_was_sent_lapses_and_stands_again_once_that_is_taken_back() -> None:
    at = END - DAY
    announced = Announced(
        number=2, method_id=METHOD_ID, sent_at=END - 4 * DAY, amount=ACTIVE.plan.amount
    )
    standing = SubscriptionStanding(subscription=ACTIVE, version=2, announced=announced)
    leaving = left(standing, at)
    assert renewal_of(leaving, TERMS) is None
    assert (leaving.ends_at, leaving.announced) == (END, announced)
    ended = on_time(leaving, TERMS, END)
    assert (ended.charge, ended.subscription.status) == (None, S.CANCELED)
    back = leaving.model_copy(update={"subscription": resume(leaving.subscription, at).after})
    assert ahead_due(back, TERMS) is None
    assert on_time(back, TERMS, END).charge is not None


def test_before_its_first_payment_it_says_what_to_do() -> None:
    waiting = SubscriptionStanding(subscription=subscription_of(START), version=1)
    charge = begun(waiting, first(waiting, TERMS, BEGIN).charge, BEGIN)
    for standing in (waiting, waiting.model_copy(update={"charge": charge})):
        with pytest.raises(SubscriptionNotChangeable, match="at_period_end false"):
            commanded(standing, TERMS, LEAVE, BEGIN + HOUR)
