"""Refunds take the points of their payment back, and one that fails restores exactly those."""

from datetime import timedelta

import pytest

from billing.errors import InsufficientPoints, PointsAlreadySpent, RefundExceedsPayment
from billing.points import ClawbackPolicy, ClawbackPreview, PointsMovement
from billing.refund import RefundCause, RefundStatus
from storage.database import Database
from storage.points import User
from tests.storage.points_samples import Account, buy, fail_refund, look, make_user, spend
from tests.storage.samples import NOW, make_refund_id, receive_again, reserve, take

M = PointsMovement
P = ClawbackPolicy
LATER = NOW + timedelta(days=1)


async def account_of(database: Database, user: User) -> Account:
    account = await look(database, user)
    account.require_agreement()
    return account


async def remaining(database: Database, user: User) -> list[int]:
    return [lot.remaining for lot in (await account_of(database, user)).lots]


async def test_a_refund_takes_its_part_of_the_points_bonus_first(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100, 20)
    record = await reserve(database, order, amount_minor=250)
    account = await account_of(database, user)
    assert [lot.remaining for lot in account.lots] == [90, 0]
    last = account.history[-1]
    assert (last.kind, last.amount, last.balance_after) == (M.CLAWBACK, -30, 90)
    assert (last.payment_id, last.refund_id) == (order.payment_id, record.refund.id)


@pytest.mark.parametrize("amounts", [[1] * 7, [3, 4], [6, 1], [7]])
async def test_whatever_the_parts_a_full_refund_takes_all(
    database: Database, amounts: list[int]
) -> None:
    user = make_user()
    order = await buy(database, user, 10, 3, amount_minor=7)
    other = await buy(database, user, 50)
    for amount in amounts:
        await reserve(database, order, amount_minor=amount)
    assert await remaining(database, user) == [0, 0, 50]
    assert other.payment_id != order.payment_id


async def test_a_repeated_refund_takes_once(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100)
    refund_id = make_refund_id()
    for _ in range(2):
        await reserve(database, order, refund_id=refund_id, amount_minor=100)
    assert await remaining(database, user) == [90]
    async with database.begin() as work:
        assert await work.clawbacks.take(refund_id, order.payment_id, 100, P.REFUSE, NOW) == 100
    assert await remaining(database, user) == [90]


@pytest.mark.parametrize("succeeds_first", [False, True])
async def test_a_refund_that_fails_restores_the_same_lots(
    database: Database, succeeds_first: bool
) -> None:
    user = make_user()
    order = await buy(database, user, 100, 20)
    await spend(database, user, 10)
    record = await reserve(database, order, amount_minor=500)
    assert await remaining(database, user) == [50, 0]
    if succeeds_first:
        async with database.begin() as work:
            await work.refunds.move(
                record.refund.id, RefundStatus.SUCCEEDED, now=NOW, refunded_at=NOW
            )
        assert await remaining(database, user) == [50, 0]
    for _ in range(2):
        await fail_refund(database, record.refund.id)
    account = await account_of(database, user)
    assert [lot.remaining for lot in account.lots] == [90, 20]
    assert [(one.kind, one.amount) for one in account.history[-2:]] == [
        (M.CLAWBACK, -60),
        (M.RESTORE, 60),
    ]
    assert account.history[-1].refund_id == record.refund.id


async def test_what_failed_can_be_refunded_again(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100)
    await fail_refund(database, (await reserve(database, order)).refund.id)
    assert (await reserve(database, order)).refund.amount == 1000
    assert await remaining(database, user) == [0]


async def test_what_a_failed_refund_had_rounded_up_is_taken_by_those_that_stand(
    database: Database,
) -> None:
    """The part of a point that the second refund stood for had gone with the first one."""
    user = make_user()
    order = await buy(database, user, 10, amount_minor=100)
    first = await reserve(database, order, amount_minor=1)
    second = await reserve(database, order, amount_minor=9)
    assert await remaining(database, user) == [9]
    await fail_refund(database, first.refund.id)
    account = await account_of(database, user)
    assert [lot.remaining for lot in account.lots] == [9]
    assert [(one.kind, one.amount, one.refund_id) for one in account.history[-2:]] == [
        (M.RESTORE, 1, first.refund.id),
        (M.CLAWBACK, -1, second.refund.id),
    ]
    await fail_refund(database, second.refund.id)
    assert await remaining(database, user) == [10]


