"""The inbox: every event once, taken by one loop at a time, kept until it is delivered."""

import asyncio
from datetime import datetime, timedelta

import psycopg
import pytest
from sqlalchemy import select

from billing.payment import GatewayName
from storage.database import Database
from storage.inbox import FIRST_TRY_BY_LOOP, InboxEntry, InboxOutcome
from storage.tables import webhook_inbox
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW

PAYMENT = "pay_01h455vb4pex5vsknk084sn02q"
REFUND = "ref_01h455vb4pex5vsknk084sn02q"
METHOD = "pm_01h455vb4pex5vsknk084sn02q"
OTHER_METHOD = "pm_01h455vb4pex5vsknk084sn02r"
YEAR = timedelta(days=365)


async def store(
    database: Database,
    event_id: str,
    *,
    gateway: GatewayName = GatewayName.STRIPE,
    number: str | None = PAYMENT,
    now: datetime = NOW,
) -> InboxEntry | None:
    async with database.begin() as work:
        return await work.inbox.store(gateway, event_id, "paid", number, b'{"raw": 1}', now)


async def due(database: Database, now: datetime, limit: int = 100) -> list[InboxEntry]:
    async with database.begin() as work:
        return await work.inbox.claim_due(now, limit)


async def mark(database: Database, entry: InboxEntry, outcome: InboxOutcome) -> None:
    async with database.begin() as work:
        await work.inbox.mark(entry.id, outcome, NOW)


async def settle_all(database: Database) -> None:
    """Nothing of an earlier test is due."""
    async with database.begin() as work:
        for entry in await work.inbox.claim_due(NOW + 100 * YEAR, 10_000):
            await work.inbox.mark(entry.id, InboxOutcome.IGNORED, NOW)


async def test_an_event_is_stored_once_per_gateway(database: Database) -> None:
    stored = await asyncio.gather(*(store(database, "evt_1") for _ in range(20)))
    (entry,) = [one for one in stored if one is not None]
    assert (entry.event_id, entry.event_type, entry.tries) == ("evt_1", "paid", 0)
    assert await store(database, "evt_1", gateway=GatewayName.ALIPAY) is not None


@pytest.mark.parametrize(
    ("number", "payment_id"),
    [
        (PAYMENT, PAYMENT),
        (f"{PAYMENT}02", PAYMENT),
        (f"{PAYMENT}01", None),
        ("order-of-another-system", None),
        (None, None),
    ],
)
async def test_the_payment_is_read_from_our_number(
    database: Database, number: str | None, payment_id: str | None
) -> None:
    entry = await store(database, f"number {number}", number=number)
    assert entry is not None
    assert (entry.number, entry.payment_id) == (number, payment_id)


async def test_the_loop_leaves_a_new_event_to_whoever_stored_it(database: Database) -> None:
    await settle_all(database)
    entry = await store(database, "fresh")
    assert entry is not None
    assert await due(database, NOW + FIRST_TRY_BY_LOOP - timedelta(milliseconds=1)) == []
    (taken,) = await due(database, NOW + FIRST_TRY_BY_LOOP)
    assert (taken.id, taken.tries) == (entry.id, 1)


async def test_what_fails_comes_again_ever_more_rarely(database: Database) -> None:
    await settle_all(database)
    await store(database, "failing")
    now = NOW + FIRST_TRY_BY_LOOP
    for seconds in (0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600):
        assert await due(database, now + timedelta(seconds=seconds, milliseconds=-1)) == []
        now += timedelta(seconds=seconds)
        (entry,) = await due(database, now)
        assert entry.event_id == "failing"


async def due_at(database: Database, now: datetime, entry: InboxEntry) -> bool:
    """Whether it would be taken then, taking nothing."""
    try:
        async with database.begin() as work:
            taken = await work.inbox.claim_due(now, 10)
            raise _NotReally([one.id for one in taken])
    except _NotReally as found:
        return entry.id in found.args[0]


class _NotReally(Exception):
    pass


@pytest.mark.parametrize("outcome", InboxOutcome)
async def test_a_settled_event_is_not_due_any_more(
    database: Database, outcome: InboxOutcome
) -> None:
    await settle_all(database)
    entry = await store(database, f"settled {outcome}")
    assert entry is not None
    await mark(database, entry, outcome)
    assert await due(database, NOW + YEAR) == []
    assert await store(database, f"settled {outcome}") is None


async def test_the_first_outcome_stands(database: Database) -> None:
    await settle_all(database)
    before = await counts(database)
    entry = await store(database, "twice marked")
    assert entry is not None
    await mark(database, entry, InboxOutcome.DELIVERED)
    await mark(database, entry, InboxOutcome.UNMATCHED)
    after = await counts(database)
    assert after["delivered"] == before.get("delivered", 0) + 1
    assert after.get("unmatched", 0) == before.get("unmatched", 0)


async def counts(database: Database) -> dict[str, int]:
    async with database.begin() as work:
        return await work.inbox.counts()


