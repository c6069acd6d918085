"""Points come with their payment once, go oldest first, expire, and tell of each movement."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from billing.errors import IdempotencyKeyReused, InsufficientPoints, InvalidRequest
from billing.points import ClawbackPolicy, LotKind, PointsBalance, PointsMovement
from storage.database import Database
from storage.ledger import Balance
from storage.points import User
from tests.storage.points_samples import buy, look, make_transaction_id, make_user, spend
from tests.storage.samples import NOW, reserve

M = PointsMovement
DAY = timedelta(days=1)


async def movements(database: Database, user: User) -> list[tuple[M, int, int]]:
    account = await look(database, user)
    account.require_agreement()
    return [(one.kind, one.amount, one.balance_after) for one in account.history]


async def remaining(database: Database, user: User) -> list[int]:
    return [lot.remaining for lot in (await look(database, user)).lots]


async def test_a_purchase_credits_what_was_paid_for_and_its_bonus(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100, 5)
    assert await movements(database, user) == [(M.PURCHASE, 100, 100), (M.BONUS, 5, 105)]
    account = await look(database, user)
    assert [(lot.payment_id, lot.kind, lot.remaining) for lot in account.lots] == [
        (order.payment_id, "paid", 100),
        (order.payment_id, "bonus", 5),
    ]
    assert {one.payment_id for one in account.history} == {order.payment_id}
    assert {one.user_id for one in account.history} == {user.user_id}


async def test_a_purchase_without_a_bonus_is_one_movement(database: Database) -> None:
    user = make_user()
    await buy(database, user, 100)
    assert await movements(database, user) == [(M.PURCHASE, 100, 100)]


async def test_a_purchase_is_credited_once(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100, 5)
    assert order.points is not None
    async with database.begin() as work:
        assert await work.points.grant(user, order.payment_id, order.points, NOW) == []
    assert len(await movements(database, user)) == 2


async def test_each_movement_is_in_the_ledger_and_told(database: Database) -> None:
    user = User("told", "user-1")
    order = await buy(database, user, 100, 5)
    spent = await spend(database, user, 30)
    async with database.begin() as work:
        balances = await work.ledger.balances()
        page = await work.events.after(application="told", cursor=None, limit=200)
    assert Balance("points:told:user-1", "PTS", -75) in balances
    told = [event for event in page.data if event.type.startswith("points.")]
    assert [event.type for event in told] == [
        "points.credited",
        "points.credited",
        "points.spent",
    ]
    assert told[-1].object_id == spent.id
    assert told[-1].sequence == 1
    assert told[-1].data == {
        "user_id": "user-1",
        "kind": "spend",
        "amount": -30,
        "balance_after": 75,
        "payment_id": None,
        "refund_id": None,
        "description": "a hint",
    }
    assert told[0].data["payment_id"] == order.payment_id


async def test_the_ledger_tells_what_was_issued_spent_and_expired(database: Database) -> None:
    async def totals() -> dict[str, int]:
        async with database.begin() as work:
            return {
                each.account: each.balance_minor
                for each in await work.ledger.balances()
                if each.account.startswith("points_")
            }

    before = await totals()
    user = make_user()
    await buy(database, user, 100, 5, days=1)
    await spend(database, user, 30)
    async with database.begin() as work:
        await work.points.expire(user, NOW + DAY)
    after = await totals()
    assert {code: total - before.get(code, 0) for code, total in after.items()} == {
        "points_issued": 105,
        "points_spent": -30,
        "points_expired": -75,
    }


async def test_the_oldest_points_are_spent_first(database: Database) -> None:
    user = make_user()
    await buy(database, user, 10, 2)
    await buy(database, user, 20)
    await spend(database, user, 11)
    assert await remaining(database, user) == [0, 1, 20]
    await spend(database, user, 21)
    assert await remaining(database, user) == [0, 0, 0]


async def test_more_than_there_is_cannot_be_spent(database: Database) -> None:
    user = make_user()
    with pytest.raises(InsufficientPoints, match="0 points can be spent, not 1"):
        await spend(database, user, 1)
    await buy(database, user, 10)
    with pytest.raises(InsufficientPoints, match="10 points can be spent, not 11"):
        await spend(database, user, 11)
    for points in (0, -1):
        with pytest.raises(InvalidRequest):
            await spend(database, user, points)
    assert await movements(database, user) == [(M.PURCHASE, 10, 10)]


async def test_a_repeated_spend_changes_nothing_and_answers_the_same(database: Database) -> None:
    user = make_user()
    await buy(database, user, 10)
    transaction_id = make_transaction_id()
    first = await spend(database, user, 4, id=transaction_id)
    await spend(database, user, 6)
    assert await spend(database, user, 4, id=transaction_id, now=NOW + DAY) == first
    assert await movements(database, user) == [
        (M.PURCHASE, 10, 10),
        (M.SPEND, -4, 6),
        (M.SPEND, -6, 0),
    ]


async def test_an_id_stands_for_one_spend_of_one_user(database: Database) -> None:
    user, other = make_user(), make_user()
    await buy(database, user, 10)
    await buy(database, other, 10)
    transaction_id = make_transaction_id()
    await spend(database, user, 4, id=transaction_id)
    with pytest.raises(IdempotencyKeyReused):
        await spend(database, user, 5, id=transaction_id)
    with pytest.raises(IdempotencyKeyReused):
        await spend(database, other, 4, id=transaction_id)
    assert await remaining(database, other) == [10]


async def test_users_of_two_applications_are_two(database: Database) -> None:
    ours, theirs = User("ours", "same"), User("theirs", "same")
    await buy(database, ours, 10)
    with pytest.raises(InsufficientPoints):
        await spend(database, theirs, 1)
    async with database.begin() as work:
        assert (await work.points.page(theirs, limit=10)).data == []
        assert (await work.points.balance(theirs, NOW)).balance == 0


async def test_expired_points_cannot_be_spent_and_are_written_off(database: Database) -> None:
    user = make_user()
    old = await buy(database, user, 10, 2, days=1)
    await buy(database, user, 5)
    await spend(database, user, 4)
    later = NOW + DAY
    with pytest.raises(InsufficientPoints, match="5 points can be spent"):
        await spend(database, user, 6, now=later)
    async with database.begin() as work:
        assert await work.points.balance(user, later) == PointsBalance(
            user_id=user.user_id, balance=13, spendable=5, owed=0
        )
        assert await work.points.expire(user, later - timedelta(seconds=1)) == []
        written_off = await work.points.expire(user, later)
        assert await work.points.expire(user, later) == []
    assert [(one.amount, one.payment_id) for one in written_off] == [
        (-6, old.payment_id),
        (-2, old.payment_id),
    ]
    assert (await movements(database, user))[-2:] == [(M.EXPIRY, -6, 7), (M.EXPIRY, -2, 5)]
    async with database.begin() as work:
        shown = await work.points.balance(user, later)
    assert (shown.balance, shown.spendable) == (5, 5)


async def test_users_with_expired_points_are_found_longest_expired_first(
    database: Database,
) -> None:
    users = [make_user() for _ in range(3)]
    long_ago = NOW - 900 * DAY
    for user, days in zip(users, (3, 1, 2), strict=True):
        await buy(database, user, 10, 2, days=days, now=long_ago)
    async with database.begin() as work:
        assert await work.points.due(long_ago + 2 * DAY, 10) == [users[1], users[2]]
        assert await work.points.due(long_ago + 3 * DAY, 2) == [users[1], users[2]]
        await work.points.expire(users[1], long_ago + 3 * DAY)
        assert await work.points.due(long_ago + 3 * DAY, 10) == [users[2], users[0]]


async def test_the_history_is_paged_newest_first(database: Database) -> None:
    user = make_user()
    await buy(database, user, 10)
    for points in (1, 2, 3):
        await spend(database, user, points)
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(2):
        async with database.begin() as work:
            page = await work.points.page(user, limit=2, cursor=cursor)
        seen += [one.amount for one in page.data]
        cursor = page.next_cursor
    assert seen == [-3, -2, -1, 10]
    assert (page.has_more, page.next_cursor) == (False, None)


@pytest.mark.parametrize("cursor", ["", "ptx_1", "evt_01h455vb4pex5vsknk084sn02q", "p1"])
async def test_a_cursor_that_no_list_gave_is_refused(database: Database, cursor: str) -> None:
    async with database.begin() as work:
        with pytest.raises(InvalidRequest, match="cursor"):
            await work.points.page(make_user(), limit=2, cursor=cursor)


async def test_anothers_cursor_is_refused(database: Database) -> None:
    user = make_user()
    await buy(database, user, 10)
    theirs = await spend(database, user, 1)
    async with database.begin() as work:
        with pytest.raises(InvalidRequest, match="cursor"):
            await work.points.page(make_user(), limit=2, cursor=theirs.id)


async def test_holdings_are_the_balance_and_the_lots_behind_it(database: Database) -> None:
    user = make_user()
    async with database.begin() as work:
        nothing = await work.points.holdings(user, NOW)
    assert (nothing.balance, nothing.spendable, nothing.owed, nothing.lots) == (0, 0, 0, [])
    await buy(database, user, 100, 20, days=1)
    await buy(database, user, 50)
    await spend(database, user, 110)
    for now, spendable in ((NOW, 60), (NOW + DAY, 50)):
        async with database.begin() as work:
            found = await work.points.holdings(user, now)
            assert await work.points.balance(user, now) == PointsBalance(
                **found.model_dump(exclude={"lots"})
            )
        assert (found.balance, found.spendable) == (60, spendable)
        assert [(lot.kind, lot.granted, lot.remaining, lot.expires_at) for lot in found.lots] == [
            (LotKind.BONUS, 20, 10, NOW + DAY),
            (LotKind.PAID, 50, 50, None),
        ]


async def test_in_debt_nothing_of_the_lots_can_be_spent(database: Database) -> None:
    user = make_user()
    order = await buy(database, user, 100)
    await spend(database, user, 100)
    await reserve(database, order, clawback=ClawbackPolicy.DEBT)
    async with database.begin() as work:
        found = await work.points.holdings(user, NOW)
    assert (found.balance, found.spendable, found.owed, found.lots) == (-100, 0, 100, [])


async def test_a_movement_is_found_by_its_own_application(database: Database) -> None:
    user = make_user()
    await buy(database, user, 100)
    spent = await spend(database, user, 1)
    async with database.begin() as work:
        assert await work.points.find(spent.id, user.application) == spent
        assert await work.points.find(spent.id, "another") is None
        assert await work.points.find(make_transaction_id(), user.application) is None


class TestPostgresItself:
    """What is refused whatever the code does."""

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE points_lots SET remaining = remaining - 11, spent = spent + 11",
            "UPDATE points_lots SET remaining = remaining + 1, spent = spent - 1",
            "UPDATE points_lots SET remaining = remaining + 1",
            "UPDATE points_lots SET remaining = remaining - 1",
            "UPDATE points_balances SET debt = -1",
            "UPDATE points_balances SET balance = -1",
            "UPDATE points_balances SET balance = balance + 1",
            "UPDATE points_balances SET debt = debt + 1",
            "UPDATE points_balances SET movements = movements + 1",
            "UPDATE points_lots SET remaining = 9, spent = 1;"
            " UPDATE points_balances SET updated_at = now()",
        ],
    )
    async def test_points_from_nowhere(self, database: Database, change: str) -> None:
        user = make_user()
        await buy(database, user, 10)
        where = f" WHERE user_id = '{user.user_id}'"

        async def tamper() -> None:
            async with database.begin() as work:
                for statement in change.split(";"):
                    await work.connection.execute(text(statement + where))

        with pytest.raises(IntegrityError):
            await tamper()
        assert await remaining(database, user) == [10]

    @pytest.mark.parametrize(
        ("sequence", "amount", "after"), [(2, -1, 8), (2, 1, 11), (3, -1, 9), (1, -1, 9)]
    )
    async def test_a_transaction_that_does_not_go_on_from_the_last(
        self, database: Database, sequence: int, amount: int, after: int
    ) -> None:
        user = make_user()
        await buy(database, user, 10)
        with pytest.raises(IntegrityError):
            async with database.begin() as work:
                await work.connection.execute(
                    text(
                        "INSERT INTO points_transactions (id, application, user_id, sequence,"
                        " kind, amount, balance_after, effective_at) VALUES"
                        " (:id, 'shop', :user_id, :sequence, 'spend', :amount, :after, now())"
                    ),
                    {
                        "id": make_transaction_id(),
                        "user_id": user.user_id,
                        "sequence": sequence,
                        "amount": amount,
                        "after": after,
                    },
                )

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE points_transactions SET amount = 1",
            "DELETE FROM points_transactions",
            "TRUNCATE points_transactions",
            "DELETE FROM points_lots",
        ],
    )
    async def test_history_is_not_rewritten(self, database: Database, statement: str) -> None:
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with database.begin() as work:
                await work.connection.execute(text(statement))
