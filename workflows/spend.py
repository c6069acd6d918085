"""One spend of points: it is carried out once, or refused with nothing changed.

The movement has the workflow's own id, so that whatever is repeated is one spend; it is over as
soon as the record has answered.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.points import PointsActivities
from billing.messages import SPEND_WORKFLOW, Command, SpendEnded, SpendPoints, SpendRequest
from billing.points import PointsTransaction
from runtime.queues import CORE
from workflows import policies


@workflow.defn(name=SPEND_WORKFLOW)
class PointsSpendWorkflow:
    @workflow.init
    def __init__(self, request: SpendRequest) -> None:
        self._transaction: PointsTransaction | None = None
        self._refusal: ApplicationError | None = None

    @workflow.run
    async def run(self, request: SpendRequest) -> SpendEnded:
        try:
            self._transaction = await workflow.execute_activity_method(
                PointsActivities.spend,
                SpendPoints(request=request, now=workflow.now()),
                task_queue=CORE,
                **policies.RECORD_CALL,
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
        await workflow.wait_condition(workflow.all_handlers_finished)
        return SpendEnded(
            transaction_id=request.transaction_id,
            transaction=self._transaction,
            refusal_code=self._refusal.type if self._refusal else None,
            refusal=self._refusal.message if self._refusal else None,
            refusal_param=next(iter(self._refusal.details), None) if self._refusal else None,
        )

    @workflow.update
    async def create(self, command: Command) -> PointsTransaction:
        """The movement. Raises ApplicationError of the refusal's type where there is none."""
        await workflow.wait_condition(
            lambda: self._transaction is not None or self._refusal is not None
        )
        if self._transaction is None:
            assert self._refusal is not None, "waited for one of the two"
            raise self._refusal
        return self._transaction
