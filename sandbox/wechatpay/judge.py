"""When WeChat Pay lets a merchant notify a payer and deduct by contract, by the time in Beijing.

Notices and deductions by day only, from 07:00 to before 22:00. The day of the notice and a waiting
day pass; deductible are days 3 to 9, at the most what was announced, with one success. WeChat Pay's
documents number the day of the notice 0 in one place and 1 in another: a day is open here only if
it is by both. The first deduction within 12 hours of signing needs no notice.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sandbox.beijing import BEIJING

FIRST_HOUR: Final = 7
LAST_HOUR: Final = 22
FIRST_DAY: Final = 3
USUAL_DAYS: Final = 7
"""How many days are deductible unless the notice says fewer."""
FREE_TIME: Final = timedelta(hours=12)


@dataclass(frozen=True)
class Notice:
    """A notice that was sent: `most` fen, deductible for `days` days; `is_used` by a success."""

    at: datetime
    most: int
    days: int = USUAL_DAYS
    is_used: bool = False


@dataclass(frozen=True)
class Standing:
    """A contract in force: when it was signed, whether it was ever deducted by, the last notice."""

    signed_at: datetime
    has_deducted: bool = False
    notice: Notice | None = None


def is_by_day(at: datetime) -> bool:
    return FIRST_HOUR <= at.astimezone(BEIJING).hour < LAST_HOUR


def objection_to_notice(at: datetime) -> str | None:
    """Why no notice may be sent then, in WeChat Pay's manner of words; None where it may."""
    return None if is_by_day(at) else "预扣费通知仅可在07:00~22:00发送"


def objection_to_deduction(standing: Standing, fen: int, at: datetime) -> str | None:
    """Why that amount may not be deducted then; None where it may."""
    if not is_by_day(at):
        return "仅可在07:00~22:00发起扣款"
    since = at - standing.signed_at
    if not standing.has_deducted and timedelta(0) <= since < FREE_TIME:
        return None
    notice = standing.notice
    if notice is None:
        return "扣款前未下发预扣费通知"
    if notice.is_used:
        return "本周期已扣款成功，需重新下发预扣费通知"
    day = (at.astimezone(BEIJING).date() - notice.at.astimezone(BEIJING).date()).days
    if day < FIRST_DAY:
        return "未到可扣费期"
    # The last day where the notice's is numbered 1: one before that where it is numbered 0.
    if day > FIRST_DAY + notice.days - 2:
        return "已过可扣费期"
    return None if fen <= notice.most else "扣款金额大于预计扣费金额"
