"""A record as payments leave it, written through the repositories, and the money behind it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from activities.returns import set_aside
from audit.evidence import Charge
from billing.messages import PaymentOrder
from billing.payment import (
    AttemptState,
    GatewayName,
    PaymentMethod,
    PaymentStatus,
    QrCode,
    Review,
)
from gateways.gateway import Receipt
from storage.database import Database, UnitOfWork
from storage.inbox import InboxOutcome
from storage.ledger import Posting
from tests.storage.samples import make_order

LONG_AGO = datetime.now(UTC) - timedelta(minutes=20)
METHODS = {
    GatewayName.STRIPE: (PaymentMethod.CARD, "USD"),
    GatewayName.ALIPAY: (PaymentMethod.QR, "CNY"),
    GatewayName.WECHATPAY: (PaymentMethod.NATIVE, "CNY"),
}


@dataclass
class FakeTruth:
    """Gateways that took exactly this; `uncovered` are payments that they do not speak of."""

    taken: list[Charge] = field(default_factory=list)
    uncovered: set[str] = field(default_factory=set)

    async def charges(self) -> list[Charge]:
        return self.taken

    def covers(self, payment_id: str) -> bool:
        return payment_id not in self.uncovered

    def charge_of(self, payment_id: str) -> Charge:
        return next(charge for charge in self.taken if charge.payment_id == payment_id)


@dataclass(frozen=True)
class CleanRecord:
    """One payment of each kind that a healthy system holds, by id."""

    truth: FakeTruth
    paid: str
    """By Alipay, at its first attempt."""
    paid_again: str
    """By WeChat Pay, at its second attempt; the first took money as well, after the end."""
    canceled: str
    late: str
    """Canceled, and paid by Stripe all the same."""
    waiting: str
    parked: str
    """Past its deadline; it waits for a person."""


async def write_clean_record(database: Database) -> CleanRecord:
    truth = FakeTruth()
    async with database.begin() as work:
        paid = await _opened(work, GatewayName.ALIPAY)
        await _receive(work, truth, paid, 1, kept=True)

        paid_again = await _opened(work, GatewayName.WECHATPAY)
        await work.attempts.replace(
            paid_again.payment_id,
            2,
            GatewayName.WECHATPAY,
            PaymentMethod.NATIVE,
            paid_again.expires_at,
            LONG_AGO,
        )
        await _receive(work, truth, paid_again, 2, kept=True)
        await _receive(work, truth, paid_again, 1, kept=False)

        canceled = await _opened(work, GatewayName.ALIPAY)
        await _cancel(work, canceled)

        late = await _opened(work, GatewayName.STRIPE)
        await _cancel(work, late)
        await _receive(work, truth, late, 1, kept=False)

        waiting = await _opened(work, GatewayName.ALIPAY)

        parked = await _opened(work, GatewayName.ALIPAY, expires_at=LONG_AGO + timedelta(minutes=1))
        await work.payments.move(
            parked.payment_id,
            PaymentStatus.NEEDS_REVIEW,
            review=Review(reason="amount_mismatch", detail="took 1 CNY", since=LONG_AGO),
            now=LONG_AGO,
        )
        entry = await work.inbox.store(
            GatewayName.ALIPAY, "notify-1", "TRADE_SUCCESS", paid.payment_id, b"{}", LONG_AGO
        )
        assert entry is not None
        await work.inbox.mark(entry.id, InboxOutcome.DELIVERED, LONG_AGO)
        await work.claims.claim(
            application="shop",
            key="order-1",
            fingerprint="f",
            command="create",
            object_id=paid.payment_id,
            request=b"{}",
            now=LONG_AGO,
        )
    return CleanRecord(
        truth,
        paid.payment_id,
        paid_again.payment_id,
        canceled.payment_id,
        late.payment_id,
        waiting.payment_id,
        parked.payment_id,
    )


async def _opened(
    work: UnitOfWork, gateway: GatewayName, expires_at: datetime | None = None
) -> PaymentOrder:
    method, currency = METHODS[gateway]
    order = make_order(
        gateway=gateway,
        method=method,
        currency=currency,
        created_at=LONG_AGO,
        expires_at=expires_at or LONG_AGO + timedelta(hours=2),
    )
    await work.payments.insert(order, LONG_AGO)
    await work.payments.record_opened(
        order.payment_id, 1, reference=None, next_action=QrCode(code_url="weixin://"), now=LONG_AGO
    )
    return order


async def _cancel(work: UnitOfWork, order: PaymentOrder) -> None:
    await work.attempts.set(order.payment_id, 1, state=AttemptState.DEAD, now=LONG_AGO)
    await work.payments.move(order.payment_id, PaymentStatus.CANCELED, now=LONG_AGO)


async def _receive(
    work: UnitOfWork, truth: FakeTruth, order: PaymentOrder, attempt: int, *, kept: bool
) -> None:
    found = await work.payments.find(order.payment_id)
    assert found is not None
    await work.receipts.record(
        payment_id=order.payment_id,
        attempt=attempt,
        gateway=order.gateway,
        receipt_reference=f"{order.payment_id}/{attempt}",
        amount_minor=order.amount_minor,
        currency=order.currency,
        paid_at=LONG_AGO,
        kept=kept,
        now=LONG_AGO,
    )
    await work.attempts.set(order.payment_id, attempt, state=AttemptState.PAID, now=LONG_AGO)
    await work.ledger.post(
        f"receipt/{found.attempt(attempt).number}",
        LONG_AGO,
        [
            Posting(f"gateway_clearing:{order.gateway.value}", order.amount_minor, order.currency),
            Posting(
                "revenue" if kept else f"unapplied_receipts:{order.gateway.value}",
                -order.amount_minor,
                order.currency,
            ),
        ],
    )
    if kept:
        await work.payments.move(
            order.payment_id, PaymentStatus.SUCCEEDED, paid_at=LONG_AGO, now=LONG_AGO
        )
    else:
        receipt = Receipt(
            f"{order.payment_id}/{attempt}", order.amount_minor, order.currency, LONG_AGO
        )
        await set_aside(work, found, found.attempt(attempt), receipt, LONG_AGO)
    truth.taken.append(
        Charge(
            gateway=order.gateway,
            payment_id=order.payment_id,
            attempt=attempt,
            amount_minor=order.amount_minor,
            refunded_minor=0,
            currency=order.currency,
            paid_at=LONG_AGO,
        )
    )
