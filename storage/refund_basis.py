"""What a reservation is decided by, and the rules that decide it."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    RowMapping,
    Select,
    and_,
    bindparam,
    cast,
    func,
    select,
    true,
)

from billing.errors import PaymentNotRefundable, RefundExceedsPayment
from billing.payment import GatewayName, PaymentStatus
from billing.refund import REFUND_LIMITS, RefundCause, RefundStatus
from storage.dispute_tables import held_of
from storage.tables import payments, receipts, refunds

OF_RECEIPT: Final = and_(
    refunds.c.payment_id == receipts.c.payment_id, refunds.c.attempt == receipts.c.attempt
)


def _basis(is_wanted: ColumnElement[bool]) -> Select[Any]:
    """What a reservation is decided by: payment, receipt (nulls if there is none), and what its
    refunds and disputes have taken."""
    is_of_receipt = refunds.c.attempt == receipts.c.attempt
    is_taken = and_(is_of_receipt, refunds.c.status != RefundStatus.FAILED.value)
    is_same = refunds.c.id == bindparam("wanted_refund")
    taken = (
        select(
            func.coalesce(func.sum(refunds.c.amount_minor).filter(is_taken), 0).label("sum"),
            func.count().filter(is_taken).label("count"),
            # A refund asked for late holds up the next one; greatest() passes over nulls.
            func.max(func.greatest(refunds.c.ask_at, refunds.c.asked_at))
            .filter(is_of_receipt)
            .label("last_ask"),
            func.coalesce(func.bool_or(is_same), False).label("stands"),
        )
        .where(refunds.c.payment_id == payments.c.id)
        .lateral("taken")
    )
    disputed = held_of(receipts)
    return (
        select(
            payments.c.application.label("owner"),
            payments.c.status,
            receipts,
            cast(taken.c.sum, BigInteger).label("taken_minor"),
            disputed.c.disputed_minor,
            taken.c.count.label("refunds"),
            taken.c.last_ask,
            taken.c.stands,
        )
        .select_from(payments)
        .outerjoin(receipts, and_(receipts.c.payment_id == payments.c.id, is_wanted))
        .join(taken, true())
        .join(disputed, true())
        .where(payments.c.id == bindparam("wanted_payment"))
    )


BASIS_OF_KEPT: Final = _basis(receipts.c.kept)
BASIS_OF_ATTEMPT: Final = _basis(receipts.c.attempt == bindparam("wanted_attempt"))


def require_refundable(
    basis: RowMapping, payment_id: str, attempt: int | None, cause: RefundCause
) -> None:
    """Raises PaymentNotRefundable: no such receipt, or a payment that has not succeeded."""
    status = PaymentStatus(basis["status"])
    if cause is RefundCause.REQUESTED and status is not PaymentStatus.SUCCEEDED:
        raise PaymentNotRefundable(
            f"the payment is {status}; only a succeeded one can be refunded", param="payment_id"
        )
    if basis["attempt"] is None:
        which = "that paid for it" if attempt is None else f"of its attempt {attempt}"
        raise PaymentNotRefundable(
            f"no money {which} came in for payment {payment_id}: there is nothing to refund",
            param="payment_id",
        )
    if cause is RefundCause.RETURNED and basis["kept"]:
        raise PaymentNotRefundable(
            f"the money of attempt {basis['attempt']} paid for payment {payment_id}: it is not"
            " returned but refunded",
            param="payment_id",
        )
    if cause is RefundCause.REQUESTED and not basis["kept"]:
        raise PaymentNotRefundable(
            f"the money of attempt {attempt} did not pay for payment {payment_id}: it is not"
            " refunded but returned",
            param="payment_id",
        )


def earliest(basis: RowMapping, now: datetime) -> datetime:
    """Gateways want a pause between two refunds of one order, which is one attempt."""
    last: datetime | None = basis["last_ask"]
    if last is None:
        return now
    return max(now, last + REFUND_LIMITS[GatewayName(basis["gateway"])].pause)


def require_within_limits(basis: RowMapping, payment_id: str, ask_at: datetime) -> None:
    """Raises PaymentNotRefundable where the gateway gives back no more."""
    gateway = GatewayName(basis["gateway"])
    limits = REFUND_LIMITS[gateway]
    if limits.age is not None and ask_at > basis["paid_at"] + limits.age:
        raise PaymentNotRefundable(
            f"payment {payment_id} was paid more than {limits.age.days} days ago, after which"
            f" {gateway.value} refunds no more: give the money back another way",
            param="payment_id",
        )
    if limits.count is not None and basis["refunds"] >= limits.count:
        raise PaymentNotRefundable(
            f"payment {payment_id} has {basis['refunds']} refunds, and {gateway.value} allows no"
            " more: give the money back another way",
            param="payment_id",
        )


def amount_of(basis: RowMapping, payment_id: str, wanted: int | None) -> int:
    """What is to be refunded (minor units). Raises RefundExceedsPayment."""
    disputed: int = basis["disputed_minor"]
    # A payer may dispute what was refunded already: then nothing is left, not less than that.
    left: int = max(basis["amount_minor"] - basis["taken_minor"] - disputed, 0)
    amount = left if wanted is None else wanted
    if left == 0 or amount > left:
        with_dispute = f" and {disputed} withdrawn by a dispute" if disputed else ""
        raise RefundExceedsPayment(
            f"{left} of {basis['amount_minor']} {basis['currency']} in minor units are left of"
            f" payment {payment_id}, the rest being refunded or set aside for it{with_dispute}",
            param="amount",
        )
    return amount
