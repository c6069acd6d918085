import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from billing.dunning import (
    Debt,
    DunningAction,
    DunningSchedule,
    SoftReason,
    Step,
    Try,
    access_at,
    carried_out,
    declined,
    next_step,
    soft_reason,
    timetable,
)
from billing.payment import DeclineClass
from billing.subscription import Access

SCHEDULE = DunningSchedule()
DUE = datetime(2026, 3, 3, 8, tzinfo=UTC)
SOFT, HARD, NEEDS = DeclineClass.SOFT, DeclineClass.HARD, DeclineClass.NEEDS_CUSTOMER
RETRY = DunningAction.RETRY


def debt(*tries: Try, **changed: object) -> Debt:
    return Debt.model_validate(
        {
            "due_at": DUE,
            "ends_at": DUE + timedelta(days=31),
            "zone": "Asia/Shanghai",
            "method_id": "pm_1",
            "tries": tries,
            **changed,
        }
    )


def tried(
    hours: float,
    decline: DeclineClass | None = SOFT,
    code: str | None = "generic_decline",
    method: str = "pm_1",
) -> Try:
    at = DUE + timedelta(hours=hours)
    return Try(at=at, method_id=method, decline=decline, decline_code=code)


def all_steps(found: Debt, schedule: DunningSchedule = SCHEDULE) -> list[Step]:
    """Every step until the next retry, or the end."""
    steps: list[Step] = []
    while not steps or steps[-1].kind not in (RETRY, DunningAction.END, DunningAction.SETTLE):
        step = next_step(schedule, found)
        steps.append(step)
        found = carried_out(schedule, found, step, step.at)
    return steps


def next_retry(found: Debt, schedule: DunningSchedule = SCHEDULE) -> Step | None:
    last = all_steps(found, schedule)[-1]
    return last if last.kind is RETRY else None


def test_the_first_try_is_made_as_it_falls_due() -> None:
    assert next_step(SCHEDULE, debt()) == Step(kind=RETRY, at=DUE, method_id="pm_1")


def test_nothing_is_done_while_an_outcome_is_unknown() -> None:
    assert next_step(SCHEDULE, debt(tried(0, None))).kind is DunningAction.SETTLE


@pytest.mark.parametrize("decline", [HARD, NEEDS])
def test_what_retries_cannot_mend_asks_the_customer_once_and_is_never_retried(
    decline: DeclineClass,
) -> None:
    steps = all_steps(debt(tried(0, decline)))
    kinds = Counter(step.kind for step in steps)
    assert steps[0] == Step(kind=DunningAction.ASK, at=DUE)
    assert kinds[DunningAction.ASK] == 1
    assert kinds[RETRY] == 0
    assert steps[-1].kind is DunningAction.END


@pytest.mark.parametrize("decline", [SOFT, HARD, NEEDS])
def test_a_new_method_is_tried_at_once(decline: DeclineClass) -> None:
    since = DUE + timedelta(hours=30)
    found = debt(tried(0, decline), method_id="pm_2", method_since=since)
    assert next_retry(found) == Step(kind=RETRY, at=since, method_id="pm_2")
    # The same card, whose data the customer has mended, is one too.
    assert next_retry(debt(tried(0, decline), method_since=since)) == Step(
        kind=RETRY, at=since, method_id="pm_1"
    )


def test_without_a_method_the_customer_is_asked() -> None:
    steps = all_steps(debt(method_id=None))
    assert [step.kind for step in steps].count(DunningAction.ASK) == 1
    assert steps[0] == Step(kind=DunningAction.ASK, at=DUE)
    assert steps[-1].kind is DunningAction.END


@pytest.mark.parametrize(
    ("tries", "hours"),
    [
        ([tried(0)], 72),
        ([tried(0, code="processing_error")], 24),
        ([tried(0, code="processing_error"), tried(24, code="processing_error")], 48),
        ([tried(0), tried(72)], 144),
        ([tried(0), tried(72), tried(144), tried(216)], None),
        ([tried(410, code="processing_error")], None),
    ],
)
def test_soft_declines_are_spaced_by_their_reason(tries: list[Try], hours: int | None) -> None:
    step = next_retry(debt(*tries))
    assert (step and step.at) == (None if hours is None else DUE + timedelta(hours=hours))


