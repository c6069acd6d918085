"""What the checker looks at, and what it has to say about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import text
from temporalio.client import Client

from billing.payment import GatewayName
from storage.database import Database

UNDER_WAY: Final = timedelta(seconds=60)
"""Money and messages younger than this may still be on their way."""


@dataclass(frozen=True)
class Finding:
    """One broken promise: which, where, what is wrong, and what to do about it. Or only what
    somebody may want to know, where nothing is broken: then it `is_information`."""

    promise: int
    subject: str
    what: str
    advice: str
    is_information: bool = False


@dataclass(frozen=True)
class Charge:
    """Money that a gateway says it took for one attempt at a payment."""

    gateway: GatewayName
    payment_id: str
    attempt: int
    amount_minor: int
    refunded_minor: int
    currency: str
    paid_at: datetime
    disputed_minor: int = 0
    """What disputes have withdrawn of it, and not given back."""


class GatewayTruth(Protocol):
    """Where charges are learned from."""

    async def charges(self) -> Sequence[Charge]:
        """Every charge there is to be seen. Raises OutcomeUnknown where none can be."""

    def covers(self, payment_id: str) -> bool:
        """Whether a charge of this payment would have been seen."""


@dataclass(frozen=True)
class Evidence:
    """One look at everything. `under_way` is zero where nothing can be on its way any more.

    On a live system `now` is the moment before the gateways were asked for `charges`: what was
    recorded since then they could not have told of.
    """

    database: Database
    charges: Sequence[Charge]
    truth: GatewayTruth
    now: datetime
    client: Client | None = None
    logs: Sequence[Path] = ()
    under_way: timedelta = UNDER_WAY

    async def rows(self, query: str, **parameters: object) -> list[Mapping[str, Any]]:
        """The rows of one read-only question."""
        async with self.database.begin() as work:
            found = await work.connection.execute(text(query), parameters)
            return [dict(row) for row in found.mappings()]
