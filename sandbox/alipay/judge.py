"""Whether Alipay takes a charge under cycle pay, and what comes after it.

A charge is taken on the deduct date and on the five days before, by the calendar of Beijing; one
succeeds in a period, as the date then moves on.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from sandbox.beijing import BEIJING

DAYS_BEFORE: Final = 5
LAST_DAY: Final = 28


@dataclass(frozen=True)
class Plan:
    """When a payer is charged next, every so many months or days, and the most at once (fen)."""

    deduct_on: date
    period_type: str
    period: int
    most: int

    def objection(self, amount: int, now: datetime) -> str | None:
        """The code of ACQ by which a charge is refused at that instant."""
        if amount > self.most:
            return "CYCLE_PAY_SINGLE_FEE_EXCEED"
        early = self.deduct_on - now.astimezone(BEIJING).date()
        if not timedelta(0) <= early <= timedelta(days=DAYS_BEFORE):
            return "CYCLE_PAY_DATE_NOT_MATCH"
        return None

    def objection_to_move(self, wanted: date) -> str | None:
        """Why the date cannot be moved there."""
        if wanted <= self.deduct_on:
            return "deduct_time is later than the plan's"
        if self.period_type == "MONTH" and wanted.day > LAST_DAY:
            return f"deduct_time is on a day from 1 to {LAST_DAY}"
        return None

    @property
    def following(self) -> date:
        """The deduct date once this period is paid."""
        if self.period_type == "DAY":
            return self.deduct_on + timedelta(days=self.period)
        years, month = divmod(self.deduct_on.month - 1 + self.period, 12)
        return self.deduct_on.replace(year=self.deduct_on.year + years, month=month + 1)
