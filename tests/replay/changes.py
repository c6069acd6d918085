"""Workflows as they must not become while others are under way: each does one thing otherwise."""

from temporalio import workflow

from billing.messages import (
    AFTER_WORKFLOW,
    PAYMENT_WORKFLOW,
    REFUND_AFTER_WORKFLOW,
    REFUND_WORKFLOW,
    SPEND_WORKFLOW,
    AfterInput,
    PaymentEnded,
    PaymentOrder,
    RefundAfterInput,
    RefundEnded,
    RefundRequest,
    ReviewDecision,
    SpendEnded,
    SpendRequest,
)
from billing.method_messages import (
    METHOD_AFTER_WORKFLOW,
    METHOD_WORKFLOW,
    MethodAfterInput,
    MethodEnded,
    MethodOrder,
)
from billing.payment import PaymentStatus
from billing.subscription_messages import (
    SUBSCRIPTION_WORKFLOW,
    SubscriptionOver,
    SubscriptionStart,
)
from workflows import (
    MethodAfterWorkflow,
    MethodSetupWorkflow,
    PaymentAfterWorkflow,
    PaymentWorkflow,
    PointsSpendWorkflow,
    RefundAfterWorkflow,
    RefundWorkflow,
    SubscriptionWorkflow,
)


@workflow.defn(name=PAYMENT_WORKFLOW)
class SleepsFirst(PaymentWorkflow):
    """One timer more."""

    @workflow.run
    async def run(self, order: PaymentOrder) -> PaymentEnded:
        await workflow.sleep(1)
        return await super().run(order)


@workflow.defn(name=PAYMENT_WORKFLOW)
class EndsUnasked(PaymentWorkflow):
    """One activity in place of another: the gateway is not asked at the end."""

    @workflow.run
    async def run(self, order: PaymentOrder) -> PaymentEnded:
        return await super().run(order)

    async def _close(
        self, status: PaymentStatus | None, *, review: ReviewDecision | None = None
    ) -> None:
        if status is not None:
            await self._end(status, review)
        self._ending = None


@workflow.defn(name=PAYMENT_WORKFLOW)
class LooksNoMore(PaymentWorkflow):
    """Some activities less: an ended payment's attempts are not watched."""

    @workflow.run
    async def run(self, order: PaymentOrder) -> PaymentEnded:
        return await super().run(order)

    async def _watch(self) -> None:
        assert self._standing is not None
        self._standing = self._standing.model_copy(update={"open_attempts": ()})
        self._answered = self._asked


@workflow.defn(name=AFTER_WORKFLOW)
class LooksTwice(PaymentAfterWorkflow):
    """One activity more."""

    @workflow.run
    async def run(self, after: AfterInput) -> PaymentEnded:
        await super().run(after)
        return await super().run(after)


@workflow.defn(name=REFUND_WORKFLOW)
class SleepsBeforeReserving(RefundWorkflow):
    """One timer more."""

    @workflow.run
    async def run(self, request: RefundRequest) -> RefundEnded:
        await workflow.sleep(1)
        return await super().run(request)


@workflow.defn(name=REFUND_WORKFLOW)
class ReservesTwice(RefundWorkflow):
    """One activity more."""

    @workflow.run
    async def run(self, request: RefundRequest) -> RefundEnded:
        await self._reserve()
        return await super().run(request)


@workflow.defn(name=REFUND_WORKFLOW)
class AsksAtOnce(RefundWorkflow):
    """One timer less: the gateway's pause is not kept."""

    @workflow.run
    async def run(self, request: RefundRequest) -> RefundEnded:
        return await super().run(request)

    async def _ask(self) -> None:
        assert self._standing is not None
        self._standing = self._standing.model_copy(update={"ask_at": workflow.now()})
        await super()._ask()


@workflow.defn(name=REFUND_AFTER_WORKFLOW)
class LooksAtRefundsTwice(RefundAfterWorkflow):
    """One activity more."""

    @workflow.run
    async def run(self, after: RefundAfterInput) -> RefundEnded:
        await super().run(after)
        return await super().run(after)


@workflow.defn(name=SPEND_WORKFLOW)
class SpendsTwice(PointsSpendWorkflow):
    """One activity more."""

    @workflow.run
    async def run(self, request: SpendRequest) -> SpendEnded:
        await super().run(request)
        return await super().run(request)


@workflow.defn(name=METHOD_WORKFLOW)
class AsksFirst(MethodSetupWorkflow):
    """One activity more."""

    @workflow.run
    async def run(self, order: MethodOrder) -> MethodEnded:
        await self._settle()
        return await super().run(order)


@workflow.defn(name=METHOD_AFTER_WORKFLOW)
class LooksAtMethodsTwice(MethodAfterWorkflow):
    """One activity more."""

    @workflow.run
    async def run(self, after: MethodAfterInput) -> MethodEnded:
        await super().run(after)
        return await super().run(after)


@workflow.defn(name=SUBSCRIPTION_WORKFLOW)
class ReadsFirst(SubscriptionWorkflow):
    """Another activity in place of the first."""

    @workflow.run
    async def run(self, start: SubscriptionStart) -> SubscriptionOver:
        return await super().run(start)

    async def _open(self) -> None:
        await self._read()


@workflow.defn(name=SUBSCRIPTION_WORKFLOW)
class ChargesNobody(SubscriptionWorkflow):
    """No payments: charges are written, and not started."""

    @workflow.run
    async def run(self, start: SubscriptionStart) -> SubscriptionOver:
        return await super().run(start)

    async def _start_payment(self) -> None:
        """Nothing is started."""
