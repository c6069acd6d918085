"""What is read of points is read by index, however many lots and clawbacks others have."""

import psycopg

from billing.dispute import DisputeStatus
from billing.points import ClawbackPolicy
from storage.database import Database
from tests.fixtures.database import DatabaseUrls
from tests.storage.plans import plan_of, statements
from tests.storage.points_samples import buy, fail_refund, make_user, spend
from tests.storage.samples import NOW, make_dispute, reserve

TABLES = ("points_lots", "points_clawbacks", "points_takings", "points_transactions")


async def test_points_are_read_by_index(database_urls: DatabaseUrls, database: Database) -> None:
    """Whether the plan is made for the values or, as after some repeats, for any."""
    user = make_user()
    order = await buy(database, user, 100, 20)
    with statements() as sent:
        await spend(database, user, 90)
        refund = await reserve(database, order, amount_minor=300, clawback=ClawbackPolicy.DEBT)
        await fail_refund(database, refund.refund.id)
        async with database.begin() as work:
            change = await work.disputes.record(make_dispute(order, DisputeStatus.OPEN), NOW)
            assert change is not None
            await work.clawbacks.follow(change, NOW)
            await work.points.holdings(user, NOW)
            await work.points.page(user, limit=20)
    reads = [one for one in sent if one[0].lstrip().startswith("SELECT")]
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as connection:
        # Tables as small as these are read whole where that may be.
        await connection.execute("SET enable_seqscan = off")
        for statement, values in reads:
            for mode in ("force_custom_plan", "force_generic_plan"):
                plan = await plan_of(connection, statement, values, mode)
                for table in TABLES:
                    for node in plan.scans(table):
                        assert "Index Cond" in node or "Recheck Cond" in node, plan
