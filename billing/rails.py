"""When a mandate may be charged: WeChat Pay's legal windows and Alipay's deduct dates.

Both gateways judge by the time in Beijing at which they receive the call. What is legal is told by
`wechat_refusal` and `alipay_refusal`, to the second; what is chosen (`next_...`) keeps clear of the
edges, for a call takes its time and clocks differ.

WeChat Pay: a notice announces a deduction and the most it may come to. Notice day and waiting day
pass, then comes a week in which one deduction may succeed, by day only. Whether it is counted
from the notice day as day 0 or as day 1 is told both ways; only the days that both allow are used.

Alipay (cycle pay): the agreement has a next deduct date, on a day from 1 to 28, and may be charged
on it and on the days just before: 5 by the newer documents, 3 by the older, of which the smaller is
used. The date may be moved later, never earlier. A period that begins on the 29th or later is
therefore deducted under the first of the next month, whose window holds all those days.
"""

from datetime import date, datetime, time, timedelta, timezone
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from billing.payment import GatewayName

BEIJING: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
DAY_BEGINS: Final = time(7)
DAY_ENDS: Final = time(22)
CLEARANCE: Final = timedelta(minutes=5)
"""How far from the edges of a window a call is placed."""
CALL_TAKES: Final = timedelta(minutes=1)
"""A call that begins so short before the end of a window may be received after it."""

WECHAT_FIRST_DAY: Final = 3
WECHAT_LAST_DAY: Final = 8
"""Days after the notice's that are within its window, however it is counted."""
WECHAT_SPARE_DAYS: Final = 1
"""How much earlier than needed a notice is sent, so that one more day may be lost."""
WECHAT_UNANNOUNCED: Final = timedelta(hours=12)
"""For so long after signing, the first deduction needs no notice."""

ALIPAY_DAYS_BEFORE: Final = 3
ALIPAY_LAST_DAY: Final = 28
ALIPAY_SPARE_DAYS: Final = 2
"""How much later than needed a deduct date is set, so that a failed charge can be repeated."""
ALIPAY_TRIES: Final = 3
"""Charges within one window, the first included."""
ALIPAY_LONGEST_WAIT: Final = timedelta(days=21)
"""For so long a charge waits for a window to open: as far as retries put off the date before. One
that is further away is of a longer rhythm, or something else was charged under the one before."""


class DeductRefusal(StrEnum):
    """Why a charge by mandate must not be asked for at an instant."""

    NOT_ANNOUNCED = "not_announced"
    WAITING = "waiting"
    AT_NIGHT = "at_night"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    ABOVE_ANNOUNCED = "above_announced"
    ABOVE_CAP = "above_cap"
    ALREADY_DEDUCTED = "already_deducted"
    TRIES_EXHAUSTED = "tries_exhausted"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Window(_Frozen):
    """From `opens_at` until before `closes_at`."""

    opens_at: AwareDatetime
    closes_at: AwareDatetime

    def contains(self, instant: datetime) -> bool:
        return self.opens_at <= instant < self.closes_at


class WechatNotice(_Frozen):
    """A pre-deduct notice that WeChat Pay has accepted; `amount` (fen) is the most that follows."""

    sent_at: AwareDatetime
    amount: Annotated[int, Field(ge=1)]


class WechatStanding(_Frozen):
    """What is known of a contract in this cycle: the last signing, the last notice that no
    deduction has used, and whether a deduction has succeeded."""

    signed_at: AwareDatetime
    notice: WechatNotice | None = None
    deducted: bool = False
    deducted_since_signing: bool = False


class AlipayStanding(_Frozen):
    """What is known of an agreement: its next deduct date, the most one charge may come to (fen),
    and the charges tried and succeeded for the period of that date."""

    deduct_on: date
    single_amount: Annotated[int, Field(ge=1)]
    tries: Annotated[int, Field(ge=0)] = 0
    deducted: bool = False


def is_by_day(at: datetime) -> bool:
    """Whether WeChat Pay takes notices and deductions at that instant: 07:00 to 22:00 Beijing."""
    return DAY_BEGINS <= at.astimezone(BEIJING).time() < DAY_ENDS


def wechat_window(notice: WechatNotice) -> Window:
    """The first day's beginning to the last day's end; the nights between are not open."""
    sent_on = notice.sent_at.astimezone(BEIJING).date()
    return Window(
        opens_at=_beijing(sent_on + timedelta(days=WECHAT_FIRST_DAY), DAY_BEGINS),
        closes_at=_beijing(sent_on + timedelta(days=WECHAT_LAST_DAY), DAY_ENDS),
    )


def wechat_refusal(standing: WechatStanding, amount: int, at: datetime) -> DeductRefusal | None:
    """Why that amount (fen) must not be deducted at that instant; None where it may be."""
    if standing.deducted:
        return DeductRefusal.ALREADY_DEDUCTED
    if not is_by_day(at):
        return DeductRefusal.AT_NIGHT
    if _is_first(standing, at):
        return None
    if standing.notice is None:
        return DeductRefusal.NOT_ANNOUNCED
    window = wechat_window(standing.notice)
    if at < window.opens_at:
        return DeductRefusal.WAITING
    if at >= window.closes_at:
        return DeductRefusal.TOO_LATE
    if amount > standing.notice.amount:
        return DeductRefusal.ABOVE_ANNOUNCED
    return None


