"""A gateway and a record of one refund in memory, for tests of the workflow's own decisions.

The activities have the real names and messages; what they answer is set by the test.
"""

import asyncio
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from billing.messages import AskRefund, RefundRequest, RefundStanding, ReserveRefund, SettleRefund
from billing.payment import Failure, GatewayName, Review
from billing.refund import Refund, RefundStatus

REFUSAL = "refund_exceeds_payment"
PAYMENT_ID = "pay_01hf7yat00fzzvzzzzzzzzzzzz"


def refund_request(refund_id: str, now: datetime) -> RefundRequest:
    return RefundRequest(
        refund_id=refund_id,
        payment_id=PAYMENT_ID,
        application="shop",
        user_id="user_1",
        gateway=GatewayName.WECHATPAY,
        currency="CNY",
        amount_minor=900,
        reason="returned goods",
        created_at=now,
    )


class ScriptedRefundActivities:
    """`status` is the record's, `asked` what a request to the gateway makes of it and `settled`
    what a question does. `refuses` the reservation; `silent` names what finds nobody. `pause` is
    the time before the gateway may be asked. `calls` tells what was done, in order. While
    `answers` is not set, what the gateway says is not yet told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = RefundStatus.PENDING
        self.asked = RefundStatus.PROCESSING
        self.settled = RefundStatus.PROCESSING
        self.refuses = False
        self.silent: set[str] = set()
        self.pause = timedelta(0)
        self.asked_at: datetime | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self._request: RefundRequest | None = None

    def remember(self, request: RefundRequest) -> None:
        """Of a refund that was reserved by a run before."""
        self._request = request

    @activity.defn(name="refund.reserve")
    async def reserve(self, request: ReserveRefund) -> RefundStanding:
        self._begin("reserve")
        if self.refuses:
            raise ApplicationError("900 is more than is left", type=REFUSAL, non_retryable=True)
        self._request = request.request
        return self._standing()

    @activity.defn(name="refund.ask")
    async def ask(self, request: AskRefund) -> RefundStanding:
        self._begin("ask")
        self.asked_at = request.now
        await self.answers.wait()
        self.status = self.asked
        return self._standing()

    @activity.defn(name="refund.settle")
    async def settle(self, request: SettleRefund) -> RefundStanding:
        self._begin("settle")
        await self.answers.wait()
        self.status = self.settled
        return self._standing()

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        if call in self.silent:
            raise ApplicationError("no answer", type="outcome_unknown")

    def _standing(self) -> RefundStanding:
        assert self._request is not None
        asked, status = self._request, self.status
        is_parked, has_failed = status is RefundStatus.NEEDS_REVIEW, status is RefundStatus.FAILED
        now = asked.created_at
        refund = Refund(
            id=asked.refund_id,
            payment_id=asked.payment_id,
            cause=asked.cause,
            status=status,
            amount=asked.amount_minor or 2900,
            currency=asked.currency,
            gateway=asked.gateway,
            reason=asked.reason,
            gateway_reference=None,
            failure=Failure(code="refund_refused", message="no") if has_failed else None,
            review=Review(reason="refund_stuck", detail="-", since=now) if is_parked else None,
            created_at=now,
            updated_at=now,
            refunded_at=now if status is RefundStatus.SUCCEEDED else None,
        )
        return RefundStanding(refund=refund, ask_at=now + self.pause)
