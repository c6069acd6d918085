"""Lives of subscriptions by chance, through their workflow on the time-skipping server: after each
step it stands where the pure rules lead, and has charged what they say and what was previewed.

As in `test_subscription` workflows are cached, and each life ends with its history replayed."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from billing.calendar import Cycle
from billing.charges import way_of
from billing.errors import BillingError
from billing.messages import GATEWAY_REPORTED, GatewayReport
from billing.payment import GatewayName, PaymentStatus
from billing.plans import Plan, Tier
from billing.subscription import StepKind, SubscriptionStatus, When
from billing.subscription_commands import Quote, quoted
from billing.subscription_messages import (
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    Charge,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    PaySubscription,
    ResumeSubscription,
    SubscriptionCommand,
)
from tests.billing.subscriptions import plan
from tests.workflows.scripted_subscription import HARD, METHOD_ID, SOFT
from tests.workflows.skipping import open_environment
from tests.workflows.subscribing import Bench, open_bench
from tests.workflows.subscription_model import ChancedRecord, Model, orders_of
from workflows import SubscriptionWorkflow

BEGIN = datetime(2040, 1, 1, tzinfo=UTC)
CHARGES = 200
LEAST_STEPS = 15
PATIENCE_SECONDS = 30
LIFE_SECONDS = 60
POLLS = 14
SOME = 7
STATUSES = tuple(one for one in SubscriptionStatus if one is not SubscriptionStatus.INCOMPLETE)
OFTEN = ("renewed", "recovered", "changed", "change_scheduled", "charged as promised")
SELDOM = (
    "CancelSubscription in a charge",
    "resumed",
    "undone",
    "given_back",
    "waived",
    "change_failed",
    "retry_postponed",
    "rescheduled",
)
_TIERS = (Tier.BASIC, Tier.PREMIUM, Tier.SUPER)
_CYCLES = (Cycle.MONTHLY, Cycle.MONTHLY, Cycle.QUARTERLY, Cycle.YEARLY)
_ZONES = ("Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "UTC")
_UPDATES: Final[dict[type, Any]] = {
    CancelSubscription: SubscriptionWorkflow.cancel,
    PauseSubscription: SubscriptionWorkflow.pause,
    ResumeSubscription: SubscriptionWorkflow.resume,
    ChangeSubscription: SubscriptionWorkflow.change,
    ChangeMethod: SubscriptionWorkflow.change_method,
    PaySubscription: SubscriptionWorkflow.pay,
    OperateSubscription: SubscriptionWorkflow.operate,
}


class Life:
    """One subscription. `seen` counts what has happened in it. `promised` is what the next charge
    was previewed to cost (minor units), after how many others."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.script = ChancedRecord(seed)
        self.script.covered = self.chance.choice([0, 100, 3000])
        self.script.outcomes.append(
            self.chance.choice([None] * 12 + [self.script.waits] * 3 + [HARD])
        )
        self.script.outcomes.extend(
            self.chance.choice([None] * 7 + [self.script.waits, SOFT, SOFT, HARD])
            for _ in range(CHARGES)
        )
        self.steps = self.chance.randint(20, 50)
        self.busy = self.chance.choice([0.25, 0.6])
        self.promised: tuple[int, int] | None = None
        self.seen: Counter[str] = Counter()
        self.bench: Bench
        self.model: Model

    async def lives(self, environment: WorkflowEnvironment) -> None:
        async with open_bench(environment, self.script) as self.bench:
            await self._sign_up()
            for step in range(self.steps):
                if self.model.standing.is_over:
                    break
                if step == self.steps - 1 and self.chance.random() < 0.6:
                    await self._command(CancelSubscription(at_period_end=False, refund=True))
                else:
                    await self._step()
                await self._settled()
                self._agrees()
            found = self.model.standing
            if found.is_over:
                assert await self.bench.ended() is found.subscription.status
            self._agrees()
            self.seen.update(name.removeprefix("subscription.") for name in self.script.names)

    @property
    def environment(self) -> WorkflowEnvironment:
        return self.bench.environment

    async def _now(self) -> datetime:
        return await self.environment.get_current_time()

    async def _sign_up(self) -> None:
        chance = self.chance
        gateway = chance.choice(list(GatewayName))
        self.currency = "CNY"
        if gateway is GatewayName.STRIPE:
            self.currency = chance.choice(["USD", "JPY", "KWD", "CNY"])
        # The server's clock begins today, and a seed is to lead to the same days always.
        begins_at = BEGIN + timedelta(seconds=chance.randrange(400 * 86400))
        await self.environment.sleep(begins_at - await self._now())
        start = await self.bench.start(
            bought=self._any_plan(),
            zone=chance.choice(_ZONES),
            gateway=gateway,
            method_id=chance.choice([METHOD_ID, METHOD_ID, None]),
            trial_days=chance.choice([0, 0, 14]),
        )
        terms = start.terms.model_copy(update={"minimum": chance.choice([1, 50])})
        start = start.model_copy(update={"terms": terms})
        self.model = Model(start, self.script)
        await self.bench.begin(start)
        await self._settled()

    async def _step(self) -> None:
        charge, roll = self.model.standing.charge, self.chance.random()
        if self.chance.random() < 0.1:
            # Its answer is lost on the way, and it is asked for again.
            self.script.forgets.add("write")
        is_awaited = charge is not None and self.model.end is None
        if is_awaited and roll < 0.1:
            await self._command(self._ending_command())
        elif charge is not None and is_awaited and roll < 0.6:
            await self._payer_acts(charge)
        elif roll < 1 - self.busy:
            await self._jump()
        else:
            mending = self._mending_command() if self.chance.random() < 0.7 else None
            await self._command(mending or self._sensible_command(await self._now()))

    async def _settled(self) -> None:
        """Wait for what is to be done by now. A payment's end is looked for by the poll."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for tries in itertools.count(1):
                self.model.follow()
                if self.model.is_quiet(await self._now()):
                    return
                await asyncio.sleep(0.005)
                if self.model.standing.charge is not None and tries % 20 == 0:
                    assert tries < 20 * POLLS, "no poll has found the payment's end"
                    await self.environment.sleep(timedelta(minutes=5))

    async def _payer_acts(self, charge: Charge) -> None:
        """The payer pays or does not, of which the gateway sends word, or does not."""
        paying = self.script.payments[charge.payment_id]
        paying.status = PaymentStatus.SUCCEEDED
        if self.chance.random() < 0.25:
            paying.status, paying.failure = PaymentStatus.FAILED, HARD
        if self.chance.random() < 0.5:
            report = GatewayReport(event_id=f"evt_{charge.number}", event_type="paid")
            payment = self.bench.client.get_workflow_handle(charge.payment_id)
            await payment.signal(GATEWAY_REPORTED, report)

    async def _jump(self) -> None:
        chance, now = self.chance, await self._now()
        most: tuple[int, ...] = (7200, 3 * 86400, 25 * 86400, 25 * 86400)
        if self.model.standing.debt is not None:
            most = most[:2]
        by = timedelta(seconds=chance.randrange(1, chance.choice(most)))
        due = self.model.due
        if due is not None and chance.random() < 0.4:
            by = due - now + timedelta(seconds=chance.choice([-30, 0, 30]))
        await self.environment.sleep(max(by, timedelta(seconds=1)))

    async def _command(self, command: SubscriptionCommand) -> None:
        """Command it, as was previewed; what cannot be previewed is refused in the same word."""
        before, writes = self.model.standing, len(self.model.standings)
        quote, refusal = None, None
        try:
            quote = quoted(before, self.model.terms, command, await self._now())
        except BillingError as problem:
            refusal = problem.code
        self.model.command = command
        name = type(command).__name__
        try:
            answer = await self.bench.handle.execute_update(_UPDATES[type(command)], command)
        except WorkflowUpdateFailedError as problem:
            if getattr(problem.cause, "type", None) != refusal:
                raise
            self.seen[f"{name} refused"] += 1
            return
        finally:
            self.model.follow()
            self.model.command = None
        assert quote is not None, (command, refusal)
        if before.charge is not None:
            self.seen[f"{name} in a charge"] += 1
        self.seen.update((name, "commands"))
        stood = self.model.standings[writes - 1 :]
        assert answer.subscription in [one.subscription for one in stood]
        began = [one for one in self.model.charges if one.number > before.charges]
        if answer.payment_id is not None and before.charge is None:
            assert answer.payment_id == began[0].payment_id
        if not isinstance(command, (PaySubscription, ChangeMethod)):
            self.promised = None
        if quote.kind is StepKind.CHANGE and quote.preview.total and not began:
            self.promised = (before.charges, quote.preview.total)
        if began:
            self._costs_what_was_shown(command, quote, began[0])

    def _costs_what_was_shown(
        self, command: SubscriptionCommand, quote: Quote, charge: Charge
    ) -> None:
        charged = charge.decision.preview
        assert charged.total == quote.preview.total
        if isinstance(command, ChangeSubscription) and command.quoted_at is not None:
            assert charged == quote.preview

    def _agrees(self) -> None:
        """Gateways were asked for the charges that the rules have, each once, and took as much."""
        assert all(order == charge for order, charge in orders_of(self.model))
        taken = sum(
            paying.order.amount_minor
            for paying in self.script.payments.values()
            if paying.status is PaymentStatus.SUCCEEDED
        )
        end, charge = self.model.end, self.model.standing.charge
        if charge is not None and end is not None and end.status is PaymentStatus.SUCCEEDED:
            taken -= charge.decision.preview.total
        assert taken == self.model.taken
        self.seen.update((self.model.standing.subscription.status, "steps"))
        number, total = self.promised or (len(self.model.charges), 0)
        for charge in self.model.charges[number : number + 1]:
            assert charge.kind in (StepKind.RENEWAL, StepKind.PAYMENT)
            assert charge.decision.preview.total == total
            self.promised = None
            self.seen["charged as promised"] += 1

    def _sensible_command(self, now: datetime) -> SubscriptionCommand:
        """One that is not refused, as far as chance soon finds one."""
        for _ in range(4):
            command = self._any_command(now)
            with contextlib.suppress(BillingError):
                quoted(self.model.standing, self.model.terms, command, now)
                break
        return command

    def _ending_command(self) -> SubscriptionCommand:
        """All that is taken while a charge is under way, but for an end at once."""
        is_leaving = self.model.standing.subscription.cancel_at_period_end
        return ResumeSubscription() if is_leaving else CancelSubscription()

    def _mending_command(self) -> SubscriptionCommand | None:
        """What most would do who owe something or are about to leave: or no life would be long."""
        found = self.model.standing.subscription
        if found.cancel_at_period_end:
            return ResumeSubscription()
        is_asked = found.payment_method_id is None and self.model.standing.announced is not None
        if is_asked or found.status is SubscriptionStatus.PAST_DUE:
            return PaySubscription(way=way_of(found, self.model.terms))
        return ResumeSubscription() if found.status is SubscriptionStatus.PAUSED else None

    def _any_plan(self) -> Plan:
        tier, cycle = self.chance.choice(_TIERS), self.chance.choice(_CYCLES)
        dearer = self.chance.choice([None, None, 12_345])
        return plan(tier, cycle, self.currency, amount=dearer)

    def _any_command(self, now: datetime) -> SubscriptionCommand:
        chance, found = self.chance, self.model.standing.subscription
        retried = OperateSubscription(
            action=OperatorAction.RETRY, reason="asked to", operated_by="key_1"
        )
        other = chance.choice([found.gateway, found.gateway, *GatewayName])
        quoted_at = chance.choice([now, now, now, None, now - timedelta(minutes=11)])
        changed = ChangeSubscription(
            plan=plan(chance.choice(_TIERS), found.plan.cycle, self.currency), quoted_at=quoted_at
        )
        moved = found.period.end + timedelta(days=2)
        until = now + timedelta(days=chance.choice([3, 40]))
        commands: list[tuple[int, SubscriptionCommand]] = [
            (8, changed),
            (6, changed.model_copy(update={"plan": self._any_plan()})),
            (5, changed.model_copy(update={"plan": self._any_plan(), "when": When.NOW})),
            (3, changed.model_copy(update={"plan": self._any_plan(), "when": When.PERIOD_END})),
            (2, CancelSubscription()),
            (2, PauseSubscription(at_period_end=chance.random() < 0.5)),
            (3, PauseSubscription(until=until, at_period_end=chance.random() < 0.5)),
            (8, ResumeSubscription()),
            (4, ChangeMethod(gateway=other, payment_method_id=chance.choice(["pm_2", None]))),
            (3, ChangeMethod(gateway=found.gateway, payment_method_id=METHOD_ID)),
            (5, PaySubscription(way=way_of(found, self.model.terms))),
            (2, retried),
            (2, retried.model_copy(update={"action": OperatorAction.WAIVE})),
            (2, retried.model_copy(update={"action": OperatorAction.MOVE, "until": moved})),
        ]
        if self.seen["steps"] > LEAST_STEPS and chance.random() < 0.05:
            leaving = CancelSubscription(at_period_end=False, refund=chance.random() < 0.7)
            ending = retried.model_copy(update={"action": OperatorAction.END})
            return leaving if chance.random() < 0.7 else ending
        weights = [weight for weight, _ in commands]
        return chance.choices([command for _, command in commands], weights)[0]


async def live(seed: int) -> Counter[str]:
    """A life that stands still is lived once more: the server now and then loses a workflow's task,
    and what stands still by a rule does so again."""
    try:
        return await _live(seed)
    except TimeoutError:
        return await _live(seed)


async def _live(seed: int) -> Counter[str]:
    life = Life(seed)
    try:
        async with asyncio.timeout(LIFE_SECONDS), open_environment() as environment:
            await life.lives(environment)
    except BaseException as problem:
        problem.add_note(f"live({seed}): {life.script.names}")
        raise
    return life.seen


@pytest.mark.parametrize(
    "lives",
    [
        pytest.param(SOME, marks=pytest.mark.timeout(300)),
        pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
    ids=["some", "all"],
)
async def test_lives_stand_where_the_rules_lead_and_cost_what_was_shown(
    lives: int, request: pytest.FixtureRequest
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(lives):
        seen += await live(seed)
    steps, charges, commands = (seen[one] for one in ("steps", "charge_started", "commands"))
    request.config.get_terminal_writer().line(
        f"\n{lives} lives: {steps} steps, {commands} commands, {charges} charges"
    )
    wanted = (*STATUSES, *OFTEN, *(SELDOM if lives > SOME else ()))
    assert not [one for one in wanted if not seen[one]]
