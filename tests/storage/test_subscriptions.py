"""Subscriptions in the record: written by one writer, each write once."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from activities.subscription import SubscriptionActivities
from billing.charges import Move
from billing.errors import SubscriptionNotFound
from billing.identifiers import SUBSCRIPTION, charge_payment_id, make_id
from billing.identifiers import subscription_refund_id as refund_id_of
from billing.lifecycle import cancel, paid_up
from billing.moves import first, start_of
from billing.subscription import SubscriptionStatus
from billing.subscription_messages import (
    Charge,
    ChargeStatus,
    FindReturns,
    GivingBack,
    OpenSubscription,
    SubscriptionStanding,
    SubscriptionStart,
    WriteSubscription,
)
from storage.database import Database, UnitOfWork
from storage.subscriptions import WriterLost
from storage.tables import events
from tests.storage.method_samples import save
from tests.storage.samples import reserve, take
from tests.workflows.scripted_subscription import subscription_start

NOW = datetime(2026, 1, 31, 4, tzinfo=UTC)


def a_start(user_id: str, milliseconds: int = 1) -> SubscriptionStart:
    entropy = secrets.token_bytes(10)
    start = subscription_start(make_id(SUBSCRIPTION, milliseconds, entropy), NOW)
    order = start.order.model_copy(update={"user_id": user_id, "payment_method_id": user_id})
    return start.model_copy(update={"order": order})


@pytest.fixture
async def start(database: Database) -> SubscriptionStart:
    start = a_start(f"user_{secrets.token_hex(6)}")
    async with database.begin() as work:
        await work.subscriptions.insert(start, start_of(start))
    return start


async def standing_of(database: Database, start: SubscriptionStart) -> SubscriptionStanding:
    async with database.single() as work:
        record = await work.subscriptions.find(start.order.id, start.application)
    assert record is not None
    assert record.start == start
    return record.standing


async def write(database: Database, step: WriteSubscription) -> None:
    async with database.begin() as work:
        await work.subscriptions.write(step)


def charge_of(start: SubscriptionStart, move: Move, opened_at: datetime = NOW) -> Charge:
    assert move.charge is not None
    return Charge(
        number=1,
        payment_id=charge_payment_id(start.order.id, 1, 1),
        kind=move.charge.kind,
        way=move.charge.way,
        method_id=move.charge.method_id,
        decision=move.charge.decision,
        opened_at=opened_at,
        expires_at=opened_at + timedelta(hours=2),
    )


async def charged(database: Database, start: SubscriptionStart) -> Charge:
    standing = await standing_of(database, start)
    move = first(standing, start.terms, NOW)
    charge = charge_of(start, move)
    await write(
        database,
        WriteSubscription(
            version=1, subscription=move.subscription, event=move.event, opened=charge, now=NOW
        ),
    )
    return charge


async def activated(database: Database, start: SubscriptionStart) -> SubscriptionStanding:
    charge = await charged(database, start)
    step = WriteSubscription(
        version=2,
        subscription=charge.decision.after,
        event="subscription.activated",
        closed=ChargeStatus.PAID,
        now=NOW,
    )
    await write(database, step)
    return await standing_of(database, start)


async def test_it_is_found_as_it_was_written(database: Database, start: SubscriptionStart) -> None:
    charge = await charged(database, start)
    standing = await standing_of(database, start)
    assert (standing.version, standing.charges, standing.charge) == (2, 1, charge)
    assert standing.charge_end is None
    running = await activated_after(database, start, charge)
    assert (running.version, running.charge) == (3, None)
    assert running.subscription.status is SubscriptionStatus.ACTIVE


async def activated_after(
    database: Database, start: SubscriptionStart, charge: Charge
) -> SubscriptionStanding:
    step = WriteSubscription(
        version=2,
        subscription=charge.decision.after,
        event="subscription.activated",
        closed=ChargeStatus.PAID,
        now=NOW,
    )
    await write(database, step)
    await write(database, step)
    return await standing_of(database, start)


async def test_another_application_finds_nothing(
    database: Database, start: SubscriptionStart
) -> None:
    async with database.single() as work:
        assert await work.subscriptions.find(start.order.id, "another") is None


async def test_a_second_writer_is_refused(database: Database, start: SubscriptionStart) -> None:
    found = (await standing_of(database, start)).subscription
    step = WriteSubscription(version=1, subscription=found, event="subscription.told", now=NOW)
    await write(database, step)
    other = found.model_copy(update={"balance": 5})
    with pytest.raises(WriterLost):
        await write(database, step.model_copy(update={"subscription": other}))
    with pytest.raises(WriterLost):
        await write(database, step.model_copy(update={"version": 7}))
    assert (await standing_of(database, start)).version == 2


async def test_what_was_never_written_cannot_go_on(database: Database) -> None:
    start = a_start("nobody")
    step = WriteSubscription(
        version=1, subscription=start_of(start), event="subscription.told", now=NOW
    )
    with pytest.raises(SubscriptionNotFound):
        await write(database, step)


async def test_a_method_is_in_use_until_the_end(
    database: Database, start: SubscriptionStart
) -> None:
    standing = await activated(database, start)
    async with database.single() as work:
        assert await work.subscriptions.user_of(start.order.user_id) == start.order.id
        others = await work.subscriptions.user_of(start.order.user_id, but_for=start.order.id)
        assert others is None
        assert await work.subscriptions.paid(start.order.id) == [
            charge_payment_id(start.order.id, 1, 1)
        ]
    ended = cancel(standing.subscription, NOW, at_period_end=False).after
    await write(
        database,
        WriteSubscription(version=3, subscription=ended, event="subscription.canceled", now=NOW),
    )
    async with database.single() as work:
        assert await work.subscriptions.user_of(start.order.user_id) is None


async def test_a_backup_is_in_use_too(database: Database) -> None:
    user_id = f"user_{secrets.token_hex(6)}"
    backup = await save(database, user_id=user_id)
    start = a_start(user_id)
    order = start.order.model_copy(update={"backup_payment_method_id": backup.method_id})
    start = start.model_copy(update={"order": order})
    async with database.begin() as work:
        assert await work.subscriptions.user_of(backup.method_id) is None
        await work.subscriptions.insert(start, start_of(start))
        assert await work.subscriptions.user_of(backup.method_id) == start.order.id


async def test_it_is_unfinished_while_something_is_left_to_do(
    database: Database, start: SubscriptionStart
) -> None:
    standing = await activated(database, start)
    ended = cancel(standing.subscription, NOW, at_period_end=False).after
    back = GivingBack(amount=100, reason="canceled")
    step = WriteSubscription(
        version=3, subscription=ended, event="subscription.canceled", giving_back=back, now=NOW
    )
    await write(database, step)
    async with database.single() as work:
        assert start.order.id in await work.subscriptions.unfinished(None, 100)
    assert not (await standing_of(database, start)).is_over
    await write(database, step.model_copy(update={"version": 4, "giving_back": None}))
    async with database.single() as work:
        assert start.order.id not in await work.subscriptions.unfinished(None, 100)
    assert (await standing_of(database, start)).is_over


async def test_an_end_is_never_left(database: Database, start: SubscriptionStart) -> None:
    standing = await activated(database, start)
    ended = cancel(standing.subscription, NOW, at_period_end=False).after
    step = WriteSubscription(version=3, subscription=ended, event="subscription.canceled", now=NOW)
    await write(database, step)
    again = step.model_copy(update={"version": 4, "subscription": standing.subscription})
    with pytest.raises(WriterLost):
        await write(database, again)


async def test_a_users_own_newest_first(database: Database, start: SubscriptionStart) -> None:
    user_id = start.order.user_id
    later = a_start(user_id, 2)
    async with database.begin() as work:
        await work.subscriptions.insert(later, paid_up(start_of(later), NOW))
    async with database.single() as work:
        page = await work.subscriptions.page(
            application="shop", user_id=user_id, limit=1, cursor=None
        )
        assert ([one.start.order.id for one in page.data], page.has_more) == (
            [later.order.id],
            True,
        )
        rest = await work.subscriptions.page(
            application="shop", user_id=user_id, limit=5, cursor=page.next_cursor
        )
        assert [one.start.order.id for one in rest.data] == [start.order.id]
        alive = await work.subscriptions.alive_of("shop", user_id)
    assert {one.start.order.id for one in alive} == {start.order.id, later.order.id}


async def test_a_test_clock_is_told_by_how_far_a_charge_is_ahead(
    database: Database, start: SubscriptionStart
) -> None:
    ahead = datetime.now(UTC) + timedelta(days=40)
    standing = await standing_of(database, start)
    move = first(standing, start.terms, ahead)
    charge = charge_of(start, move, ahead)
    await write(
        database,
        WriteSubscription(
            version=1, subscription=move.subscription, event=move.event, opened=charge, now=ahead
        ),
    )
    found = (await standing_of(database, start)).charge
    assert found is not None
    assert timedelta(days=39) < timedelta(seconds=found.clock_ahead) <= timedelta(days=40)


async def ended_with(
    database: Database, user_id: str, balance: int, milliseconds: int
) -> WriteSubscription:
    """Its last step, as it was written."""
    start = a_start(user_id, milliseconds)
    async with database.begin() as work:
        await work.subscriptions.insert(start, start_of(start))
    standing = await activated(database, start)
    over = cancel(standing.subscription, NOW, at_period_end=False).after
    step = WriteSubscription(
        version=standing.version,
        subscription=over.model_copy(update={"balance": balance}),
        event="subscription.canceled",
        now=NOW,
    )
    await write(database, step)
    return step


async def test_what_ended_ones_have_left_goes_to_the_next(database: Database) -> None:
    user_id = f"user_{secrets.token_hex(6)}"
    steps = [await ended_with(database, user_id, left, at) for at, left in ((2, 700), (3, -10))]
    ended = [step.subscription.id for step in steps]
    activities, start = SubscriptionActivities(database), a_start(user_id, 4)
    request = OpenSubscription(start=start, subscription=start_of(start), now=NOW)
    for _ in range(2):
        opened = (await activities.open(request)).subscription
        assert opened.balance == 690
        assert opened.owed is not None
        assert opened.owed.total == opened.plan.amount - 690
    async with database.single() as work:
        for subscription_id in ended:
            found = await work.subscriptions.find(subscription_id)
            assert found is not None
            assert (found.standing.subscription.balance, found.standing.version) == (0, 5)
        events = await events_of(work, ended[0])
    assert events[-1] == ("subscription.balance_moved", 700, start.order.id)
    await write(database, steps[0])
    with pytest.raises(WriterLost):
        await write(database, steps[0].model_copy(update={"version": steps[0].version - 1}))
    other = a_start(user_id, 5)
    request = OpenSubscription(start=other, subscription=start_of(other), now=NOW)
    assert (await activities.open(request)).subscription.balance == 0


async def test_other_peoples_and_unfinished_balances_stay(database: Database) -> None:
    user_id = f"user_{secrets.token_hex(6)}"
    running = a_start(user_id, 2)
    async with database.begin() as work:
        await work.subscriptions.insert(running, start_of(running))
    await activated(database, running)
    await ended_with(database, f"{user_id}_else", 700, 3)
    start = a_start(user_id, 4)
    request = OpenSubscription(start=start, subscription=start_of(start), now=NOW)
    assert (await SubscriptionActivities(database).open(request)).subscription.balance == 0


async def test_what_went_back_is_not_credited_once_its_gateway_refunds_no_more(
    database: Database, start: SubscriptionStart
) -> None:
    order = await take(database, application=start.application)
    move = first(await standing_of(database, start), start.terms, NOW)
    charge = charge_of(start, move).model_copy(update={"payment_id": order.payment_id})
    step = WriteSubscription(
        version=1, subscription=move.subscription, event=move.event, opened=charge, now=NOW
    )
    await write(database, step)
    closed = {"version": 2, "opened": None, "closed": ChargeStatus.PAID}
    await write(database, step.model_copy(update=closed))
    await reserve(database, order, amount_minor=900)
    wanted = FindReturns(
        subscription_id=start.order.id,
        giving_back=GivingBack(amount=1000, reason="canceled"),
        now=NOW + timedelta(days=400),
    )
    found = await SubscriptionActivities(database).give_back(wanted)
    assert (found.covered, found.gone) == (0, 900)


async def test_what_still_stands_is_given_back_once(
    database: Database, start: SubscriptionStart
) -> None:
    move = first(await standing_of(database, start), start.terms, NOW)
    assert move.charge is not None
    running, price = move.charge.decision.after, move.charge.decision.preview.total
    order = await take(database, application=start.application, amount_minor=price)
    charge = charge_of(start, move).model_copy(update={"payment_id": order.payment_id})
    step = WriteSubscription(
        version=1, subscription=move.subscription, event=move.event, opened=charge, now=NOW
    )
    await write(database, step)
    closed = {"version": 2, "subscription": running, "opened": None, "closed": ChargeStatus.PAID}
    await write(database, step.model_copy(update=closed))
    await reserve(database, order, amount_minor=900)
    period = running.period
    half = period.start + (period.end - period.start) / 2
    assert running.paid is not None
    wanted = FindReturns(
        subscription_id=start.order.id,
        giving_back=GivingBack(
            amount=running.paid.unused(half), used_until=half, reason="canceled"
        ),
        now=NOW,
    )
    activities = SubscriptionActivities(database)
    found = [await activities.give_back(wanted) for _ in range(2)]
    stands = cancel(running, half, at_period_end=False, refund=True, refunded=900).refund
    assert [one.covered for one in found] == [stands, stands]
    assert 0 < stands == running.paid.unused(half) - found[0].gone
    assert found[0] == found[1]


async def test_what_went_back_before_a_restore_does_not_go_again(
    database: Database, start: SubscriptionStart
) -> None:
    """Found on its way at the gateway, under the number that its return would have."""
    await standing_of(database, start)
    order = await take(database, application=start.application)
    async with database.begin() as work:
        await work.refunds.note_elsewhere(
            refund_id=refund_id_of(start.order.id, order.payment_id),
            payment_id=order.payment_id,
            attempt=1,
            amount_minor=900,
            number="re_1",
            now=NOW,
        )
    back = GivingBack(payment_id=order.payment_id, amount=1000, reason="canceled")
    wanted = FindReturns(subscription_id=start.order.id, giving_back=back, now=NOW)
    found = await SubscriptionActivities(database).give_back(wanted)
    assert (found.covered, found.refunds) == (900, ())


async def events_of(work: UnitOfWork, subscription_id: str) -> list[tuple[str, int, str]]:
    rows = await work.connection.execute(
        select(events.c.type, events.c.data)
        .where(events.c.object_id == subscription_id)
        .order_by(events.c.sequence)
    )
    return [(row.type, row.data.get("amount"), row.data.get("subscription_id")) for row in rows]
