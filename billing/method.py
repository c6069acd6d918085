"""A saved payment method: its words, its state machine and the form in which everybody sees it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from billing.payment import Failure, GatewayName, NextAction


class MethodStatus(StrEnum):
    """PENDING waits for the payer's consent; FAILED never had it. ENDED may not be charged any
    more: deleted here, revoked by the payer, or past its end."""

    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    ENDED = "ended"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_S = MethodStatus
TRANSITIONS: Final[dict[MethodStatus, frozenset[MethodStatus]]] = {
    _S.PENDING: frozenset({_S.ACTIVE, _S.FAILED, _S.ENDED}),
    _S.ACTIVE: frozenset({_S.ENDED}),
    _S.FAILED: frozenset(),
    _S.ENDED: frozenset(),
}


def sources_of(target: MethodStatus) -> frozenset[MethodStatus]:
    """The states a write of `target` must name as those before it."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class CardFace(_Frozen):
    """What may be shown of a card: enough for its holder to know it, not enough to use it."""

    brand: str
    last4: Annotated[str, Field(pattern=r"^[0-9]{4}$")]
    expires_month: Annotated[int, Field(ge=1, le=12)]
    expires_year: int


class SavedMethod(_Frozen):
    """The method as the API shows it: every field always present.

    `most` (minor units) is the most that one charge may come to, None where nothing limits it.
    `ends_at` is when it stops being chargeable by itself.
    """

    id: str
    user_id: str
    gateway: GatewayName
    status: MethodStatus
    is_default: bool = False
    card: CardFace | None = None
    most: int | None = None
    next_action: NextAction
    failure: Failure | None = None
    created_at: datetime
    updated_at: datetime
    ends_at: datetime | None = None
    ended_at: datetime | None = None
