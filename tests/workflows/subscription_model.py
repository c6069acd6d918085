"""A subscription as the rules alone would keep it, and its workflow's writes held against that.

The rules are pure (`billing.moves`, `billing.subscription_commands`). From the standing that they
have led to, `Model` works out what may be done next at an instant: each write of the workflow must
be exactly one of these, and what is due must have been written.
"""

import contextlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import activity

from billing.charges import Move, Wanted, announced_after
from billing.decisions import credited
from billing.errors import BillingError
from billing.identifiers import charge_payment_id
from billing.moves import (
    ahead_due,
    asked_ahead,
    on_charge_ended,
    on_time,
    renewal_of,
    rescheduled,
    retry_postponed,
    start_of,
    uncarried,
    when_due,
)
from billing.payment import GatewayName, PaymentStatus
from billing.subscription import StepKind
from billing.subscription_commands import commanded
from billing.subscription_messages import (
    Announced,
    Charge,
    ChargeEnd,
    ChargeStatus,
    PrepareCharge,
    PreparedCharge,
    SubscriptionCommand,
    SubscriptionStanding,
    SubscriptionStart,
    WriteSubscription,
)
from tests.workflows.scripted_subscription import ScriptedSubscription

PROMPT = timedelta(minutes=2)
"""The server's clock passes while activities run; what is due is not left for longer."""
_ANNOUNCED = "subscription.renewal_announced"
_RESCHEDULED = "subscription.rescheduled"


@dataclass(frozen=True)
class Asked:
    """What was asked about a mandate once so many `writes` were made, and the answer."""

    writes: int
    request: PrepareCharge
    answer: PreparedCharge

    @property
    def is_waiting(self) -> bool:
        return not self.answer.is_ready and self.answer.at is not None

    @property
    def is_put_off(self) -> bool:
        """Whether it was due, and was told to wait."""
        is_due = self.request.due_at <= self.request.now
        return self.is_waiting and is_due and self.request.kind is not StepKind.PAYMENT

    @property
    def is_unannounced(self) -> bool:
        """Whether it was asked ahead, and nothing was announced."""
        return self.request.now < self.request.due_at and self.answer.announced is None

    @property
    def until(self) -> datetime:
        """When it is asked again."""
        return self.answer.at or self.request.due_at


class ChancedRecord(ScriptedSubscription):
    """Mandates answer with chance: ready, ready later, announced, or not able to carry it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self._seed = seed

    @activity.defn(name="subscription.prepare")
    async def prepare(self, request: PrepareCharge) -> PreparedCharge:
        answer = self._answered(request)
        self.asked.append(Asked(len(self.writes), request, answer))
        return answer

    def _answered(self, request: PrepareCharge) -> PreparedCharge:
        chance = random.Random(f"{self._seed}/{len(self.asked)}")
        wechat = request.gateway is GatewayName.WECHATPAY
        announced = None
        if wechat and request.kind is StepKind.RENEWAL and chance.random() < 0.7:
            announced = Announced(number=request.number, sent_at=request.now, amount=request.amount)
            known = request.announced
            if known and known.number == request.number and known.amount >= request.amount:
                announced = known
        if request.due_at > request.now:
            return PreparedCharge(is_ready=False, at=request.due_at, announced=announced)
        roll = chance.random()
        if roll < 0.75:
            return PreparedCharge(is_ready=True, at=request.due_at)
        if roll < 0.93:
            at = request.now + timedelta(hours=chance.randint(1, 30))
            return PreparedCharge(is_ready=False, at=at, announced=announced)
        return PreparedCharge(is_ready=False)


def _is_waited_for(wanted: Wanted) -> bool:
    """Whether somebody waits for the charge, so that a card's limit is looked at before."""
    return wanted.kind is StepKind.SIGN_UP or not (wanted.is_due or wanted.kind is StepKind.PAYMENT)


