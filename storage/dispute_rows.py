"""What a dispute's row says, and what a change of it means to books and subscribers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from billing.dispute import Dispute, DisputeStatus
from billing.payment import GatewayName
from storage.ledger import Posting


@dataclass(frozen=True)
class DisputeRecord:
    """A dispute of the money that an attempt brought; amounts are in minor units.

    `withdrawn_minor` and `reinstated_minor` are all that was ever taken and given back,
    `written_off_minor` what was booked as a loss, and `fee_minor` what the gateway charged.
    """

    dispute: Dispute
    gateway: GatewayName
    payment_id: str
    attempt: int
    application: str
    gateway_status: str
    withdrawn_minor: int
    reinstated_minor: int
    written_off_minor: int
    fee_minor: int

    @property
    def held_minor(self) -> int:
        """What the dispute has of the money now, lost or not."""
        return self.withdrawn_minor - self.reinstated_minor

    @property
    def age(self) -> tuple[int, int]:
        """Of two tellings of one dispute the one of greater age is the later: money only ever
        moves on, and between two moves the status does."""
        return self.withdrawn_minor + self.reinstated_minor, self.dispute.status.rank


@dataclass(frozen=True)
class DisputeChange:
    """What an answer of the gateway has changed; `before` is None for a new dispute."""

    before: DisputeRecord | None
    after: DisputeRecord

    @property
    def event_types(self) -> Iterator[str]:
        """Every step that was taken, in order: an answer may tell of several at once."""
        before, after = self.before, self.after
        told = False
        if before is None:
            yield "dispute.opened"
            told = True
        if after.withdrawn_minor > (before.withdrawn_minor if before else 0):
            yield "dispute.funds_withdrawn"
            told = True
        if after.reinstated_minor > (before.reinstated_minor if before else 0):
            yield "dispute.funds_reinstated"
            told = True
        status = after.dispute.status
        if status.has_ended and (before is None or before.dispute.status is not status):
            yield f"dispute.{status.value}"
        elif not told:
            yield "dispute.updated"

    def entries(self, lost_from: str) -> Iterator[tuple[str, list[Posting]]]:
        """Cause and postings of each step; a loss comes out of the account `lost_from`.

        Causes are of the dispute and of how far its money has moved, so that no step has two.
        """
        before, after = self.before, self.after
        gateway, cause = after.gateway.value, f"dispute/{after.dispute.id}"
        disputed, clearing = f"disputed:{gateway}", f"gateway_clearing:{gateway}"
        moved = after.withdrawn_minor + after.reinstated_minor
        withdrawn = after.withdrawn_minor - (before.withdrawn_minor if before else 0)
        reinstated = after.reinstated_minor - (before.reinstated_minor if before else 0)
        lost = after.written_off_minor - (before.written_off_minor if before else 0)
        fee = after.fee_minor - (before.fee_minor if before else 0)
        for step, amount, debit, credit in (
            (f"withdrawn/{after.withdrawn_minor}", withdrawn, disputed, clearing),
            (f"reinstated/{after.reinstated_minor}", reinstated, clearing, disputed),
            (f"lost/{moved}" if lost > 0 else f"unlost/{moved}", lost, lost_from, disputed),
            (f"fee/{moved}/{after.fee_minor}", fee, f"dispute_fees:{gateway}", clearing),
        ):
            if amount:
                currency = after.dispute.currency
                yield (
                    f"{cause}/{step}",
                    [Posting(debit, amount, currency), Posting(credit, -amount, currency)],
                )


def dispute_of(row: RowMapping) -> DisputeRecord:
    return DisputeRecord(
        dispute=Dispute(
            id=row["reference"],
            status=DisputeStatus(row["status"]),
            amount=row["amount_minor"],
            currency=row["currency"],
            reason=row["reason"],
            due_by=row["due_by"],
            opened_at=row["opened_at"],
            closed_at=row["closed_at"],
        ),
        gateway=GatewayName(row["gateway"]),
        payment_id=row["payment_id"],
        attempt=row["attempt"],
        application=row["application"],
        gateway_status=row["gateway_status"],
        withdrawn_minor=row["withdrawn_minor"],
        reinstated_minor=row["reinstated_minor"],
        written_off_minor=row["written_off_minor"],
        fee_minor=row["fee_minor"],
    )


def dispute_event_data_of(record: DisputeRecord) -> dict[str, Any]:
    """What a subscriber needs to know of a change: the dispute, and how much of the money it
    has."""
    return {
        "dispute": record.dispute.model_dump(mode="json"),
        "gateway": record.gateway.value,
        "attempt": record.attempt,
        "amount_withdrawn": record.held_minor,
    }
