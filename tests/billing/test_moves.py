"""The process of a subscription, played with chance against what must hold of it at every step:
commands, payments' ends and the clock in any order."""

import random
from datetime import timedelta

import pytest

from billing.calendar import Cycle
from billing.charges import Move, announced_after
from billing.dunning import Try
from billing.errors import BillingError, InvalidRequest, SubscriptionNotChangeable
from billing.moves import (
    ahead_due,
    asked_ahead,
    on_charge_ended,
    on_time,
    renewal_of,
    uncarried,
    when_due,
)
from billing.moves import start_of as subscription_of
from billing.payment import DeclineClass, GatewayName, PaymentStatus
from billing.plans import Tier
from billing.subscription import Access, StepKind, SubscriptionStatus, When
from billing.subscription_commands import commanded, quoted
from billing.subscription_messages import (
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    Charge,
    ChargeEnd,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    PaySubscription,
    ResumeSubscription,
    SubscriptionCommand,
    SubscriptionStanding,
)
from tests.billing.subscriptions import BEGIN, plan
from tests.workflows.scripted_subscription import HARD, METHOD_ID, SOFT, subscription_start

STEPS = 50
BACKUP_ID = "pm_01hf7yat00e00000000000000b"
_TIERS = (Tier.BASIC, Tier.PREMIUM, Tier.SUPER)
_CYCLES = (Cycle.MONTHLY, Cycle.QUARTERLY, Cycle.YEARLY)


