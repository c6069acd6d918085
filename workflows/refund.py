"""One refund, from the reservation to the gateway's last word.

    reserve ──> wait for the gateway's pause ──> ask ──> wait for news or the next poll ──> settle
       └─ refused: nothing was changed                             └─ succeeded or failed: ended

The number a refund has at its gateway is its own id, so that whatever is repeated is one refund.
It has no deadline: a refund once reserved is asked after until the gateway has its last word.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.refund import RefundActivities
from billing.messages import (
    GATEWAY_REPORTED,
    REFUND_AFTER_WORKFLOW,
    REFUND_WORKFLOW,
    AskRefund,
    Command,
    GatewayReport,
    RefundAfterInput,
    RefundEnded,
    RefundRequest,
    RefundStanding,
    ReserveRefund,
    SettleRefund,
)
from billing.refund import Refund, RefundStatus
from runtime import attributes
from runtime.queues import CORE, gateway_queue
from workflows import policies
from workflows.reported import Reported


async def _settle(refund_id: str, queue: str, request: SettleRefund) -> RefundStanding:
    return await workflow.execute_activity_method(
        RefundActivities.settle,
        request,
        task_queue=queue,
        start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
        heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
        retry_policy=policies.UNKNOWN_OUTCOME,
    )


@workflow.defn(name=REFUND_WORKFLOW)
class RefundWorkflow:
    @workflow.init
    def __init__(self, request: RefundRequest) -> None:
        self._request = request
        self._queue = gateway_queue(request.gateway)
        self._standing: RefundStanding | None = None
        self._refusal: ApplicationError | None = None
        self._is_asked = False
        self._reported = Reported()
        self._polls = 0

    @workflow.run
    async def run(self, request: RefundRequest) -> RefundEnded:
        await self._reserve()
        if self._refusal is not None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            return RefundEnded(
                refund_id=request.refund_id,
                status=None,
                refusal_code=self._refusal.type,
                refusal=self._refusal.message,
                refusal_param=next(iter(self._refusal.details), None),
            )
        if self._refund.status is RefundStatus.PENDING:
            await self._ask()
        self._is_asked = True
        # What was reported while the gateway's answer was on its way may be newer than that answer.
        while not self._refund.status.has_ended or self._reported.has_news:
            await self._await_news()
            heard = self._reported.asked
            self._take(
                await _settle(
                    request.refund_id,
                    self._queue,
                    SettleRefund(
                        refund_id=request.refund_id,
                        gateway=request.gateway,
                        now=workflow.now(),
                    ),
                )
            )
            self._reported.answered = heard
        await workflow.wait_condition(workflow.all_handlers_finished)
        return RefundEnded(refund_id=request.refund_id, status=self._refund.status)

    @workflow.update
    async def create(self, command: Command) -> Refund:
        """The refund once it is reserved, and asked for if the gateway answers soon.

        Raises ApplicationError of the refusal's type where nothing could be reserved.
        """
        await workflow.wait_condition(
            lambda: self._standing is not None or self._refusal is not None
        )
        if self._refusal is not None:
            raise self._refusal
        try:
            await workflow.wait_condition(lambda: self._is_asked, timeout=policies.REFUND_PATIENCE)
        except TimeoutError:
            workflow.logger.info("the gateway has not answered yet; the refund is pending")
        return self._refund

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        self._reported.hear(report)

    async def _reserve(self) -> None:
        try:
            standing = await workflow.execute_activity_method(
                RefundActivities.reserve,
                ReserveRefund(request=self._request, now=workflow.now()),
                task_queue=CORE,
                start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                retry_policy=policies.RECORD,
            )
        except ActivityError as problem:
            if not isinstance(problem.cause, ApplicationError):
                raise
            self._refusal = ApplicationError(
                problem.cause.message,
                *problem.cause.details,
                type=problem.cause.type,
                non_retryable=True,
            )
        else:
            self._take(standing)

    async def _ask(self) -> None:
        assert self._standing is not None
        pause = self._standing.ask_at - workflow.now()
        if pause.total_seconds() > 0:
            await workflow.sleep(pause)
        self._take(
            await workflow.execute_activity_method(
                RefundActivities.ask,
                AskRefund(
                    refund_id=self._request.refund_id,
                    gateway=self._request.gateway,
                    now=workflow.now(),
                ),
                task_queue=self._queue,
                start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                retry_policy=policies.UNKNOWN_OUTCOME,
            )
        )

    async def _await_news(self) -> None:
        delays = policies.REFUND_POLL_DELAYS
        try:
            await workflow.wait_condition(
                lambda: self._reported.has_news,
                timeout=delays[min(self._polls, len(delays) - 1)],
            )
        except TimeoutError:
            self._polls += 1

    def _take(self, standing: RefundStanding) -> None:
        refund = standing.refund
        if self._standing is None or self._standing.refund.status is not refund.status:
            is_parked = refund.status is RefundStatus.NEEDS_REVIEW
            workflow.upsert_search_attributes(
                [
                    attributes.BILLING_STATUS.value_set(refund.status.value),
                    attributes.AMOUNT_MINOR.value_set(refund.amount),
                    attributes.NEEDS_ATTENTION.value_set(is_parked),
                ]
            )
        self._standing = standing
        workflow.set_current_details(f"{refund.status.value}, polled {self._polls} times")

    @property
    def _refund(self) -> Refund:
        assert self._standing is not None, "asked for before the record answered"
        return self._standing.refund


@workflow.defn(name=REFUND_AFTER_WORKFLOW)
class RefundAfterWorkflow:
    """What still happens to a refund that had ended: a bank sends back what it cannot place."""

    @workflow.init
    def __init__(self, after: RefundAfterInput) -> None:
        self._reported = Reported()

    @workflow.run
    async def run(self, after: RefundAfterInput) -> RefundEnded:
        while True:
            heard = self._reported.asked
            standing = await _settle(
                after.refund_id,
                gateway_queue(after.gateway),
                SettleRefund(refund_id=after.refund_id, gateway=after.gateway, now=workflow.now()),
            )
            self._reported.answered = heard
            if not self._reported.has_news:
                return RefundEnded(refund_id=after.refund_id, status=standing.refund.status)

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        self._reported.hear(report)
