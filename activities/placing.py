"""What every activity of a payment needs: the record, the gateways, and where the payment stands.

No transaction is open while a gateway is called.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from activities import returns
from activities.asking import asking
from activities.method import mandate_of
from billing.errors import GatewayMisconfigured, PaymentNotFound
from billing.messages import RefundRequest, Standing
from billing.payment import AttemptState, Failure, GatewayName, PaymentMethod
from gateways.gateway import Gateway, OpenOutcome, Order, Refused
from storage.database import Database, UnitOfWork
from storage.payments import AttemptRecord, PaymentRecord


class Placing:
    """`gateways` are the ones switched on; a payment's own is among them or was switched off."""

    def __init__(self, database: Database, gateways: Mapping[GatewayName, Gateway]) -> None:
        self.database = database
        self.gateways = gateways

    async def place(self, record: PaymentRecord, attempt: AttemptRecord) -> OpenOutcome:
        """Place the attempt's order. Raises InstructionsLost, and ApplicationError where nobody
        knows what came of it."""
        try:
            with asking(attempt.gateway):
                return await self.gateway(attempt.gateway).open(order_of(record, attempt))
        except GatewayMisconfigured as problem:
            return Refused(Failure(code=problem.code, message=problem.detail))

    async def record(self, payment_id: str) -> PaymentRecord:
        """Raises PaymentNotFound."""
        async with self.database.single() as work:
            return await found(work, payment_id)

    async def standing(self, record: PaymentRecord, *, refusal: Failure | None = None) -> Standing:
        """What the workflow is told; `refusal` as there."""
        paid = [one for one in record.attempts if one.state is AttemptState.PAID]
        returned: tuple[RefundRequest, ...] = ()
        if record.has_unapplied_receipt:
            async with self.database.single() as work:
                returned = await returns.under_way(work, record)
        return Standing(
            payment=record.payment,
            open_attempts=tuple(attempt.attempt for attempt in record.open_attempts),
            open_gateways=_gateways_of(record.open_attempts),
            # Nobody serves the queue of one that was switched off: a workflow would wait for ever.
            gateways=tuple(name for name in _gateways_of(record.attempts) if name in self.gateways),
            disputes_at=tuple(
                name
                for name in _gateways_of(paid)
                if name in self.gateways and self.gateways[name].capabilities.disputes
            ),
            refunds_at=tuple(name for name in _gateways_of(paid) if name in self.gateways),
            refusal=refusal,
            needs_attention=record.needs_attention,
            returns=returned,
        )

    def gateway(self, name: GatewayName) -> Gateway:
        """Raises GatewayMisconfigured."""
        gateway = self.gateways.get(name)
        if gateway is None:
            raise GatewayMisconfigured(
                f"{name.value} is not configured on this worker: set its keys and restart it"
            )
        return gateway


async def found(work: UnitOfWork, payment_id: str) -> PaymentRecord:
    """The payment in this transaction. Raises PaymentNotFound."""
    record = await work.payments.find(payment_id)
    if record is None:
        raise PaymentNotFound(f"there is no row of payment {payment_id}")
    return record


def _gateways_of(attempts: Iterable[AttemptRecord]) -> tuple[GatewayName, ...]:
    """Each once, that of the newest attempt first."""
    newest_first = sorted(attempts, key=lambda one: -one.attempt)
    return tuple(dict.fromkeys(attempt.gateway for attempt in newest_first))


def order_of(record: PaymentRecord, attempt: AttemptRecord) -> Order:
    """An attempt as its gateway is to know it: the same parameters at every repeat."""
    order = record.order
    is_saved = attempt.method is PaymentMethod.SAVED
    ahead = timedelta(seconds=order.clock_ahead)
    return Order(
        payment_id=order.payment_id,
        attempt=attempt.attempt,
        number=attempt.number,
        amount_minor=order.amount_minor,
        currency=order.currency,
        method=attempt.method,
        description=order.description,
        user_id=order.user_id,
        created_at=order.created_at - ahead,
        expires_at=attempt.expires_at - ahead,
        return_url=attempt.details.return_url if attempt.details else order.return_url,
        payer=attempt.details.payer if attempt.details else order.payer,
        reference=attempt.reference,
        mandate=mandate_of(record.mandate) if is_saved and record.mandate else None,
    )