class Life:
    """One subscription as its workflow would keep it. `taken` is what its payments came to,
    `periods` the numbers of those that were paid for, `given` what was to be given back."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        gateway = self.chance.choice(list(GatewayName))
        method_id = self.chance.choice([METHOD_ID, None])
        self.start = subscription_start(
            "sub_1",
            BEGIN,
            bought=plan(self.chance.choice(_TIERS), self.chance.choice(_CYCLES)),
            gateway=gateway,
            method_id=method_id,
            trial_days=self.chance.choice([0, 0, 14]),
        )
        self.now = BEGIN
        self.standing = SubscriptionStanding(subscription=subscription_of(self.start), version=1)
        self.taken = self.given = 0
        self.periods: list[int] = []
        self.returned = self.left_in_charges = 0

    def step(self) -> None:
        """One thing that happens: by itself, at the payment's end, or by command."""
        standing = self.standing
        if standing.giving_back is not None:
            self._give_back()
        elif standing.charge is not None and self.chance.random() < 0.6:
            self._end_charge(standing.charge)
        elif self.chance.random() < 0.4:
            self._command()
        else:
            self._wait()

    def _wait(self) -> None:
        due = when_due(self.standing, self.start.terms)
        ahead = ahead_due(self.standing, self.start.terms)
        if due is not None and due <= self.now:
            move = on_time(self.standing, self.start.terms, self.now)
            is_carried = move.charge is None or move.charge.method_id is None
            if not is_carried and self.chance.random() < 0.1:
                move = uncarried(move, self.standing, self.now)
            self._apply(move)
            return
        if ahead is not None and ahead <= self.now and (due is None or ahead < due):
            decision = renewal_of(self.standing, self.start.terms)
            assert decision is not None
            if self.standing.subscription.payment_method_id is None:
                self._apply(asked_ahead(self.standing, decision, self.now))
                return
        until = due if due is not None and due > self.now else self.now + timedelta(days=20)
        share = self.chance.choice([0.3, 0.7, 1.0])
        self.now = max(self.now + (until - self.now) * share, self.now + timedelta(seconds=1))

    def _end_charge(self, charge: Charge) -> None:
        failure = self.chance.choice([None, None, SOFT, HARD])
        if failure is None and charge.decision.effective_at > self.now:
            # Paid ahead: it takes effect with its period.
            self.now = charge.decision.effective_at
        status = PaymentStatus.SUCCEEDED if failure is None else PaymentStatus.FAILED
        end = ChargeEnd(payment_id=charge.payment_id, status=status, failure=failure)
        if failure is None:
            self.taken += charge.decision.preview.total
            is_over = self.standing.subscription.status.is_terminal
            if not is_over and charge.kind is not StepKind.CHANGE:
                self.periods.append(charge.period_number)
        self.now += timedelta(seconds=self.chance.choice([1, 60]))
        self._apply(on_charge_ended(self.standing, end, self.start.terms, self.now))

    def _command(self) -> None:
        command = self._any_command()
        before = self.standing
        try:
            decision, move = commanded(before, self.start.terms, command, self.now)
        except BillingError:
            assert self.standing == before
            return
        self.left_in_charges += before.charge is not None and command == CancelSubscription()
        quote = quoted(before, self.start.terms, command, self.now)
        assert (quote.preview, quote.refund) == (decision.preview, decision.refund)
        if move.charge is not None:
            assert move.charge.decision.preview == quote.preview
        self._apply(move)

    def _any_command(self) -> SubscriptionCommand:
        chance, found = self.chance, self.standing.subscription
        if self.standing.charge is not None and chance.random() < 0.6:
            # Little else is taken then.
            return CancelSubscription() if chance.random() < 0.5 else ResumeSubscription()
        commands: list[SubscriptionCommand] = [
            CancelSubscription(at_period_end=chance.random() < 0.8),
            CancelSubscription(at_period_end=False, refund=True),
            PauseSubscription(at_period_end=chance.random() < 0.5),
            PauseSubscription(until=self.now + timedelta(days=chance.choice([3, 40]))),
            ResumeSubscription(),
            ResumeSubscription(),
            ChangeSubscription(plan=plan(chance.choice(_TIERS), chance.choice(_CYCLES))),
            ChangeSubscription(plan=plan(chance.choice(_TIERS), found.plan.cycle)),
            ChangeMethod(gateway=found.gateway, payment_method_id=METHOD_ID),
            ChangeMethod(
                gateway=found.gateway,
                payment_method_id=METHOD_ID,
                backup_payment_method_id=BACKUP_ID,
            ),
            PaySubscription(way=self.start.terms.way),
            OperateSubscription(action=OperatorAction.RETRY, reason="r", operated_by="k"),
            OperateSubscription(action=OperatorAction.WAIVE, reason="r", operated_by="k"),
            OperateSubscription(
                action=OperatorAction.MOVE,
                reason="r",
                operated_by="k",
                until=found.period.end + timedelta(days=2),
            ),
        ]
        return chance.choice(commands)

    def _give_back(self) -> None:
        wanted = self.standing.giving_back
        assert wanted is not None
        if wanted.amount is not None:
            self.given += wanted.amount
        else:
            self.returned += 1
        self.standing = self.standing.model_copy(update={"giving_back": None})

    def _apply(self, move: Move) -> None:
        before = self.standing
        charge = None if move.closed else before.charge
        if move.charge is not None:
            assert charge is None, "a second charge under way"
            assert not before.subscription.cancel_at_period_end, "charged for one that ends"
            assert move.charge.decision.preview.total > 0, "a charge of nothing"
            charge = Charge(
                number=before.charges + 1,
                payment_id=f"pay_{before.charges + 1}",
                kind=move.charge.kind,
                way=move.charge.way,
                method_id=move.charge.method_id,
                is_due=move.charge.is_due,
                decision=move.charge.decision,
                opened_at=self.now,
                expires_at=self.now + timedelta(hours=2),
            )
        self.standing = SubscriptionStanding(
            subscription=move.subscription,
            version=before.version + 1,
            charges=before.charges + (move.charge is not None),
            debt=move.debt,
            charge=charge,
            announced=announced_after(before, move),
            giving_back=move.giving_back,
        )
        self._holds(before)

    def _holds(self, before: SubscriptionStanding) -> None:
        was, found = before.subscription, self.standing.subscription
        assert not was.status.is_terminal or found.status is was.status, "an end was left"
        assert found.period.number - was.period.number in (0, 1), "a period was skipped"
        assert found.period.start < found.period.end
        assert len(self.periods) == len(set(self.periods)), "a period was paid twice"
        is_owing = found.status is SubscriptionStatus.PAST_DUE
        assert is_owing == (self.standing.debt is not None)
        assert (found.owed is not None) == (
            found.status in (SubscriptionStatus.PAST_DUE, SubscriptionStatus.INCOMPLETE)
        ) or found.status.is_terminal
        if found.status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIALING):
            assert found.access is Access.ACTIVE
        if found.status.is_terminal:
            assert found.access is Access.ENDED
            assert found.ended_at is not None
        assert self.given <= self.taken, "more was given back than was taken"