async def test_what_refunds_had_rounded_up_beside_one_that_failed_goes_back(
    database: Database,
) -> None:
    """Of 8 points for 37: 19 takes 5, 13 takes 2, 4 takes 1; without the 13, 5 go with the 23."""
    user = make_user()
    order = await buy(database, user, 8, amount_minor=37)
    first = await reserve(database, order, amount_minor=19)
    second = await reserve(database, order, amount_minor=13)
    third = await reserve(database, order, amount_minor=4, now=LATER)
    assert await remaining(database, user) == [0]
    for _ in range(2):
        await fail_refund(database, second.refund.id, now=LATER)
    account = await account_of(database, user)
    assert [lot.remaining for lot in account.lots] == [3]
    assert [(one.kind, one.amount, one.refund_id) for one in account.history[-2:]] == [
        (M.RESTORE, 2, second.refund.id),
        (M.RESTORE, 1, third.refund.id),
    ]
    await fail_refund(database, third.refund.id, now=LATER)
    assert await remaining(database, user) == [3]
    await fail_refund(database, first.refund.id, now=LATER)
    assert await remaining(database, user) == [8]


async def test_a_payment_without_points_takes_none(database: Database) -> None:
    order = await take(database)
    await reserve(database, order)
    async with database.begin() as work:
        assert await work.clawbacks.preview(order.payment_id, None, P.REFUSE, NOW) is None
        assert await work.clawbacks.restore(make_refund_id(), NOW) is None


async def test_money_returned_takes_no_points(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100)
    await receive_again(database, order)
    returned = await reserve(database, order, attempt=2, cause=RefundCause.RETURNED)
    assert await remaining(database, user) == [100]
    await fail_refund(database, returned.refund.id)
    assert await remaining(database, user) == [100]


