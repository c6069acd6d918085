"""What the workflow of a subscription has recorded: begin, read, write, give back.

Every activity can be repeated at any point: rows are inserted once, each write names the version
before it, and a refund has an id that follows from subscription and payment.
"""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from billing.errors import PaymentNotRefundable, RefundExceedsPayment, SubscriptionNotFound
from billing.identifiers import subscription_refund_id
from billing.messages import RefundRequest
from billing.method import MethodStatus
from billing.moves import start_of
from billing.points import ClawbackPolicy
from billing.refund import RefundCause, RefundStatus
from billing.subscription_messages import (
    FindReturns,
    FoundReturns,
    GivingBack,
    OpenSubscription,
    ReadSubscription,
    SubscriptionStanding,
    WriteSubscription,
)
from storage.database import Database, UnitOfWork
from storage.refund_rows import RefundRecord, request_of
from storage.signatures import asked_signature
from storage.subscriptions import SubscriptionRecord, WriterLost


class SubscriptionActivities:
    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name="subscription.open")
    async def open(self, request: OpenSubscription) -> SubscriptionStanding:
        """Write the row, unless it is there, with what the user's ended subscriptions have left on
        their balances; where it stands."""
        start, subscription = request.start, request.subscription
        order = start.order
        async with self._database.begin() as work:
            found = await work.subscriptions.find(order.id)
            if found is not None:
                return found.standing
            left = await work.subscriptions.take_balances(
                start.application, order.user_id, order.plan.currency, order.id, request.now
            )
            if left:
                order = order.model_copy(update={"balance": order.balance + left})
                start = start.model_copy(update={"order": order})
                subscription = start_of(start)
            is_new = await work.subscriptions.insert(start, subscription)
            if left and not is_new:
                raise ApplicationError("its row was written meanwhile, and what was left is not in")
            return (await _found(work, order.id)).standing

    @activity.defn(name="subscription.read")
    async def read(self, request: ReadSubscription) -> SubscriptionStanding:
        """Where it stands, how the payment of its charge has ended, what was signed for it, and
        what has gone back."""
        async with self._database.single() as work:
            standing = (await _found(work, request.subscription_id)).standing
            signed = await _signed_for(work, standing)
            refunded, at = await work.subscriptions.refunded(standing.subscription)
        told = {"signed": signed, "refunded": refunded, "refunded_at": at}
        return standing.model_copy(update=told)

    @activity.defn(name="subscription.write")
    async def write(self, request: WriteSubscription) -> SubscriptionStanding:
        """Write one step. Raises ApplicationError, not to be repeated, where somebody else has
        written: the process is to be resumed from the record."""
        try:
            async with self._database.single() as work:
                await work.subscriptions.write(request)
                return (await _found(work, request.subscription.id)).standing
        except WriterLost as lost:
            raise ApplicationError(str(lost), type="writer_lost", non_retryable=True) from lost

    @activity.defn(name="subscription.give_back")
    async def give_back(self, request: FindReturns) -> FoundReturns:
        """Reserve the refunds, each payment's once; those that are left to be started."""
        async with self._database.begin() as work:
            record = await _found(work, request.subscription_id)
            wanted = request.giving_back
            refunds: list[RefundRecord] = []
            sources = await _sources(work, request.subscription_id, wanted)
            covered, gone = 0, await _gone(work, record, wanted)
            for payment_id in sources:
                rest = None if wanted.amount is None else wanted.amount - covered - gone
                if rest is not None and rest <= 0:
                    break
                refund = await _reserve(work, request, record, payment_id, rest)
                if refund is not None and refund.refund.status is not RefundStatus.FAILED:
                    refunds.append(refund)
                    covered += refund.refund.amount
        return FoundReturns(refunds=_to_start(refunds, record), covered=covered, gone=gone)


async def _found(work: UnitOfWork, subscription_id: str) -> SubscriptionRecord:
    """Raises SubscriptionNotFound."""
    record = await work.subscriptions.find(subscription_id)
    if record is None:
        raise SubscriptionNotFound(f"there is no subscription {subscription_id}")
    return record


async def _signed_for(work: UnitOfWork, standing: SubscriptionStanding) -> str | None:
    """The method that the payer was asked to sign for what the plan costs, once they have."""
    found = standing.subscription
    if found.payment_method_id is None or found.status.is_terminal:
        return None
    amount = standing.plan_to_come.amount
    record, _ = await asked_signature(work.methods, found.id, found.payment_method_id, amount)
    is_active = record is not None and record.method.status is MethodStatus.ACTIVE
    return record.method.id if record is not None and is_active else None


async def _sources(work: UnitOfWork, subscription_id: str, wanted: GivingBack) -> list[str]:
    if wanted.payment_id is not None:
        return [wanted.payment_id]
    return await work.subscriptions.paid(subscription_id)


async def _gone(work: UnitOfWork, record: SubscriptionRecord, wanted: GivingBack) -> int:
    """What of the amount (minor units) is not given back any more, as others have had it."""
    if wanted.amount is None:
        return 0
    found = record.standing.subscription
    of_period = await work.subscriptions.paid(found.id, since_period=found.paid_since)
    for payment_id in of_period:
        await work.payments.hold(payment_id)
    ours = [subscription_refund_id(found.id, payment_id) for payment_id in of_period]
    refunded, _ = await work.subscriptions.refunded(found, but_for=ours)
    if found.paid is None or wanted.used_until is None:
        return min(refunded, wanted.amount)
    return wanted.amount - found.paid.less(refunded).unused(wanted.used_until)


async def _reserve(
    work: UnitOfWork,
    request: FindReturns,
    record: SubscriptionRecord,
    payment_id: str,
    most: int | None,
) -> RefundRecord | None:
    """The refund of one payment, at most all that is left of it; None where nothing is, or where
    its gateway gives nothing back any more: that is the balance's to cover."""
    refund_id = subscription_refund_id(request.subscription_id, payment_id)
    application = record.start.application
    standing = await work.refunds.find(refund_id)
    if standing is not None:
        return standing
    try:
        left, _ = await work.refunds.preview(
            payment_id, application, None, now=request.now, clawback=ClawbackPolicy.REFUSE
        )
    except (PaymentNotRefundable, RefundExceedsPayment):
        return None
    return await work.refunds.reserve(
        refund_id=refund_id,
        payment_id=payment_id,
        application=application,
        attempt=None,
        amount_minor=left if most is None else min(left, most),
        cause=RefundCause.REQUESTED,
        reason=request.giving_back.reason,
        now=request.now,
    )


def _to_start(refunds: list[RefundRecord], record: SubscriptionRecord) -> tuple[RefundRequest, ...]:
    user_id = record.standing.subscription.user_id
    return tuple(
        request_of(refund, user_id)
        for refund in refunds
        # One found at the gateway, which the record had lost, needs no process.
        if not refund.refund.status.has_ended and refund.refund.cause is not RefundCause.ELSEWHERE
    )