@pytest.mark.parametrize(
    "lives", [300, pytest.param(2_000, marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_whatever_happens_no_period_is_paid_twice_or_skipped(lives: int) -> None:
    statuses, left_in_charges = set(), 0
    for seed in range(lives):
        life = Life(seed)
        for _ in range(STEPS):
            life.step()
            statuses.add(life.standing.subscription.status)
        left_in_charges += life.left_in_charges
    assert left_in_charges > lives / 30
    assert statuses == set(SubscriptionStatus)


def test_what_is_paid_after_the_end_goes_back() -> None:
    life = next(life for life in map(Life, range(9)) if life.start.order.payment_method_id)
    while life.standing.charge is None:
        life._wait()
    ending = CancelSubscription(at_period_end=False)
    _, move = commanded(life.standing, life.start.terms, ending, life.now)
    assert move.is_abandoning
    life._apply(move)
    charge = life.standing.charge
    assert charge is not None
    end = ChargeEnd(payment_id=charge.payment_id, status=PaymentStatus.SUCCEEDED)
    returned = on_charge_ended(life.standing, end, life.start.terms, life.now)
    assert returned.giving_back is not None
    assert returned.giving_back.payment_id == charge.payment_id


def running() -> Life:
    """One that is active, will be renewed, and has nothing under way."""
    for life in map(Life, range(99)):
        for _ in range(STEPS):
            found = life.standing.subscription
            is_quiet = life.standing.charge is None and life.standing.giving_back is None
            is_going_on = not found.cancel_at_period_end and found.pause is None
            if found.status is SubscriptionStatus.ACTIVE and is_quiet and is_going_on:
                return life
            life.step()
    raise AssertionError("no life came so far")


def running_with_a_backup() -> Life:
    life = running()
    found = life.standing.subscription
    backed = ChangeMethod(
        gateway=found.gateway, payment_method_id=METHOD_ID, backup_payment_method_id=BACKUP_ID
    )
    life._apply(commanded(life.standing, life.start.terms, backed, life.now)[1])
    life.now = life.standing.subscription.period.end
    return life


@pytest.mark.parametrize("is_carried", [True, False])
def test_the_backup_is_charged_where_the_first_does_not_pay(is_carried: bool) -> None:
    life = running_with_a_backup()
    terms = life.start.terms
    due = on_time(life.standing, terms, life.now)
    if is_carried:
        life._apply(due)
        charge = life.standing.charge
        assert charge is not None
        assert charge.method_id == METHOD_ID
        end = ChargeEnd(payment_id=charge.payment_id, status=PaymentStatus.FAILED, failure=HARD)
        life._apply(on_charge_ended(life.standing, end, terms, life.now))
    else:
        life._apply(uncarried(due, life.standing, life.now))
    retried = on_time(life.standing, terms, life.now)
    assert retried.charge is not None
    assert retried.charge.method_id == BACKUP_ID
    refused = uncarried(retried, life.standing, life.now)
    assert refused.debt is not None
    assert refused.debt.backup_method_id is None
    assert refused.debt.method_id == (METHOD_ID if is_carried else None)


@pytest.mark.parametrize("is_command", [True, False])
def test_what_was_announced_of_one_method_counts_for_no_other(is_command: bool) -> None:
    life = running_with_a_backup()
    found, terms = life.standing.subscription, life.start.terms
    decision = renewal_of(life.standing, terms)
    assert decision is not None
    life._apply(asked_ahead(life.standing, decision, life.now))
    assert life.standing.announced is not None
    if is_command:
        swap = ChangeMethod(gateway=found.gateway, payment_method_id=BACKUP_ID)
        life._apply(commanded(life.standing, terms, swap, life.now)[1])
    else:
        due = on_time(life.standing, terms, life.now)
        life._apply(uncarried(due, life.standing, life.now))
    assert life.standing.announced is None


def test_an_operator_retries_no_more_than_networks_allow() -> None:
    life = running_with_a_backup()
    terms = life.start.terms
    life._apply(uncarried(on_time(life.standing, terms, life.now), life.standing, life.now))
    again = OperateSubscription(action=OperatorAction.RETRY, reason="r", operated_by="k")
    assert commanded(life.standing, terms, again, life.now)[1].charge is not None
    assert life.standing.debt is not None
    tried = Try(at=life.now, method_id=METHOD_ID, decline=DeclineClass.SOFT)
    debt = life.standing.debt.model_copy(update={"tries": (tried,) * 10})
    often = life.standing.model_copy(update={"debt": debt})
    with pytest.raises(SubscriptionNotChangeable):
        commanded(often, terms, again, life.now + timedelta(days=29))
    move = commanded(often, terms, again, life.now + timedelta(days=30))[1]
    assert move.charge is not None


def test_a_quote_of_what_is_charged_later_names_the_method_it_is_charged_to() -> None:
    life = running_with_a_backup()
    life.now -= timedelta(days=1)
    wanted = ChangeSubscription(plan=plan(amount=99999), when=When.PERIOD_END)
    quote = quoted(life.standing, life.start.terms, wanted, life.now)
    assert quote.preview.total
    assert quote.payment_method_id == METHOD_ID
    free = quoted(life.standing, life.start.terms, PauseSubscription(), life.now)
    assert free.payment_method_id is None


def test_a_quote_of_the_periods_end_holds_for_what_happens_then() -> None:
    life = running_with_a_backup()
    at = life.now = life.now - timedelta(days=1)
    terms = life.start.terms
    wanted = ChangeSubscription(plan=plan(amount=99999), when=When.PERIOD_END)
    quote = quoted(life.standing, terms, wanted, at)
    assert quote.effective_at == life.standing.subscription.period.end
    asked = wanted.model_copy(update={"quoted_at": quote.effective_at})
    decision, _ = commanded(life.standing, terms, asked, at + timedelta(minutes=1))
    assert (decision.effective_at, decision.preview) == (quote.effective_at, quote.preview)
    sooner = asked.model_copy(update={"when": When.NOW})
    with pytest.raises(BillingError):
        commanded(life.standing, terms, sooner, at + timedelta(minutes=1))


def test_a_quote_is_charged_as_it_was_shown_and_not_for_ever() -> None:
    life = running()
    at = life.now
    other = plan(
        Tier.SUPER if life.standing.subscription.plan.tier is not Tier.SUPER else Tier.BASIC
    )
    wanted = ChangeSubscription(plan=other)
    quote = quoted(life.standing, life.start.terms, wanted, at)
    later = at + timedelta(minutes=9)
    asked = wanted.model_copy(update={"quoted_at": at})
    decision, _ = commanded(life.standing, life.start.terms, asked, later)
    assert decision.preview == quote.preview
    with pytest.raises(BillingError):
        commanded(life.standing, life.start.terms, asked, at + timedelta(minutes=11))


@pytest.mark.parametrize(("after", "holds"), [(-1, True), (0, True), (0.2, False), (60, False)])
def test_a_quote_from_before_a_refund_holds_no_more(after: float, holds: bool) -> None:
    life = running()
    at = life.now
    refunded_at = at + timedelta(seconds=after)
    standing = life.standing.model_copy(update={"refunded": 10, "refunded_at": refunded_at})
    asked = ChangeSubscription(plan=plan(amount=99999), quoted_at=at)
    later = at + timedelta(minutes=2)
    if holds:
        commanded(standing, life.start.terms, asked, later)
    else:
        with pytest.raises(InvalidRequest, match="quoted_at") as refusal:
            commanded(standing, life.start.terms, asked, later)
        assert refusal.value.param == "quoted_at"
    commanded(standing, life.start.terms, asked.model_copy(update={"quoted_at": None}), later)
