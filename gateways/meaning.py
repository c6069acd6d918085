"""What a gateway's error code says about the call it answers: the words of each gateway's table."""

from enum import StrEnum

from billing.errors import (
    GatewayMisconfigured,
    GatewayThrottled,
    InstructionsLost,
    OutcomeUnknown,
)


class Meaning(StrEnum):
    """UNKNOWN: nobody knows whether the call took effect. THROTTLED: it did not, come back later.
    MISCONFIGURED: only an operator can help. INSTRUCTIONS_LOST: ordered already, and what the
    payer needs cannot be had again. ABSENT: no such order. ORDERED: the number is in use (paid,
    closed or being paid), so only a query tells. DECLINED: the payer has to act. REFUSED: this
    order will never be taken.
    """

    UNKNOWN = "unknown"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"
    INSTRUCTIONS_LOST = "instructions_lost"
    ABSENT = "absent"
    ORDERED = "ordered"
    DECLINED = "declined"
    REFUSED = "refused"


def raise_unless_answered(
    meaning: Meaning, detail: str, *, retry_after_seconds: float | None = None
) -> None:
    """Raise what says nothing about the order: OutcomeUnknown, GatewayThrottled,
    GatewayMisconfigured, InstructionsLost."""
    match meaning:
        case Meaning.UNKNOWN:
            raise OutcomeUnknown(detail)
        case Meaning.THROTTLED:
            raise GatewayThrottled(detail, retry_after_seconds=retry_after_seconds)
        case Meaning.MISCONFIGURED:
            raise GatewayMisconfigured(detail)
        case Meaning.INSTRUCTIONS_LOST:
            raise InstructionsLost(detail)
        case _:
            return
