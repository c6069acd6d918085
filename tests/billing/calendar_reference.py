"""The billing calendar once more, by another way: days are walked one by one and local times are
looked for among instants, where `billing.calendar` counts months and asks for the offset."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

ONE_DAY = timedelta(days=1)


def walk_months(first: date, months: int) -> date:
    """The day `months` after `first`, found by walking there."""
    day, left = first, months
    while left > 0:
        day += ONE_DAY
        if day.day == 1:
            left -= 1
    if months == 0:
        return first
    while day.day < first.day and (day + ONE_DAY).day != 1:
        day += ONE_DAY
    return day


def offset_at(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def find_instant(local: datetime, zone_name: str) -> datetime:
    """The first instant at which clocks in the zone show `local`; where they never do, the one
    that the offset before the gap makes of it."""
    zone = ZoneInfo(zone_name)
    near = local.replace(tzinfo=UTC)
    offsets = {offset_at(near + timedelta(hours=hour), zone) for hour in range(-30, 31)}
    shown = [
        instant
        for instant in (
            local.replace(tzinfo=timezone(offset)).astimezone(UTC) for offset in offsets
        )
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == local
    ]
    if shown:
        return min(shown)
    instant = near - timedelta(hours=30)
    while instant.astimezone(zone).replace(tzinfo=None) < local:
        before = offset_at(instant, zone)
        instant += timedelta(minutes=5)
    return local.replace(tzinfo=timezone(before)).astimezone(UTC)


def boundary(local: datetime, zone_name: str, months: int) -> datetime:
    day = walk_months(local.date(), months)
    return find_instant(datetime.combine(day, local.time()), zone_name)