def test_lack_of_funds_waits_for_a_pay_day() -> None:
    found = debt(tried(0, code="insufficient_funds"), tried(100, code="insufficient_funds"))
    step = next_retry(found)
    assert step is not None
    # Planned for 8 March 12:00 UTC; the 10th is a pay day, at ten in Shanghai.
    assert step.at == datetime(2026, 3, 10, 2, tzinfo=UTC)
    far = DunningSchedule(pay_days=(28,))
    elsewhere = next_retry(found, far)
    assert elsewhere is not None
    assert elsewhere.at == DUE + timedelta(hours=124)


def test_a_backup_method_is_tried_once_where_the_first_does_not_pay() -> None:
    hard = debt(tried(0, HARD), backup_method_id="pm_b")
    assert next_retry(hard) == Step(kind=RETRY, at=DUE, method_id="pm_b")
    soft = debt(tried(0), tried(72), backup_method_id="pm_b")
    assert next_retry(soft) == Step(kind=RETRY, at=DUE + timedelta(hours=72), method_id="pm_b")
    first = next_retry(debt(tried(0), backup_method_id="pm_b"))
    assert first is not None
    assert first.method_id == "pm_1"
    after = debt(tried(0), tried(72), tried(72, HARD, method="pm_b"), backup_method_id="pm_b")
    again = next_retry(after)
    assert again is not None
    assert again.method_id == "pm_1"
    assert next_retry(debt(tried(0, HARD), tried(1, HARD, method="pm_b"))) is None


def test_networks_allow_so_many_tries_within_their_window() -> None:
    schedule = DunningSchedule(
        retry_after_hours=tuple(range(24, 2000, 24)), end_after_hours=2000, network_tries=5
    )
    tries = [tried(24 * day, code="processing_error") for day in range(5)]
    step = next_retry(debt(*tries, ends_at=DUE + timedelta(days=90)), schedule)
    assert step is not None
    assert step.at == DUE + timedelta(days=30)


def test_a_method_that_is_set_again_has_no_more_tries_than_networks_allow() -> None:
    """The networks know the card, and nothing of who has set it."""
    tries = [tried(hours, code="insufficient_funds") for hours in range(10)]
    again = debt(*tries, method_since=DUE + timedelta(hours=11), ends_at=DUE + timedelta(days=90))
    schedule = DunningSchedule(end_after_hours=2000)
    step = next_retry(again, schedule)
    assert step is not None
    assert step.at == DUE + timedelta(days=30)
    other = again.model_copy(update={"method_id": "pm_2"})
    step = next_retry(other, schedule)
    assert step is not None
    assert step.at == again.method_since


def test_access_goes_from_grace_to_restricted_to_its_end() -> None:
    found = debt(tried(0, HARD))
    granted = {
        hours: access_at(SCHEDULE, found, DUE + timedelta(hours=hours))
        for hours in (0, 1, 167, 168, 503, 504)
    }
    assert granted == {
        0: Access.ACTIVE,
        1: Access.GRACE,
        167: Access.GRACE,
        168: Access.RESTRICTED,
        503: Access.RESTRICTED,
        504: Access.ENDED,
    }
    changes = {step.at: step.access for step in all_steps(found) if step.access}
    assert changes == {
        DUE + timedelta(hours=1): Access.GRACE,
        DUE + timedelta(hours=168): Access.RESTRICTED,
        DUE + timedelta(hours=504): Access.ENDED,
    }


def test_dunning_ends_with_the_period_at_the_latest() -> None:
    ends_at = DUE + timedelta(hours=100)
    found = debt(tried(0), ends_at=ends_at)
    steps = timetable(SCHEDULE, found, "generic_decline")
    assert steps[-1] == Step(kind=DunningAction.END, at=ends_at, access=Access.ENDED)
    assert all(step.at < ends_at for step in steps[:-1])
    assert access_at(SCHEDULE, found, ends_at) is Access.ENDED