class Model:
    """`command` is what somebody waits for. `charges` are those that the rules have begun, `paid`
    the numbers of the periods that were paid for, `settled` of those that were paid or free."""

    def __init__(self, start: SubscriptionStart, script: ChancedRecord) -> None:
        self.terms = start.terms
        self.script = script
        self.standings = [SubscriptionStanding(subscription=start_of(start), version=1)]
        self.command: SubscriptionCommand | None = None
        self.charges: list[Charge] = []
        self.paid: list[int] = []
        self.settled: set[int] = {0}
        self.taken = 0

    @property
    def standing(self) -> SubscriptionStanding:
        return self.standings[-1]

    @property
    def due(self) -> datetime | None:
        """When something happens next by itself, the mandate's own time being waited for."""
        due, ahead = when_due(self.standing, self.terms), ahead_due(self.standing, self.terms)
        waits = [one for one in self._asked_before(len(self.standings) - 1) if one.is_waiting]
        if due is not None and waits:
            due = max(due, waits[-1].until)
        silent = [one for one in self.script.asked if one.is_unannounced]
        if ahead is not None and silent:
            ahead = max(ahead, silent[-1].until)
        return min((one for one in (due, ahead) if one is not None), default=None)

    @property
    def end(self) -> ChargeEnd | None:
        """How the payment under way has ended, as its gateway knows it."""
        charge = self.standing.charge
        paying = self.script.payments.get(charge.payment_id) if charge else None
        if charge is None or paying is None or not paying.status.is_terminal:
            return None
        return ChargeEnd(payment_id=charge.payment_id, status=paying.status, failure=paying.failure)

    def is_quiet(self, now: datetime) -> bool:
        """Whether nothing is left that would have been done by now."""
        known = self.standing
        if known.giving_back is not None or self.script.known.version != known.version:
            return False
        if known.charge is None:
            return not self._is_untold and (self.due is None or self.due > now)
        if known.subscription.status.is_terminal or self._ended(now) is not None:
            return False
        return known.charge.payment_id in self.script.payments

    def follow(self) -> None:
        """Do by the rules what the workflow has written since."""
        for write in self.script.writes[len(self.standings) - 1 :]:
            moves = list(self._moves(write))
            move = next((one for one in moves if self._is(one, write)), None)
            assert move is not None, f"wrote {write!r}\nwhere the rules have {moves!r}"
            self._take(move, write)
        assert self.script.known.model_copy(update={"charge_end": None}) == self.standing

    def _moves(self, write: WriteSubscription) -> Iterator[Move]:
        known, now = self.standing, write.now
        if known.giving_back is not None:
            yield self._given_back()
            return
        end = self._ended(now)
        if end is not None:
            yield on_charge_ended(known, end, self.terms, now)
        asked = self._asked_before(len(self.standings) - 1)[-1:]
        # What a mandate was asked for had been decided as it was asked.
        for at in {now, *(one.request.now for one in asked)}:
            if self.command is not None:
                with contextlib.suppress(BillingError):
                    _, move = commanded(known, self.terms, self.command, at)
                    yield from self._carried(move, at, now, asked)
            due = when_due(known, self.terms)
            if due is not None and due <= at:
                self._is_prompt(due, at)
                yield from self._carried(on_time(known, self.terms, at), at, now, asked)
            yield from self._ahead(at, now, asked)

    def _carried(
        self, move: Move, at: datetime, now: datetime, asked: list[Asked]
    ) -> Iterator[Move]:
        """What becomes of a move once its mandate has answered."""
        known, wanted = self.standing, move.charge
        is_free = wanted is None or wanted.method_id is None
        is_card = known.subscription.gateway is GatewayName.STRIPE
        if wanted is None or is_free or (is_card and not _is_waited_for(wanted)):
            if at == now:
                yield move
            return
        if not asked or asked[-1].request.now != at:
            return
        request, answer = asked[-1].request, asked[-1].answer
        decision = wanted.decision
        assert (request.kind, request.amount, request.currency) == (
            wanted.kind,
            decision.preview.total,
            decision.preview.currency,
        )
        assert (request.method_id, request.number) == (
            wanted.method_id,
            decision.after.period.number,
        )
        is_owed = wanted.kind is StepKind.PAYMENT
        if answer.is_ready:
            yield move
        elif answer.at is None or not wanted.may_wait:
            yield uncarried(move, known, now)
        else:
            if answer.announced is not None and answer.announced != known.announced:
                yield self._announcing(answer.announced, request.amount)
            if is_owed:
                yield retry_postponed(known, self.terms, wanted, answer.at, now)
            else:
                yield rescheduled(known, answer.at)

    def _ahead(self, at: datetime, now: datetime, asked: list[Asked]) -> Iterator[Move]:
        known = self.standing
        ahead = ahead_due(known, self.terms)
        decision = renewal_of(known, self.terms) if ahead is not None and ahead <= at else None
        if decision is None:
            return
        if known.subscription.payment_method_id is None:
            if at == now:
                yield asked_ahead(known, decision, at)
        elif asked and asked[-1].answer.announced is not None:
            assert asked[-1].request.amount == decision.preview.total
            yield self._announcing(asked[-1].answer.announced, decision.preview.total)

    def _announcing(self, announced: Announced, amount: int) -> Move:
        return Move(
            event=_ANNOUNCED,
            subscription=self.standing.subscription,
            debt=self.standing.debt,
            data={"amount": amount},
            announced=announced,
        )

    def _given_back(self) -> Move:
        wanted, covered = self.standing.giving_back, self.script.covered
        assert wanted is not None
        [request] = [one for one in self.script.given_back if one.giving_back == wanted][-1:]
        rest = max(wanted.amount - covered, 0) if wanted.amount is not None else 0
        return Move(
            event="subscription.given_back",
            subscription=credited(self.standing.subscription, rest, request.now),
            data={"refund_ids": [], "refunded": covered, "credited": rest},
        )

    def _is(self, move: Move, write: WriteSubscription) -> bool:
        opened, wanted, data = write.opened, move.charge, dict(move.data)
        if (opened is None) != (wanted is None):
            return False
        if opened is not None and wanted is not None:
            asked = (wanted.kind, wanted.way, wanted.method_id, wanted.is_due, wanted.decision)
            if asked != (opened.kind, opened.way, opened.method_id, opened.is_due, opened.decision):
                return False
            data |= {
                "payment_id": self._next_payment_id(write.now),
                "kind": wanted.kind.value,
                "amount": wanted.decision.preview.total,
            }
        return (write.event, write.subscription, write.debt, write.data) == (
            move.event,
            move.subscription,
            move.debt,
            data,
        ) and (write.closed, write.giving_back) == (move.closed, move.giving_back)

    def _take(self, move: Move, write: WriteSubscription) -> None:
        known, charge = self.standing, None if move.closed else self.standing.charge
        if move.charge is not None:
            assert charge is None, "a second charge under way"
            assert write.opened is not None
            charge = Charge(
                number=known.charges + 1,
                payment_id=self._next_payment_id(write.now),
                kind=move.charge.kind,
                way=move.charge.way,
                method_id=move.charge.method_id,
                is_due=move.charge.is_due,
                decision=move.charge.decision,
                opened_at=write.now,
                expires_at=write.opened.expires_at,
            )
            self.charges.append(charge)
        after = SubscriptionStanding(
            subscription=move.subscription,
            version=known.version + 1,
            charges=known.charges + (move.charge is not None),
            debt=move.debt,
            charge=charge,
            announced=announced_after(known, move),
            giving_back=move.giving_back,
        )
        if move.closed is ChargeStatus.PAID and known.charge is not None:
            self.taken += known.charge.decision.preview.total
            if not move.giving_back and known.charge.kind is not StepKind.CHANGE:
                self.paid.append(known.charge.period_number)
        self.standings.append(after)
        self._holds(known, write)

    def _holds(self, before: SubscriptionStanding, write: WriteSubscription) -> None:
        was, known = before.subscription, self.standing
        found = known.subscription
        assert write.next_at == self._told_next(write)
        assert len(self.paid) == len(set(self.paid)), "a period was paid twice"
        assert found.period.number - was.period.number in (0, 1), "a period was skipped"
        if found.period.number > was.period.number:
            assert was.period.number in self.settled, "a period was left that nobody paid"
        if found.paid is not None:
            self.settled.add(found.period.number)

    def _ended(self, now: datetime) -> ChargeEnd | None:
        """The payment's end, once it takes effect: what was paid ahead does so with its period."""
        end, charge = self.end, self.standing.charge
        if end is None or charge is None or self.standing.subscription.status.is_terminal:
            return end
        is_ahead = charge.decision.effective_at > now
        return None if is_ahead and end.status is PaymentStatus.SUCCEEDED else end

    def _asked_before(self, number: int) -> list[Asked]:
        """What mandates were asked before that write: what they had announced, or put off, are
        writes of their own."""
        known = {number}
        while number and self.script.writes[number - 1].event in (_ANNOUNCED, _RESCHEDULED):
            number -= 1
            known.add(number)
        return [one for one in self.script.asked if one.writes in known]

    def _told_next(self, write: WriteSubscription) -> datetime | None:
        """When something happens next by itself: what is put off, not before its mandate's time."""
        number = len(self.standings) - 2
        asked = self._asked_before(number)[-1:]
        due = (when_due(self.standing, self.terms), ahead_due(self.standing, self.terms))
        at = min((one for one in due if one is not None), default=None)
        is_put_off = write.event in (_ANNOUNCED, _RESCHEDULED) and asked and asked[0].is_put_off
        return asked[0].until if is_put_off else at

    @property
    def _is_untold(self) -> bool:
        """Whether it is still to be written that a charge was put off."""
        asked = self.script.asked[-1:]
        since = {one.event for one in self.script.writes[asked[0].writes :]} if asked else set()
        return bool(asked) and asked[0].is_put_off and since <= {_ANNOUNCED}

    def _is_prompt(self, due: datetime, at: datetime) -> None:
        number = len(self.standings) - 1
        since = [due, *(write.now for write in self.script.writes[:number][-1:])]
        for one in self._asked_before(number):
            if one.request.now < at:
                since.append(one.answer.at or one.request.now)
        assert at - max(since) < PROMPT, f"due at {max(since)}, done at {at}"

    def _next_payment_id(self, now: datetime) -> str:
        instant = int(now.timestamp() * 1000)
        return charge_payment_id(self.standing.subscription.id, self.standing.charges + 1, instant)


def orders_of(model: Model) -> list[tuple[object, object]]:
    """Each payment that was ordered beside the charge that it was ordered for."""
    return [
        (
            order and (order.payment_id, order.amount_minor, order.currency),
            charge
            and (
                charge.payment_id,
                charge.decision.preview.total,
                charge.decision.preview.currency,
            ),
        )
        for order, charge in itertools.zip_longest(model.script.charged, model.charges)
    ]
