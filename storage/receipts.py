"""Receipts: money that gateways say they have taken, each recorded once and for ever."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import RowMapping, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.payment import GatewayName
from storage.tables import payment_attempts, receipts

_RECORD: Final = (
    insert(receipts)
    .on_conflict_do_nothing(index_elements=["payment_id", "attempt"])
    .returning(receipts.c.attempt)
)


@dataclass(frozen=True)
class ReceiptRecord:
    """`kept` is the one that paid for the payment; any other is unapplied money."""

    payment_id: str
    attempt: int
    gateway: GatewayName
    gateway_reference: str
    amount_minor: int
    currency: str
    kept: bool
    paid_at: datetime


class ReceiptConflict(Exception):
    """An attempt that has a receipt is said to have another: money that nobody may ignore."""


class Receipts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def record(
        self,
        *,
        payment_id: str,
        attempt: int,
        gateway: GatewayName,
        receipt_reference: str,
        amount_minor: int,
        currency: str,
        paid_at: datetime,
        kept: bool,
        now: datetime,
    ) -> bool:
        """Record a receipt; False if it is there already.

        Raises ReceiptConflict where the attempt has a receipt of another number or amount, and
        IntegrityError where the gateway's number stands for another attempt, or a second receipt
        of a payment is to be kept. None of these may be papered over.
        """
        inserted = await self._connection.execute(
            _RECORD,
            {
                "payment_id": payment_id,
                "attempt": attempt,
                "gateway": gateway.value,
                "gateway_reference": receipt_reference,
                "amount_minor": amount_minor,
                "currency": currency,
                "kept": kept,
                "paid_at": paid_at,
                "effective_at": now,
            },
        )
        if inserted.first() is not None:
            return True
        standing = next(one for one in await self.of(payment_id) if one.attempt == attempt)
        known = standing.gateway, standing.gateway_reference, standing.amount_minor
        if (*known, standing.currency) != (gateway, receipt_reference, amount_minor, currency):
            raise ReceiptConflict(
                f"attempt {attempt} of {payment_id} has the receipt {standing.gateway_reference}"
                f" over {standing.amount_minor} {standing.currency} from"
                f" {standing.gateway.value}; now {gateway.value} reports {receipt_reference} over"
                f" {amount_minor} {currency}: look both up at the gateway"
            )
        return False

    async def of(self, payment_id: str) -> list[ReceiptRecord]:
        """Every receipt of a payment, by attempt."""
        rows = await self._connection.execute(
            select(receipts).where(receipts.c.payment_id == payment_id).order_by(receipts.c.attempt)
        )
        return [_receipt(row) for row in rows.mappings()]

    async def payment_behind(self, gateway: GatewayName, reference: str) -> str | None:
        """The payment of an order, or of its money, by the gateway's own number; None if that is
        not ours."""
        of_order = select(payment_attempts.c.payment_id).where(
            payment_attempts.c.gateway == gateway.value, payment_attempts.c.reference == reference
        )
        of_money = select(receipts.c.payment_id).where(
            receipts.c.gateway == gateway.value, receipts.c.gateway_reference == reference
        )
        found: str | None = await self._connection.scalar(of_money.union(of_order).limit(1))
        return found

    async def kept(self, payment_id: str) -> ReceiptRecord | None:
        return next((one for one in await self.of(payment_id) if one.kept), None)


def _receipt(row: RowMapping) -> ReceiptRecord:
    return ReceiptRecord(
        payment_id=row["payment_id"],
        attempt=row["attempt"],
        gateway=GatewayName(row["gateway"]),
        gateway_reference=row["gateway_reference"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        kept=row["kept"],
        paid_at=row["paid_at"],
    )
