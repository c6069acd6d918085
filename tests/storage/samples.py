"""Orders and moments for tests of the record."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from billing.dispute import Dispute, DisputeStatus
from billing.identifiers import PAYMENT, REFUND, make_id
from billing.messages import PaymentOrder
from billing.payment import GatewayName, PaymentMethod, PaymentStatus
from billing.refund import RefundCause
from storage.database import Database
from storage.dispute_rows import DisputeRecord
from storage.refunds import RefundRecord

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_numbers = count(1)


def make_order(**changed: Any) -> PaymentOrder:
    """An order of its own: each gets a later id than the one before."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "payment_id": make_id(
            PAYMENT, int(NOW.timestamp() * 1000) + number, number.to_bytes(10, "big")
        ),
        "application": "shop",
        "user_id": "user-1",
        "amount_minor": 2900,
        "currency": "CNY",
        "gateway": GatewayName.ALIPAY,
        "method": PaymentMethod.QR,
        "description": "Gold membership",
        "metadata": {"plan": "gold"},
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30),
    }
    return PaymentOrder(**(values | changed))


def make_refund_id() -> str:
    """Each later than the one before."""
    number = next(_numbers)
    return make_id(REFUND, int(NOW.timestamp() * 1000) + number, number.to_bytes(10, "big"))


async def take(database: Database, **changed: Any) -> PaymentOrder:
    """A payment that has succeeded, with the receipt it kept."""
    order = make_order(**changed)
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
        await work.receipts.record(
            payment_id=order.payment_id,
            attempt=1,
            gateway=order.gateway,
            receipt_reference=f"{order.payment_id}/paid",
            amount_minor=order.amount_minor,
            currency=order.currency,
            paid_at=NOW,
            kept=True,
            now=NOW,
        )
        await work.payments.move(order.payment_id, PaymentStatus.SUCCEEDED, now=NOW, paid_at=NOW)
    return order


async def take_twice(database: Database, **changed: Any) -> PaymentOrder:
    """As `take`, and a second attempt has brought the same amount, which is not kept."""
    order = await take(database, **changed)
    await receive_again(database, order)
    return order


async def receive_again(database: Database, order: PaymentOrder) -> None:
    """A second attempt has brought the same amount, which is not kept."""
    async with database.begin() as work:
        await work.attempts.replace(
            order.payment_id, 2, order.gateway, order.method, order.expires_at, NOW
        )
        await work.receipts.record(
            payment_id=order.payment_id,
            attempt=2,
            gateway=order.gateway,
            receipt_reference=f"{order.payment_id}/paid twice",
            amount_minor=order.amount_minor,
            currency=order.currency,
            paid_at=NOW,
            kept=False,
            now=NOW,
        )


def make_dispute(
    order: PaymentOrder,
    status: DisputeStatus = DisputeStatus.OPEN,
    *,
    withdrawn: int | None = None,
    reinstated: int = 0,
    fee: int = 1500,
    attempt: int = 1,
    **changed: Any,
) -> DisputeRecord:
    """What a gateway tells of a dispute over all that was paid: it has taken it, unless told
    otherwise."""
    values: dict[str, Any] = {
        "id": f"dp_{order.payment_id}",
        "status": status,
        "amount": order.amount_minor,
        "currency": order.currency,
        "reason": "fraudulent",
        "due_by": NOW + timedelta(days=9),
        "opened_at": NOW,
        "closed_at": None,
    }
    return DisputeRecord(
        dispute=Dispute(**(values | changed)),
        gateway=order.gateway,
        payment_id=order.payment_id,
        attempt=attempt,
        application=order.application,
        gateway_status=f"{status.value} there",
        withdrawn_minor=order.amount_minor if withdrawn is None else withdrawn,
        reinstated_minor=reinstated,
        written_off_minor=0,
        fee_minor=fee,
    )


async def reserve(database: Database, order: PaymentOrder, **changed: Any) -> RefundRecord:
    """All that is left of the payment, unless told otherwise."""
    values: dict[str, Any] = {
        "refund_id": make_refund_id(),
        "payment_id": order.payment_id,
        "application": order.application,
        "attempt": None,
        "amount_minor": None,
        "cause": RefundCause.REQUESTED,
        "reason": "not as described",
        "now": NOW,
    }
    async with database.begin() as work:
        return await work.refunds.reserve(**(values | changed))
