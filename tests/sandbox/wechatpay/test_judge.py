"""The sandbox's judge of WeChat Pay's windows, and the rules that choose the moments it judges."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from billing.calendar import Anchor, Cycle, Schedule
from billing.rails import (
    WechatNotice,
    WechatStanding,
    next_by_day,
    next_wechat_deduct,
    wechat_notice_window,
)
from sandbox.wechatpay import judge

_ZONES = ("Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "UTC")


def beijing(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


_SIGNED = beijing("2026-02-13T12:00:00")
_NOTICE = judge.Notice(beijing("2026-03-10T21:59:59"), 1900)


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-03-10T21:59:59", False),
        ("2026-03-12T12:00:00", False),
        ("2026-03-13T06:59:59", False),
        ("2026-03-13T07:00:00", True),
        ("2026-03-13T21:59:59", True),
        ("2026-03-13T22:00:00", False),
        ("2026-03-18T21:59:59", True),
        ("2026-03-19T07:00:00", False),
    ],
)
def test_days_three_to_nine_by_either_numbering(at: str, is_open: bool) -> None:
    standing = judge.Standing(_SIGNED, has_deducted=True, notice=_NOTICE)
    assert (judge.objection_to_deduction(standing, 1900, beijing(at)) is None) is is_open


def test_one_success_a_notice_and_no_more_than_announced() -> None:
    at = beijing("2026-03-14T12:00:00")
    standing = judge.Standing(_SIGNED, has_deducted=True, notice=_NOTICE)
    assert judge.objection_to_deduction(standing, 1900, at) is None
    assert judge.objection_to_deduction(standing, 1901, at)
    assert judge.objection_to_deduction(replace(standing, notice=None), 1, at)
    used = replace(standing, notice=replace(_NOTICE, is_used=True))
    assert judge.objection_to_deduction(used, 1, at)
    shorter = replace(standing, notice=replace(_NOTICE, days=2))
    assert judge.objection_to_deduction(shorter, 1, at)


def test_the_first_within_twelve_hours_needs_no_notice() -> None:
    fresh = judge.Standing(beijing("2026-03-10T09:00:00"))
    assert judge.objection_to_deduction(fresh, 1, beijing("2026-03-10T20:59:59")) is None
    assert judge.objection_to_deduction(fresh, 1, beijing("2026-03-10T21:00:00"))
    second = replace(fresh, has_deducted=True)
    assert judge.objection_to_deduction(second, 1, beijing("2026-03-10T12:00:00"))


@pytest.mark.parametrize(
    ("at", "is_open"),
    [("06:59:59", False), ("07:00:00", True), ("21:59:59", True), ("22:00:00", False)],
)
def test_notices_by_day(at: str, is_open: bool) -> None:
    assert (judge.objection_to_notice(beijing(f"2026-03-10T{at}")) is None) is is_open


@dataclass
class Life:
    """One contract from its signing on, kept twice: as the application knows it (`known`) and as
    the gateway does (`judged`). Each call takes its time to arrive."""

    rng: random.Random
    signed_at: datetime

    def __post_init__(self) -> None:
        self.known = WechatStanding(signed_at=self.signed_at)
        self.judged = judge.Standing(self.signed_at)
        self.refusals = self.made = 0

    def arrives(self, sent_at: datetime) -> datetime:
        return sent_at + timedelta(seconds=self.rng.randrange(120))

    def announce(self, at: datetime, fen: int) -> None:
        arrived = self.arrives(at)
        self.refusals += judge.objection_to_notice(arrived) is not None
        self.judged = replace(self.judged, notice=judge.Notice(arrived, fen))
        notice = WechatNotice(sent_at=arrived, amount=fen)
        self.known = self.known.model_copy(update={"notice": notice})

    def deduct(self, at: datetime, fen: int, *, pays: bool) -> None:
        arrived = self.arrives(at)
        self.refusals += judge.objection_to_deduction(self.judged, fen, arrived) is not None
        self.made += 1
        if not pays:
            return
        notice = self.judged.notice and replace(self.judged.notice, is_used=True)
        self.judged = replace(self.judged, has_deducted=True, notice=notice)
        self.known = self.known.model_copy(
            update={"deducted": True, "deducted_since_signing": True, "notice": None}
        )

    def renew(self, due: datetime, fen: int, now: datetime) -> datetime:
        """One period: announced and deducted, declined and tried again; when that was over."""
        self.known = self.known.model_copy(update={"deducted": False})
        is_first = not self.known.deducted_since_signing
        if not is_first:
            now = max(now, next_by_day(wechat_notice_window(due).opens_at)) + self.idle()
        for _ in range(self.rng.randrange(1, 9)):
            at = next_wechat_deduct(self.known, fen, max(now, due))
            if at is None:
                now = next_by_day(now)
                self.announce(now, fen + self.rng.choice((0, 0, 1, -1)))
                now += self.idle()
                continue
            pays = self.rng.random() < 0.7
            self.deduct(at, fen, pays=pays)
            now = at + self.idle()
            if pays:
                assert next_wechat_deduct(self.known, fen, now) is None
                break
            now += timedelta(hours=self.rng.randrange(80))
        return now

    def idle(self) -> timedelta:
        """How long nobody was there to act: mostly seconds, sometimes days."""
        return timedelta(seconds=self.rng.choice((0, 5, 60, 7200, self.rng.randrange(12 * 86400))))


def live(seed: str) -> Life:
    rng = random.Random(seed)
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(400 * 86400))
    months = Schedule(anchor=Anchor.at(begin, rng.choice(_ZONES)), cycle=Cycle.MONTHLY)
    now = months.starts_at(1)
    life = Life(rng, now)
    for number in range(1, 7):
        due = months.starts_at(number)
        now = life.renew(due, rng.randrange(100, 9900), max(now, life.signed_at))
    return life


def run(timelines: int, seed: int) -> None:
    made = 0
    for number in range(timelines):
        life = live(f"{seed}/{number}")
        assert life.refusals == 0, f"seed {seed}, timeline {number}"
        made += life.made
    assert made > 3 * timelines


def test_nothing_the_rules_choose_is_outside_the_window() -> None:
    run(500, 4)


@pytest.mark.soak
def test_nothing_of_ten_thousand_timelines_is_outside_the_window() -> None:
    run(10_000, 400)
