"""One subscription, from the sign-up to its end.

    open ──> wait for a command, a payment's end or the clock ──> write ──> charge, give back
                      └─ ended, and nothing is under way: this workflow ends

What is done is decided by `billing.moves` and `billing.subscription_commands`, one step after the
other; the record has all that is known, so that a new run goes on from it.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from billing.charges import Move, Wanted, way_of
from billing.errors import BillingError, SubscriptionNotChangeable
from billing.messages import Command
from billing.moves import (
    asked_ahead,
    on_charge_ended,
    on_time,
    renewal_of,
    retry_postponed,
    uncarried,
)
from billing.payment import GatewayName, PaymentStatus
from billing.subscription import StepKind, SubscriptionStatus
from billing.subscription_commands import commanded
from billing.subscription_messages import (
    METHOD_SIGNED,
    PAYMENT_ENDED,
    SUBSCRIPTION_WORKFLOW,
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    ChargeEnd,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    PaySubscription,
    ResumeSubscription,
    SubscriptionAnswer,
    SubscriptionCommand,
    SubscriptionOver,
    SubscriptionStart,
)
from workflows import policies
from workflows.subscription_calls import SubscriptionCalls
from workflows.subscription_patches import (
    ANNOUNCED_ANEW,
    COMMANDS_FIRST,
    REFUNDS_READ,
    is_limited,
    is_taken,
)

_ENDED_IN_TEMPORAL: Final = OperateSubscription(
    action=OperatorAction.END,
    reason="the workflow's cancellation was requested in Temporal",
    operated_by="temporal",
)


@dataclass
class _Job:
    """A command that somebody waits for, and what came of it."""

    command: SubscriptionCommand
    answer: SubscriptionAnswer | None = None
    refusal: ApplicationError | None = None

    @property
    def is_done(self) -> bool:
        return self.answer is not None or self.refusal is not None


@workflow.defn(name=SUBSCRIPTION_WORKFLOW)
class SubscriptionWorkflow(SubscriptionCalls):
    @workflow.init
    def __init__(self, start: SubscriptionStart) -> None:
        super().__init__(start)
        self._jobs: deque[_Job] = deque()
        self._end: ChargeEnd | None = None
        self._is_signed = False
        self._commands = 0
        self._first_number: int | None = None

    @workflow.run
    async def run(self, start: SubscriptionStart) -> SubscriptionOver:
        life = asyncio.create_task(self._live())
        while True:
            try:
                return await asyncio.shield(life)
            except asyncio.CancelledError:
                # A cancel request from Temporal is the operator's `end`; the process itself must
                # not stop half way through with money at a gateway.
                if life.done():
                    raise
                self._jobs.append(_Job(_ENDED_IN_TEMPORAL))

    async def _live(self) -> SubscriptionOver:
        if self._start.resumed:
            await self._read()
            self._is_signed = self._standing.signed is not None
            await self._start_payment()
            if self._subscription.status.is_terminal or self._standing.is_forgone:
                await self._abandon_payment()
        else:
            await self._open()
        self._first_number = self._subscription.period.number
        while True:
            while not self._is_over or self._jobs:
                await self._step()
                await self._continue_if_long()
            await workflow.wait_condition(
                lambda: workflow.all_handlers_finished() or bool(self._jobs)
            )
            if not self._jobs:
                return SubscriptionOver(
                    subscription_id=self._subscription.id, status=self._subscription.status
                )

    # What the application and operators command.

    @workflow.update
    async def create(self, command: Command) -> SubscriptionAnswer:
        """The subscription once its first payment is under way, or needless."""
        self._commands += 1
        await workflow.wait_condition(lambda: self._known is not None and self._has_begun)
        return self._answer()

    @workflow.update
    async def cancel(self, command: CancelSubscription) -> SubscriptionAnswer:
        """The subscription as it is once the command is carried out, as for each of these. Raises
        ApplicationError of the refusal's type, nothing having changed."""
        return await self._carried_out(command)

    @workflow.update
    async def pause(self, command: PauseSubscription) -> SubscriptionAnswer:
        return await self._carried_out(command)

    @workflow.update
    async def resume(self, command: ResumeSubscription) -> SubscriptionAnswer:
        return await self._carried_out(command)

    @workflow.update
    async def change(self, command: ChangeSubscription) -> SubscriptionAnswer:
        return await self._carried_out(command)

    @workflow.update
    async def change_method(self, command: ChangeMethod) -> SubscriptionAnswer:
        return await self._carried_out(command)

    @workflow.update
    async def pay(self, command: PaySubscription) -> SubscriptionAnswer:
        return await self._carried_out(command)

    @workflow.update
    async def operate(self, command: OperateSubscription) -> SubscriptionAnswer:
        return await self._carried_out(command)

    @workflow.signal(name=PAYMENT_ENDED)
    def payment_ended(self, end: ChargeEnd) -> None:
        self._end = end

    @workflow.signal(name=METHOD_SIGNED)
    def method_signed(self) -> None:
        self._is_signed = True

    # How it goes.

    async def _carried_out(self, command: SubscriptionCommand) -> SubscriptionAnswer:
        self._commands += 1
        job = _Job(command)
        self._jobs.append(job)
        await workflow.wait_condition(lambda: job.is_done)
        if job.refusal is not None:
            raise job.refusal
        assert job.answer is not None, "done without an answer"
        return job.answer

    async def _step(self) -> None:
        """One thing that is to be done; or sleep until there is one."""
        now = workflow.now()
        end = self._actionable_end(now)
        if self._standing.giving_back is not None:
            await self._give_back()
        elif end is not None:
            self._end = None
            await self._apply(on_charge_ended(self._standing, end, self._terms, now))
        elif self._may_take_signature:
            await self._take_signature()
        elif self._jobs:
            job = self._jobs.popleft()
            await self._carry_out(job)
        elif (due := self._due(self._standing)) is not None and due <= now:
            await self._on_time()
        elif (ahead := self._ahead(self._standing)) is not None and ahead <= now:
            await self._on_ahead()
        else:
            await self._sleep(now)

    async def _sleep(self, now: datetime) -> None:
        known = self._standing
        wake_at = [at for at in (self._due(known), self._ahead(known)) if at is not None]
        is_awaited = self._standing.charge is not None and self._known_end is None
        if is_awaited:
            wake_at.append(now + policies.SUBSCRIPTION_CHARGE_CHECK)
        elif self._known_end is not None and self._standing.charge is not None:
            wake_at.append(self._standing.charge.decision.effective_at)
        timeout = max(min(wake_at) - now, timedelta(milliseconds=1)) if wake_at else None
        before = self._end
        try:
            await workflow.wait_condition(
                lambda: bool(self._jobs) or self._may_take_signature or self._end is not before,
                timeout=timeout,
            )
        except TimeoutError:
            if is_awaited:
                await self._read()

    async def _take_signature(self) -> None:
        """Charge what the payer has signed for what the plan costs, in the old method's place."""
        self._is_signed = False
        await self._read()
        found, signed = self._subscription, self._standing.signed
        if signed is not None:
            command = ChangeMethod(
                gateway=found.gateway,
                payment_method_id=signed,
                backup_payment_method_id=found.backup_payment_method_id,
            )
            # Before all that has come meanwhile, which may be another method or a charge.
            self._jobs.appendleft(_Job(command))

    async def _carry_out(self, job: _Job) -> None:
        if isinstance(job.command, ChangeSubscription) and workflow.patched(REFUNDS_READ):
            await self._read()
        now = workflow.now()
        # How a payment has ended may be known before the record was read again.
        standing = self._standing.model_copy(update={"charge_end": self._known_end})
        try:
            _, move = commanded(standing, self._terms, job.command, now)
            if not is_taken(standing, job.command, now):
                raise SubscriptionNotChangeable("a renewal is under way")
        except BillingError as refusal:
            job.refusal = ApplicationError(
                refusal.detail, refusal.param, type=refusal.code, non_retryable=True
            )
            return
        ready = await self._made_ready(move)
        if ready is not None:
            self._not_before = None
            if self._not_announced_before is not None and workflow.patched(ANNOUNCED_ANEW):
                # What could not be announced before, of another method or amount may be now.
                self._not_announced_before = None
            await self._apply(ready)
            if self._standing.giving_back is not None:
                await self._give_back()
        job.answer = self._answer()

    async def _on_time(self) -> None:
        ready = await self._made_ready(on_time(self._standing, self._terms, workflow.now()))
        if ready is None:
            return
        if ready.charge is not None and self._jobs and workflow.patched(COMMANDS_FIRST):
            # One that came while the mandate was made ready may want no charge any more.
            return
        self._not_before = None
        await self._apply(ready)

    async def _on_ahead(self) -> None:
        """Announce the renewal to come: to the customer, or to the gateway."""
        decision = renewal_of(self._standing, self._terms)
        assert decision is not None, "announced without a renewal"
        method_id = self._subscription.payment_method_id
        if method_id is None:
            await self._apply(asked_ahead(self._standing, decision, workflow.now()))
            return
        way = way_of(self._subscription, self._terms)
        wanted = Wanted(
            kind=StepKind.RENEWAL, way=way, method_id=method_id, is_due=True, decision=decision
        )
        prepared = await self._prepare(wanted, method_id)
        await self._note(prepared, decision.preview.total)
        if self._ahead(self._standing) is not None:
            # It is announced later, by day, or not at all: then the customer is asked in time.
            self._not_announced_before = prepared.at or decision.effective_at

    async def _made_ready(self, move: Move) -> Move | None:
        """The move, its mandate being ready to be charged; None where it is to wait for that."""
        wanted = move.charge
        if wanted is None or wanted.method_id is None:
            return move
        if self._subscription.gateway is GatewayName.STRIPE and not is_limited(wanted):
            return move
        prepared = await self._prepare(wanted, wanted.method_id)
        if prepared.is_ready:
            within = wanted.model_copy(update={"until": prepared.until})
            return move.model_copy(update={"charge": within})
        if prepared.at is None or not wanted.may_wait:
            return uncarried(move, self._standing, workflow.now())
        amount = wanted.decision.preview.total
        if wanted.kind is StepKind.PAYMENT:
            await self._note(prepared, amount)
            now = workflow.now()
            await self._apply(
                retry_postponed(self._standing, self._terms, wanted, prepared.at, now)
            )
        else:
            await self._put_off(prepared, amount, prepared.at)
        return None

    async def _continue_if_long(self) -> None:
        """Go on in a new run from the record, once nobody waits for an answer of this one."""
        assert self._first_number is not None
        cycles = self._subscription.period.number - self._first_number
        is_long = (
            cycles >= policies.CYCLES_IN_A_RUN
            or self._commands >= policies.COMMANDS_IN_A_RUN
            or workflow.info().is_continue_as_new_suggested()
        )
        if not is_long or self._is_over:
            return
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or bool(self._jobs))
        if not self._jobs and workflow.all_handlers_finished():
            workflow.continue_as_new(self._start.model_copy(update={"resumed": True}))

    def _answer(self) -> SubscriptionAnswer:
        """Nobody waits for what is paid ahead."""
        charge, end = self._standing.charge, self._known_end
        is_waited_for = end is None or self._actionable_end(workflow.now()) is not None
        payment_id = charge.payment_id if charge is not None and is_waited_for else None
        return SubscriptionAnswer(subscription=self._subscription, payment_id=payment_id)

    def _actionable_end(self, now: datetime) -> ChargeEnd | None:
        """How the payment under way has ended, once that is to take effect: what was paid ahead
        does so with its period."""
        charge, end = self._standing.charge, self._known_end
        if charge is None or end is None:
            return None
        is_ahead = (
            end.status is PaymentStatus.SUCCEEDED
            and charge.decision.effective_at > now
            and not self._subscription.status.is_terminal
        )
        return None if is_ahead else end

    @property
    def _may_take_signature(self) -> bool:
        return self._is_signed and self._standing.charge is None

    @property
    def _has_begun(self) -> bool:
        charge = self._standing.charge
        if charge is not None:
            return self._started == charge.payment_id
        return self._subscription.status is not SubscriptionStatus.INCOMPLETE

    @property
    def _known_end(self) -> ChargeEnd | None:
        charge = self._standing.charge
        if charge is None:
            return None
        if self._end is not None and self._end.payment_id == charge.payment_id:
            return self._end
        return self._standing.charge_end

    @property
    def _is_over(self) -> bool:
        return self._standing.is_over