def wechat_notice_window(due_at: datetime) -> Window:
    """When the notice goes out for a deduction that is to be made when it is due: from a spare day
    before the last possible one, until that one's end. Afterwards it is too late to be on time,
    and the notice is sent at `next_by_day`."""
    due_on = next_by_day(due_at).astimezone(BEIJING).date()
    last = due_on - timedelta(days=WECHAT_FIRST_DAY)
    return Window(
        opens_at=_beijing(last - timedelta(days=WECHAT_SPARE_DAYS), DAY_BEGINS),
        closes_at=_beijing(last, DAY_ENDS),
    )


def next_by_day(not_before: datetime) -> datetime:
    """The first instant from then on at which WeChat Pay is called."""
    local = not_before.astimezone(BEIJING)
    begins = _beijing(local.date(), DAY_BEGINS) + CLEARANCE
    if local < begins:
        return begins
    if local < _beijing(local.date(), DAY_ENDS) - CLEARANCE:
        return not_before
    return begins + timedelta(days=1)


def next_wechat_deduct(
    standing: WechatStanding, amount: int, not_before: datetime
) -> datetime | None:
    """The first instant from then on at which the amount (fen) is deducted; None where that takes
    another notice, or none may follow in this cycle."""
    if standing.deducted:
        return None
    at = next_by_day(not_before)
    if _is_first(standing, at + CLEARANCE):
        return at
    if standing.notice is None or amount > standing.notice.amount:
        return None
    window = wechat_window(standing.notice)
    at = next_by_day(max(not_before, window.opens_at))
    return at if window.contains(at) else None


def wechat_open_until(standing: WechatStanding, at: datetime) -> datetime | None:
    """Until when what may be deducted at an instant may still be, by day; None where it may not."""
    ends = []
    if _is_first(standing, at):
        ends.append(standing.signed_at + WECHAT_UNANNOUNCED)
    if standing.notice is not None and (window := wechat_window(standing.notice)).contains(at):
        ends.append(window.closes_at)
    return max(ends, default=None)


def next_call(gateway: GatewayName, until: datetime | None, now: datetime) -> datetime | None:
    """The first instant from now on at which a charge by mandate, made ready until then, may be
    asked for; None where that is over. A call can come hours after it was decided upon, where
    nobody was there to make it."""
    at = now
    if gateway is GatewayName.WECHATPAY and not (is_by_day(now) and is_by_day(now + CALL_TAKES)):
        at = next_by_day(now)
    return at if until is None or at + CALL_TAKES <= until else None


def _is_first(standing: WechatStanding, at: datetime) -> bool:
    since = at - standing.signed_at
    return timedelta(0) <= since < WECHAT_UNANNOUNCED and not standing.deducted_since_signing


def alipay_window(deduct_on: date) -> Window:
    """The instants at which Alipay takes a charge under that deduct date."""
    return Window(
        opens_at=_beijing(deduct_on - timedelta(days=ALIPAY_DAYS_BEFORE), time()),
        closes_at=_beijing(deduct_on + timedelta(days=1), time()),
    )


def alipay_refusal(standing: AlipayStanding, amount: int, at: datetime) -> DeductRefusal | None:
    """Why that amount (fen) must not be charged at that instant; None where it may be."""
    window = alipay_window(standing.deduct_on)
    if standing.deducted:
        return DeductRefusal.ALREADY_DEDUCTED
    if amount > standing.single_amount:
        return DeductRefusal.ABOVE_CAP
    if standing.tries >= ALIPAY_TRIES:
        return DeductRefusal.TRIES_EXHAUSTED
    if at < window.opens_at:
        return DeductRefusal.TOO_EARLY
    return DeductRefusal.TOO_LATE if at >= window.closes_at else None


def alipay_deduct_date(due_at: datetime) -> date:
    """The deduct date under which a charge is made that falls due then: a spare time later where
    the month has it, the first of the next month from the 29th on. Its window holds the whole day
    on which the charge is due."""
    due_on = due_at.astimezone(BEIJING).date()
    if due_on.day > ALIPAY_LAST_DAY:
        return _in_every_month(due_on)
    return due_on.replace(day=min(due_on.day + ALIPAY_SPARE_DAYS, ALIPAY_LAST_DAY))


def next_alipay_deduct(
    standing: AlipayStanding, amount: int, not_before: datetime
) -> datetime | None:
    """The first instant from then on at which the amount (fen) is charged; None where the date has
    to be moved (`alipay_moved_date`) or a mandate cannot carry the charge."""
    window = alipay_window(standing.deduct_on)
    at = max(not_before, window.opens_at + CLEARANCE)
    if at >= window.closes_at - CLEARANCE:
        return None
    return at if alipay_refusal(standing, amount, at) is None else None


def alipay_moved_date(standing: AlipayStanding, not_before: datetime) -> date | None:
    """The deduct date to which a plan is moved so that it can be charged from then on; None where
    the one it has will do, or is later already, as no date is ever moved earlier. Where its tries
    are used up, the next window opens no sooner than this one closes: whichever of the two a try
    is counted in, there are not too many."""
    if not_before < alipay_window(standing.deduct_on).closes_at - CLEARANCE:
        if standing.tries < ALIPAY_TRIES:
            return None
        return _in_every_month(standing.deduct_on + timedelta(days=ALIPAY_DAYS_BEFORE + 1))
    wanted = alipay_deduct_date(not_before + 2 * CLEARANCE)
    return wanted if wanted > standing.deduct_on else None


def _in_every_month(day: date) -> date:
    """The day, or the first after it that no month lacks."""
    if day.day <= ALIPAY_LAST_DAY:
        return day
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _beijing(day: date, at: time) -> datetime:
    return datetime.combine(day, at, BEIJING)