class TestSpentAlready:
    async def test_refuse(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await buy(database, user, 100)
        await spend(database, user, 60)
        before = await account_of(database, user)
        with pytest.raises(PointsAlreadySpent, match="41 points would be taken back, and 40"):
            await reserve(database, order, amount_minor=401, clawback=P.REFUSE)
        async with database.begin() as work:
            assert await work.refunds.of_payment(order.payment_id) == []
        assert await account_of(database, user) == before
        await reserve(database, order, amount_minor=400, clawback=P.REFUSE)

    async def test_reduce(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await spend(database, user, 60)
        record = await reserve(database, order, clawback=P.REDUCE)
        assert record.refund.amount == 400
        assert await remaining(database, user) == [0]
        with pytest.raises(PointsAlreadySpent):
            await reserve(database, order, clawback=P.REDUCE)

    async def test_debt(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await spend(database, user, 60)
        record = await reserve(database, order, clawback=P.DEBT)
        account = await account_of(database, user)
        assert record.refund.amount == 1000
        assert (account.balance, account.debt) == (-60, 60)
        async with database.begin() as work:
            shown = await work.points.balance(user, NOW)
        assert (shown.balance, shown.spendable, shown.owed) == (-60, 0, 60)

    async def test_a_debtor_pays_with_the_next_purchase(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await spend(database, user, 60)
        await reserve(database, order, clawback=P.DEBT)
        with pytest.raises(InsufficientPoints, match="60 points are owed"):
            await spend(database, user, 1)
        await buy(database, user, 50)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (-10, 10)
        await buy(database, user, 30)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (20, 0)
        assert [lot.taken for lot in account.lots] == [40, 50, 10]
        assert (await spend(database, user, 20)).balance_after == 0

    async def test_a_debt_is_paid_from_what_the_user_has_otherwise(
        self, database: Database
    ) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await buy(database, user, 50)
        await spend(database, user, 70)
        await reserve(database, order, clawback=P.DEBT)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (-20, 20)
        assert [lot.taken for lot in account.lots] == [30, 50]

    async def test_a_failed_refund_gives_back_what_paid_its_debt(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100)
        await spend(database, user, 60)
        record = await reserve(database, order, clawback=P.DEBT)
        await buy(database, user, 45)
        await fail_refund(database, record.refund.id)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (85, 0)
        assert [lot.remaining for lot in account.lots] == [40, 45]
        assert (account.history[-1].kind, account.history[-1].amount) == (M.RESTORE, 100)

    async def test_what_is_restored_pays_what_else_is_owed(self, database: Database) -> None:
        user = make_user()
        first, second = await buy(database, user, 100), await buy(database, user, 100)
        await spend(database, user, 130)
        restored = await reserve(database, second, amount_minor=700, clawback=P.DEBT)
        await reserve(database, first, amount_minor=500, clawback=P.DEBT)
        assert (await account_of(database, user)).debt == 50
        await fail_refund(database, restored.refund.id)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (20, 0)
        assert [lot.remaining for lot in account.lots] == [0, 20]

    async def test_what_goes_back_is_owed_no_longer(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 8, amount_minor=37)
        await spend(database, user, 8)
        await reserve(database, order, amount_minor=19, clawback=P.DEBT)
        failing = await reserve(database, order, amount_minor=13, clawback=P.DEBT)
        await reserve(database, order, amount_minor=4, clawback=P.DEBT, now=LATER)
        await fail_refund(database, failing.refund.id, now=LATER)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (-5, 5)

    async def test_what_goes_back_pays_what_else_is_owed(self, database: Database) -> None:
        user = make_user()
        other = await buy(database, user, 10)
        order = await buy(database, user, 8, amount_minor=37)
        await spend(database, user, 10)
        await reserve(database, order, amount_minor=19)
        failing = await reserve(database, order, amount_minor=13)
        await reserve(database, order, amount_minor=4, now=LATER)
        await reserve(database, other, clawback=P.DEBT, now=LATER)
        await fail_refund(database, failing.refund.id, now=LATER)
        account = await account_of(database, user)
        assert (account.balance, account.debt) == (-7, 7)
        assert [(lot.remaining, lot.taken) for lot in account.lots] == [(0, 0), (0, 8)]


class TestExpired:
    async def test_points_that_lapsed_go_back_as_such(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 8, amount_minor=37, days=1)
        async with database.begin() as work:
            await work.points.expire(user, LATER)
        await reserve(database, order, amount_minor=19, now=LATER)
        failing = await reserve(database, order, amount_minor=13, now=LATER)
        await reserve(database, order, amount_minor=4, now=LATER + timedelta(days=1))
        await fail_refund(database, failing.refund.id, now=LATER + timedelta(days=1))
        account = await account_of(database, user)
        assert [(lot.taken, lot.expired) for lot in account.lots] == [(5, 3)]
        assert [one.kind for one in account.history] == [M.PURCHASE, M.EXPIRY]

    @pytest.mark.parametrize("policy", P)
    async def test_points_that_lapsed_unused_cover_their_refund(
        self, database: Database, policy: ClawbackPolicy
    ) -> None:
        user = make_user()
        order = await buy(database, user, 100, days=1)
        async with database.begin() as work:
            await work.points.expire(user, LATER)
        record = await reserve(database, order, amount_minor=300, clawback=policy, now=LATER)
        account = await account_of(database, user)
        assert (record.refund.amount, account.balance, account.debt) == (300, 0, 0)
        assert [one.kind for one in account.history] == [M.PURCHASE, M.EXPIRY]
        assert [(lot.taken, lot.expired) for lot in account.lots] == [(30, 70)]
        await fail_refund(database, record.refund.id, now=LATER)
        account = await account_of(database, user)
        assert [(lot.taken, lot.expired) for lot in account.lots] == [(0, 100)]

    async def test_what_is_restored_to_a_lapsed_lot_lapses(self, database: Database) -> None:
        user = make_user()
        order = await buy(database, user, 100, days=1)
        record = await reserve(database, order)
        await fail_refund(database, record.refund.id, now=LATER)
        assert await remaining(database, user) == [100]
        async with database.begin() as work:
            assert await work.points.due(LATER, 1000) != []
            await work.points.expire(user, LATER)
        assert (await account_of(database, user)).balance == 0


class TestPreview:
    async def test_it_says_what_the_refund_would_do_and_does_nothing(
        self, database: Database
    ) -> None:
        user = make_user()
        order = await buy(database, user, 100, 20)
        await spend(database, user, 90)
        before = await account_of(database, user)

        async def preview(policy: ClawbackPolicy, amount: int | None) -> ClawbackPreview | None:
            async with database.begin() as work:
                return await work.clawbacks.preview(order.payment_id, amount, policy, NOW)

        assert await preview(P.REFUSE, 250) == ClawbackPreview(
            amount=250, points=30, bonus=20, paid=10, owed=0, balance_after=0
        )
        assert await preview(P.REDUCE, None) == ClawbackPreview(
            amount=250, points=30, bonus=20, paid=10, owed=0, balance_after=0
        )
        assert await preview(P.DEBT, None) == ClawbackPreview(
            amount=1000, points=120, bonus=20, paid=10, owed=90, balance_after=-90
        )
        with pytest.raises(PointsAlreadySpent):
            await preview(P.REFUSE, None)
        with pytest.raises(RefundExceedsPayment, match="1000 of 1000"):
            await preview(P.REFUSE, 1001)
        assert await account_of(database, user) == before

    async def test_nothing_is_left_to_preview_of_a_refunded_payment(
        self, database: Database
    ) -> None:
        order = await buy(database, make_user(), 100)
        await reserve(database, order)
        async with database.begin() as work:
            with pytest.raises(RefundExceedsPayment, match="0 of 1000"):
                await work.clawbacks.preview(order.payment_id, None, P.REDUCE, NOW)
