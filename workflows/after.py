"""What still happens at the gateway to a payment whose own workflow has ended.

Started by the webhook itself; it asks the gateway, records what happened there, and ends. It may
run any number of times.
"""

from temporalio import workflow

from activities.dispute import DisputeActivities
from activities.payment import PaymentActivities
from billing.messages import (
    AFTER_WORKFLOW,
    GATEWAY_REPORTED,
    AfterInput,
    GatewayReport,
    PaymentEnded,
    SettleDisputes,
    SettlePayment,
)
from runtime import attributes
from runtime.queues import gateway_queue
from workflows import policies


@workflow.defn(name=AFTER_WORKFLOW)
class PaymentAfterWorkflow:
    @workflow.init
    def __init__(self, after: AfterInput) -> None:
        self._after = after
        self._seen: set[str] = set()
        self._asked = 0
        self._answered = 0

    @workflow.run
    async def run(self, after: AfterInput) -> PaymentEnded:
        while True:
            heard = self._asked
            standing = await workflow.execute_activity_method(
                PaymentActivities.settle,
                SettlePayment(
                    payment_id=after.payment_id,
                    gateway=after.gateway,
                    now=workflow.now(),
                    thorough=True,
                ),
                task_queue=gateway_queue(after.gateway),
                start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                retry_policy=policies.UNKNOWN_OUTCOME,
            )
            for gateway in standing.disputes_at:
                standing = await workflow.execute_activity_method(
                    DisputeActivities.settle,
                    SettleDisputes(
                        payment_id=after.payment_id, gateway=gateway, now=workflow.now()
                    ),
                    task_queue=gateway_queue(gateway),
                    start_to_close_timeout=policies.ACTIVITY_START_TO_CLOSE,
                    heartbeat_timeout=policies.ACTIVITY_HEARTBEAT,
                    retry_policy=policies.UNKNOWN_OUTCOME,
                )
            self._answered = heard
            if self._asked == self._answered:
                break
        if standing.needs_attention:
            workflow.upsert_search_attributes([attributes.NEEDS_ATTENTION.value_set(True)])
        return PaymentEnded(payment_id=after.payment_id, status=standing.payment.status)

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        if report.event_id not in self._seen:
            self._seen.add(report.event_id)
            self._asked += 1
