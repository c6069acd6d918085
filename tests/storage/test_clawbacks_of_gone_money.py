"""Points follow money that is gone whatever we say: refunded elsewhere, or taken by a dispute."""

from datetime import datetime, timedelta

import pytest

from billing.dispute import DisputeStatus
from billing.identifiers import foreign_refund_id
from billing.messages import PaymentOrder
from billing.points import PointsMovement
from storage.database import Database
from tests.storage.points_samples import buy, fail_refund, make_user, spend
from tests.storage.samples import NOW, make_dispute, reserve, take_twice
from tests.storage.test_clawbacks import account_of, remaining

M = PointsMovement
S = DisputeStatus


async def refund_elsewhere(
    database: Database, order: PaymentOrder, amount: int, *, now: datetime = NOW
) -> str:
    refund_id = foreign_refund_id(order.payment_id, order.gateway, order.payment_id, "re_1")
    async with database.begin() as work:
        await work.refunds.note_elsewhere(
            refund_id=refund_id,
            payment_id=order.payment_id,
            attempt=1,
            amount_minor=amount,
            number="re_1",
            now=now,
        )
    return refund_id


async def dispute(
    database: Database, order: PaymentOrder, status: S, withdrawn: int, reinstated: int = 0
) -> None:
    async with database.begin() as work:
        told = make_dispute(order, status, withdrawn=withdrawn, reinstated=reinstated)
        change = await work.disputes.record(told, NOW)
        if change is not None:
            await work.clawbacks.follow(change, NOW)


class TestRefundedElsewhere:
    async def test_takes_its_part_once(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100, 20)
        for _ in range(2):
            refund_id = await refund_elsewhere(database, order, 250)
            assert await remaining(database, user) == [90, 0]
        last = (await account_of(database, user)).history[-1]
        assert (last.kind, last.amount, last.refund_id) == (M.CLAWBACK, -30, refund_id)

    async def test_spent_points_are_owed_and_nothing_is_refused(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await spend(database, user, 100)
        refund_id = await refund_elsewhere(database, order, 1000)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (-100, 100)
        await fail_refund(database, refund_id)
        assert (await account_of(database, user)).debt == 0

    async def test_points_that_ours_had_taken_stay_taken_when_ours_fails(
        self, database: Database
    ) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        ours = await reserve(database, order, amount_minor=1000)
        await refund_elsewhere(database, order, 600)
        assert await remaining(database, user) == [0]
        await fail_refund(database, ours.refund.id)
        assert await remaining(database, user) == [40]
        assert [one.kind for one in (await account_of(database, user)).history] == [
            M.PURCHASE, M.CLAWBACK, M.RESTORE, M.CLAWBACK,
        ]  # fmt: skip

    async def test_of_money_that_paid_for_nothing(self, database: Database) -> None:
        order = await take_twice(database, application="shop")
        refund_id = foreign_refund_id(order.payment_id, order.gateway, order.payment_id, "re_2")
        async with database.begin() as work:
            record = await work.refunds.note_elsewhere(
                refund_id=refund_id,
                payment_id=order.payment_id,
                attempt=2,
                amount_minor=100,
                number="re_2",
                now=NOW,
            )
        assert not record.kept


class TestDisputed:
    @pytest.mark.parametrize("end", [S.WON, S.LOST])
    async def test_withdrawn_money_takes_points_and_winning_restores_them(
        self, database: Database, end: S
    ) -> None:
        user = make_user()
        order = await buy(database, user, 100, 20)
        await dispute(database, order, S.WARNING, 0)
        assert await remaining(database, user) == [100, 20]
        for _ in range(2):
            await dispute(database, order, S.OPEN, 1000)
            assert await remaining(database, user) == [0, 0]
        await dispute(database, order, end, 1000, 1000 if end is S.WON else 0)
        assert await remaining(database, user) == ([100, 20] if end is S.WON else [0, 0])
        last = (await account_of(database, user)).history[-1]
        assert (last.payment_id, last.refund_id) == (order.payment_id, None)

    async def test_in_proportion_to_what_it_has(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await dispute(database, order, S.OPEN, 300)
        assert await remaining(database, user) == [70]
        await dispute(database, order, S.OPEN, 1000)
        assert await remaining(database, user) == [0]
        await dispute(database, order, S.WON, 1000, 400)
        assert await remaining(database, user) == [40]
        await dispute(database, order, S.WON, 1000, 1000)
        assert await remaining(database, user) == [100]

    async def test_spent_points_are_owed(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await spend(database, user, 70)
        await dispute(database, order, S.OPEN, 1000)
        assert (await account_of(database, user)).debt == 70
        await dispute(database, order, S.WON, 1000, 1000)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (30, 0)

    async def test_what_was_refunded_is_not_taken_twice(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        ours = await reserve(database, order, amount_minor=400)
        await dispute(database, order, S.OPEN, 1000)
        assert await remaining(database, user) == [0]
        await fail_refund(database, ours.refund.id)
        assert await remaining(database, user) == [0]
        await dispute(database, order, S.WON, 1000, 1000)
        assert await remaining(database, user) == [100]

    async def test_won_and_then_lost_after_all(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await dispute(database, order, S.OPEN, 1000)
        await dispute(database, order, S.WON, 1000, 1000)
        await dispute(database, order, S.LOST, 2000, 1000)
        assert await remaining(database, user) == [0]

    async def test_what_it_gives_back_is_not_kept_by_a_smaller_refund(
        self, database: Database
    ) -> None:
        """What a failed refund of ours had taken is taken anew by what stands, and by each no more
        than goes with its own money."""
        user = make_user()
        order = await buy(database, user, 100)
        ours = await reserve(database, order, amount_minor=900)
        await dispute(database, order, S.OPEN, 1000)
        await refund_elsewhere(database, order, 100, now=NOW + timedelta(seconds=1))
        await fail_refund(database, ours.refund.id)
        assert await remaining(database, user) == [0]
        await dispute(database, order, S.WON, 1000, 1000)
        assert await remaining(database, user) == [90]