def test_one_reminder_stands_for_all_that_were_missed() -> None:
    found = debt(tried(0, HARD))
    reminder = Step(kind=DunningAction.REMIND, at=DUE)
    assert carried_out(SCHEDULE, found, reminder, DUE).reminded == 1
    assert carried_out(SCHEDULE, found, reminder, DUE + timedelta(hours=200)).reminded == 3


def test_a_timetable_shows_every_step_to_the_end() -> None:
    steps = timetable(SCHEDULE, debt(), "do_not_honor")
    retries = [(step.at - DUE) / timedelta(hours=1) for step in steps if step.kind is RETRY]
    assert retries == [0, 72, 144, 216]
    assert [step.kind for step in steps].count(DunningAction.REMIND) == 4
    assert [step.at for step in steps] == sorted(step.at for step in steps)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("insufficient_funds", SoftReason.FUNDS),
        ("BUYER_BALANCE_NOT_ENOUGH", SoftReason.FUNDS),
        ("issuer_not_available", SoftReason.TRANSIENT),
        ("outside_window", SoftReason.TRANSIENT),
        ("generic_decline", SoftReason.VAGUE),
        ("what_nobody_knows", SoftReason.VAGUE),
        (None, SoftReason.VAGUE),
    ],
)
def test_reasons_come_from_the_gateways_words(code: str | None, reason: SoftReason) -> None:
    assert soft_reason(SCHEDULE, code) is reason


@pytest.mark.parametrize(
    "setting",
    [
        {"retry_after_hours": (24, 24)},
        {"remind_after_hours": (72, 24)},
        {"grace_after_hours": 200},
        {"restricted_after_hours": 505},
        {"network_tries": 16},
        {"pay_days": (31,)},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DunningSchedule.model_validate(setting)


def check_rules(found: Debt, schedule: DunningSchedule) -> None:
    """What holds of all tries that were made, whatever was declined."""
    for method in {one.method_id for one in found.tries}:
        tries = [one for one in found.tries if one.method_id == method]
        for before, after in pairwise(tries):
            since = found.method_since if method == found.method_id else None
            renewed = since is not None and before.at < since <= after.at
            if not renewed:
                assert before.decline is SOFT
                assert after.at - before.at >= timedelta(hours=24)
        for one in tries:
            window = [other for other in tries if one.at - timedelta(days=30) < other.at <= one.at]
            assert len(window) <= schedule.network_tries
    assert all(DUE <= one.at < DUE + timedelta(hours=504) for one in found.tries)


def dun(rng: random.Random) -> Debt:
    """A debt until it is paid or given up: declines by chance, steps late, methods changed."""
    schedule = DunningSchedule(network_tries=rng.randrange(2, 11))
    found = debt(backup_method_id=rng.choice((None, "pm_b")))
    now = DUE
    for _ in range(200):
        step = next_step(schedule, found)
        assert step.kind is not DunningAction.SETTLE
        if step.kind is DunningAction.END:
            check_rules(found, schedule)
            return found
        now = max(now, step.at)
        found = carried_out(schedule, found, step, now)
        if step.kind is RETRY:
            assert next_step(schedule, found).kind is DunningAction.SETTLE
            code = rng.choice(("insufficient_funds", "processing_error", "generic_decline"))
            found = declined(found, rng.choice((SOFT, SOFT, SOFT, HARD, NEEDS)), code)
        if rng.random() < 0.05 and found.method_since is None:
            now += timedelta(hours=rng.randrange(1, 20))
            method = rng.choice(("pm_1", "pm_2"))
            found = found.model_copy(update={"method_id": method, "method_since": now})
    raise AssertionError("dunning goes on for ever")


def test_whatever_is_declined_the_rules_of_the_networks_hold() -> None:
    tries = 0
    for seed in range(1500):
        try:
            tries += len(dun(random.Random(seed)).tries)
        except AssertionError as problem:
            problem.add_note(f"seed {seed}")
            raise
    assert tries > 4000


def test_pay_hours_are_local() -> None:
    found = debt(
        tried(0, code="insufficient_funds"), zone="America/New_York", due_at=DUE, method_id="pm_1"
    )
    schedule = DunningSchedule(pay_days=(6,))
    step = next_retry(found, schedule)
    assert step is not None
    assert step.at.astimezone(ZoneInfo("America/New_York")).hour == 10
