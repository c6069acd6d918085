"""A dispute: a cardholder's bank takes a payment's money back, and how everybody sees it."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class DisputeStatus(StrEnum):
    """What a gateway says of a dispute, in our words.

    WARNING: the bank asks, and has taken nothing. OPEN: it waits for the merchant's answer.
    UNDER_REVIEW: it has the answer. WON: the merchant keeps the money, or gets it back. LOST: it
    is gone. UNRECOGNISED: a status that no table of ours names.
    """

    WARNING = "warning"
    OPEN = "open"
    UNDER_REVIEW = "under_review"
    UNRECOGNISED = "unrecognised"
    LOST = "lost"
    WON = "won"

    @property
    def has_ended(self) -> bool:
        return self in (DisputeStatus.WON, DisputeStatus.LOST)

    @property
    def rank(self) -> int:
        """Of two answers that tell of the same money, the one of higher rank is the later."""
        return tuple(DisputeStatus).index(self)


class Dispute(BaseModel):
    """The latest dispute of a payment as the API shows it: every field always present.

    `id` is the gateway's own, `amount` is in minor units, `due_by` the last moment for an answer,
    and `closed_at` when we learned that it was decided.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    status: DisputeStatus
    amount: int
    currency: str
    reason: str
    due_by: datetime | None
    opened_at: datetime
    closed_at: datetime | None
