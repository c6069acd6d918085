"""What still happens at the gateway to a payment whose own workflow has ended.

Started by the webhook itself; it asks the gateway, records what happened there, and ends. It may
run any number of times.
"""

from datetime import datetime

from temporalio import workflow

from activities.discovery import DiscoveryActivities
from activities.dispute import DisputeActivities
from activities.payment import PaymentActivities
from billing.messages import (
    AFTER_WORKFLOW,
    GATEWAY_REPORTED,
    AfterInput,
    DiscoverRefunds,
    GatewayReport,
    PaymentEnded,
    ReviewDecision,
    SettleDisputes,
    SettlePayment,
    Standing,
)
from billing.payment import GatewayName
from runtime import attributes
from runtime.queues import gateway_queue
from workflows import policies
from workflows.returns import start_returns


@workflow.defn(name=AFTER_WORKFLOW)
class PaymentAfterWorkflow:
    @workflow.init
    def __init__(self, after: AfterInput) -> None:
        self._after = after
        self._seen: set[str] = set()
        self._asked = 0
        self._answered = 0
        self._review: ReviewDecision | None = None

    @workflow.run
    async def run(self, after: AfterInput) -> PaymentEnded:
        while True:
            heard, now = self._asked, workflow.now()
            review, self._review = self._review, None
            standing = await self._settle(after.gateway, review, now)
            for gateway in standing.gateways:
                if gateway is not after.gateway:
                    standing = await self._settle(gateway, review, now)
            for gateway in standing.disputes_at:
                standing = await workflow.execute_activity_method(
                    DisputeActivities.settle,
                    SettleDisputes(
                        payment_id=after.payment_id, gateway=gateway, now=workflow.now()
                    ),
                    task_queue=gateway_queue(gateway),
                    **policies.GATEWAY_CALL,
                )
            for gateway in standing.refunds_at:
                standing = await workflow.execute_activity_method(
                    DiscoveryActivities.discover,
                    DiscoverRefunds(
                        payment_id=after.payment_id, gateway=gateway, now=workflow.now()
                    ),
                    task_queue=gateway_queue(gateway),
                    **policies.GATEWAY_CALL,
                )
            self._answered = heard
            await start_returns(standing.returns)
            if self._asked == self._answered:
                break
        if standing.needs_attention:
            workflow.upsert_search_attributes([attributes.NEEDS_ATTENTION.value_set(True)])
        return PaymentEnded(payment_id=after.payment_id, status=standing.payment.status)

    async def _settle(
        self, gateway: GatewayName, review: ReviewDecision | None, now: datetime
    ) -> Standing:
        return await workflow.execute_activity_method(
            PaymentActivities.settle,
            SettlePayment(
                payment_id=self._after.payment_id,
                gateway=gateway,
                now=now,
                thorough=True,
                review=review,
            ),
            task_queue=gateway_queue(gateway),
            **policies.GATEWAY_CALL,
        )

    @workflow.signal(name=GATEWAY_REPORTED)
    def gateway_reported(self, report: GatewayReport) -> None:
        if report.event_id not in self._seen:
            self._seen.add(report.event_id)
            self._asked += 1
            self._review = report.review or self._review