async def test_events_are_counted_by_what_became_of_them(database: Database) -> None:
    await settle_all(database)
    assert (await counts(database)).get("waiting", 0) == 0
    await store(database, "counted")
    assert (await counts(database))["waiting"] == 1


async def test_loops_side_by_side_take_different_events(database: Database) -> None:
    await settle_all(database)
    for number in range(30):
        await store(database, f"shared {number}")
    taken = await asyncio.gather(*(due(database, NOW + YEAR, limit=4) for _ in range(10)))
    ids = [entry.id for batch in taken for entry in batch]
    assert len(ids) == len(set(ids))
    ids += [entry.id for entry in await due(database, NOW + YEAR)]
    assert len(set(ids)) == 30
    assert all(len(batch) <= 4 for batch in taken)


async def test_what_one_loop_holds_another_skips(database: Database) -> None:
    """Without waiting: a loop that hangs must not hold up the rest."""
    await settle_all(database)
    await store(database, "held")
    await store(database, "free", now=NOW + timedelta(seconds=1))
    async with database.begin() as work:
        (held,) = await work.inbox.claim_due(NOW + YEAR, 1)
        (free,) = await due(database, NOW + YEAR)
        assert (held.event_id, free.event_id) == ("held", "free")


async def test_a_loop_that_dies_gives_its_events_back(database: Database) -> None:
    await settle_all(database)
    entry = await store(database, "given back")
    assert entry is not None
    assert await due_at(database, NOW + YEAR, entry)
    (again,) = await due(database, NOW + YEAR)
    assert (again.id, again.tries) == (entry.id, 1)


async def test_bodies_are_unreadable_at_rest(
    database: Database, database_urls: DatabaseUrls
) -> None:
    entry = await store(database, "sealed")
    assert entry is not None
    async with database.begin() as work:
        assert await work.inbox.body(entry.id) == b'{"raw": 1}'
        assert await work.inbox.body(-1) is None
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        rows = await superuser.execute("SELECT encode(body, 'escape') FROM webhook_inbox")
        assert "raw" not in str(await rows.fetchall())


@pytest.mark.parametrize(
    ("refund_number", "refund_id"),
    [(REFUND, REFUND), (PAYMENT, None), ("re_3Qx", None), (f"{REFUND}0", None), (None, None)],
)
async def test_a_refund_of_ours_is_named(
    database: Database, refund_number: str | None, refund_id: str | None
) -> None:
    async with database.begin() as work:
        stored = await work.inbox.store(
            GatewayName.WECHATPAY,
            f"refund-{refund_number}",
            "REFUND.SUCCESS",
            PAYMENT,
            b"{}",
            NOW,
            refund_number=refund_number,
        )
    assert stored is not None
    assert (stored.payment_id, stored.refund_id) == (PAYMENT, refund_id)
    (taken,) = [one for one in await due(database, NOW + YEAR) if one.id == stored.id]
    assert taken.refund_id == refund_id


async def test_an_event_of_a_dispute_gets_its_payment_when_it_is_settled(
    database: Database,
) -> None:
    async with database.begin() as work:
        entry = await work.inbox.store(
            GatewayName.STRIPE,
            "evt_dispute",
            "charge.dispute.created",
            None,
            b"{}",
            NOW,
            disputed_reference="pi_1",
        )
    assert entry is not None
    assert (entry.payment_id, entry.disputed_reference) == (None, "pi_1")
    (again,) = [one for one in await due(database, NOW + YEAR) if one.id == entry.id]
    assert again.disputed_reference == "pi_1"
    async with database.begin() as work:
        await work.inbox.mark(entry.id, InboxOutcome.DELIVERED, NOW, payment_id=PAYMENT)
        known = await work.connection.scalar(
            select(webhook_inbox.c.payment_id).where(webhook_inbox.c.id == entry.id)
        )
    assert known == PAYMENT


@pytest.mark.parametrize(
    ("number", "method_id"),
    [
        (METHOD.replace("_", ""), METHOD),
        (METHOD, None),
        ("of-another-system", None),
        (None, None),
    ],
)
async def test_an_event_of_a_mandate_names_its_method(
    database: Database, number: str | None, method_id: str | None
) -> None:
    async with database.begin() as work:
        entry = await work.inbox.store(
            GatewayName.ALIPAY,
            f"mandate {number}",
            "unsign",
            None,
            b"{}",
            NOW,
            mandate_number=number,
            mandate_reference="agr_1",
        )
        assert entry is not None
        assert (entry.method_id, entry.mandate_reference) == (method_id, "agr_1")
        await work.inbox.mark(entry.id, InboxOutcome.DELIVERED, NOW, method_id=OTHER_METHOD)
        kept = await work.connection.scalar(
            select(webhook_inbox.c.method_id).where(webhook_inbox.c.id == entry.id)
        )
    assert kept == (method_id or OTHER_METHOD)
