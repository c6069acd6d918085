"""The ledger's one door, `ledger_post`; everything behind it is PostgreSQL's own (0001_ledger)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import DateTime, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

_POST: Final = text(
    "SELECT ledger_post(:cause, :effective_at, CAST(:postings AS jsonb))"
).bindparams(
    bindparam("cause", type_=Text()), bindparam("effective_at", type_=DateTime(timezone=True))
)
_BALANCES: Final = text(
    "SELECT account.code, posting.currency, sum(posting.amount_minor)::bigint AS balance_minor"
    " FROM ledger_postings AS posting JOIN ledger_accounts AS account"
    " ON account.id = posting.account_id GROUP BY account.code, posting.currency"
    " ORDER BY account.code, posting.currency"
)


@dataclass(frozen=True)
class Posting:
    """One line of a transaction, signed: a debit is positive, a credit negative."""

    account: str
    amount_minor: int
    currency: str


@dataclass(frozen=True)
class Balance:
    account: str
    currency: str
    balance_minor: int


class Ledger:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def post(self, cause: str, effective_at: datetime, postings: Sequence[Posting]) -> bool:
        """Post once per cause; False if the same was posted before.

        Raises IntegrityError where the cause has other postings; at commit, where a transaction
        has fewer than two or does not sum to zero in each currency.
        """
        document = json.dumps(
            [
                {
                    "account": posting.account,
                    "currency": posting.currency,
                    "amount_minor": posting.amount_minor,
                }
                for posting in postings
            ]
        )
        posted = await self._connection.scalar(
            _POST, {"cause": cause, "effective_at": effective_at, "postings": document}
        )
        return bool(posted)

    async def balances(self) -> list[Balance]:
        """What every account holds, per currency."""
        rows = await self._connection.execute(_BALANCES)
        return [
            Balance(row["code"], row["currency"], row["balance_minor"]) for row in rows.mappings()
        ]
