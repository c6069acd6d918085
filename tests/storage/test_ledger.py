"""The ledger keeps itself: once per cause, balanced, append only, whoever writes."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import count

import psycopg
import psycopg.sql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, IntegrityError

from storage.database import Database
from storage.ledger import Posting
from tests.fixtures.database import DatabaseUrls
from tests.storage.samples import NOW

TABLES = ("ledger_accounts", "ledger_transactions", "ledger_postings")
_numbers = count(1)


def new_receipt() -> tuple[str, list[Posting]]:
    """A cause and its postings, on accounts that no other test uses."""
    number = next(_numbers)
    clearing, revenue = f"gateway_clearing:{number}", f"revenue:{number}"
    return f"receipt/{number}", [Posting(clearing, 2900, "CNY"), Posting(revenue, -2900, "CNY")]


async def post(database: Database, cause: str, postings: list[Posting]) -> bool:
    async with database.begin() as work:
        return await work.ledger.post(cause, NOW, postings)


async def balances(database: Database, accounts: list[Posting]) -> dict[tuple[str, str], int]:
    names = {posting.account for posting in accounts}
    async with database.begin() as work:
        found = await work.ledger.balances()
    return {(one.account, one.currency): one.balance_minor for one in found if one.account in names}


def sums(postings: list[Posting]) -> dict[tuple[str, str], int]:
    return {(one.account, one.currency): one.amount_minor for one in postings}


async def test_a_transaction_is_posted_and_adds_up(database: Database) -> None:
    cause, receipt = new_receipt()
    assert await post(database, cause, receipt)
    assert await balances(database, receipt) == sums(receipt)


async def test_a_cause_posted_again_does_not_double_the_receipt(database: Database) -> None:
    cause, receipt = new_receipt()
    assert await post(database, cause, receipt)
    assert not await post(database, cause, receipt)
    assert not await post(database, cause, receipt[::-1])
    async with database.begin() as work:
        assert not await work.ledger.post(cause, NOW + timedelta(days=1), receipt)
    assert await balances(database, receipt) == sums(receipt)


async def test_twice_in_one_transaction_posts_once(database: Database) -> None:
    cause, receipt = new_receipt()
    async with database.begin() as work:
        assert await work.ledger.post(cause, NOW, receipt)
        assert not await work.ledger.post(cause, NOW, receipt)
    assert await balances(database, receipt) == sums(receipt)


@pytest.mark.parametrize(
    "other",
    [
        [Posting("clearing:one", 2901, "CNY"), Posting("revenue:one", -2901, "CNY")],
        [Posting("clearing:one", 2900, "USD"), Posting("revenue:one", -2900, "USD")],
        [Posting("clearing:two", 2900, "CNY"), Posting("revenue:one", -2900, "CNY")],
        [Posting("clearing:one", 2900, "CNY"), Posting("revenue:one", -2900, "CNY")] * 2,
        [Posting("clearing:one", 2900, "CNY")],
        [],
    ],
    ids=["amount", "currency", "account", "twice the same", "fewer", "none"],
)
async def test_a_cause_with_other_postings_is_an_error(
    database: Database, other: list[Posting]
) -> None:
    standing = [Posting("clearing:one", 2900, "CNY"), Posting("revenue:one", -2900, "CNY")]
    await post(database, "receipt/one", standing)
    with pytest.raises(IntegrityError, match="other postings for the cause receipt/one"):
        await post(database, "receipt/one", other)
    assert await balances(database, standing) == sums(standing)


@pytest.mark.parametrize(
    ("amounts", "complaint"),
    [
        ([], "fewer than two postings"),
        ([(5, "CNY")], "fewer than two postings"),
        ([(5, "CNY"), (-4, "CNY")], "sum to zero in CNY"),
        ([(5, "CNY"), (-5, "USD")], "sum to zero in CNY, USD"),
        ([(0, "CNY"), (0, "CNY")], "amount_check"),
        ([(1, "cny"), (-1, "cny")], "currency_check"),
    ],
)
async def test_what_does_not_balance_is_never_committed(
    database: Database, amounts: list[tuple[int, str]], complaint: str
) -> None:
    cause, receipt = new_receipt()
    lines = [Posting(receipt[0].account, amount, currency) for amount, currency in amounts]
    with pytest.raises(IntegrityError, match=complaint):
        await post(database, cause, lines)
    assert await balances(database, receipt) == {}
    assert await post(database, cause, receipt), "the refused one left nothing behind"


@pytest.mark.parametrize(
    "document",
    [
        '[{"account": "revenue", "currency": "CNY", "amount_minor": 1.5},'
        ' {"account": "revenue", "currency": "CNY", "amount_minor": -1.5}]',
        '[{"account": "revenue", "currency": "CNY"}, {"account": "a", "currency": "CNY"}]',
        '[{"currency": "CNY", "amount_minor": 1}, {"currency": "CNY", "amount_minor": -1}]',
        '[{"account": "", "currency": "CNY", "amount_minor": 1},'
        ' {"account": "revenue", "currency": "CNY", "amount_minor": -1}]',
        '{"account": "revenue", "currency": "CNY", "amount_minor": 1}',
        "null",
    ],
    ids=["fractions", "no amount", "no account", "nameless account", "no list", "null"],
)
async def test_malformed_postings_are_refused(database_urls: DatabaseUrls, document: str) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.app, autocommit=True
    ) as connection:
        with pytest.raises(psycopg.Error):
            await connection.execute("SELECT ledger_post('bad', now(), %s::jsonb)", [document])
        found = await connection.execute("SELECT 1 FROM ledger_transactions WHERE cause = 'bad'")
        assert await found.fetchone() is None


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ledger_transactions (cause, effective_at) VALUES ('empty', now())",
        "INSERT INTO ledger_postings (transaction_id, account_id, currency, amount_minor)"
        " SELECT transaction_id, account_id, currency, 1 FROM ledger_postings LIMIT 1",
    ],
    ids=["a transaction without postings", "one more posting for an old transaction"],
)
async def test_the_checks_hold_for_the_owner_too(
    database: Database, database_urls: DatabaseUrls, statement: str
) -> None:
    """Code that comes around `ledger_post` one day meets the same triggers."""
    cause, receipt = new_receipt()
    await post(database, cause, receipt)
    async with await psycopg.AsyncConnection.connect(database_urls.owner) as owner:
        await owner.execute(statement)
        with pytest.raises(psycopg.errors.IntegrityError):
            await owner.commit()
    assert await balances(database, receipt) == sums(receipt)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET id = DEFAULT", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
async def test_nobody_changes_or_removes_a_row(
    database: Database, database_urls: DatabaseUrls, table: str, statement: str
) -> None:
    cause, receipt = new_receipt()
    await post(database, cause, receipt)
    async with await psycopg.AsyncConnection.connect(database_urls.superuser) as superuser:
        with pytest.raises(psycopg.errors.IntegrityError, match="append only"):
            await superuser.execute(psycopg.sql.SQL(statement).format(psycopg.sql.SQL(table)))
    assert await balances(database, receipt) == sums(receipt)


async def test_one_of_many_at_once_posts(database: Database) -> None:
    cause, receipt = new_receipt()
    posted = await asyncio.gather(*(post(database, cause, receipt) for _ in range(30)))
    assert sorted(posted) == [False] * 29 + [True]
    assert await balances(database, receipt) == sums(receipt)


async def test_first_posts_to_the_same_accounts_do_not_deadlock(database: Database) -> None:
    accounts = [f"points:user-{number}" for number in range(40)]

    async def one(number: int) -> bool:
        names = accounts if number % 2 else accounts[::-1]
        lines = [Posting(name, 1, "PTS") for name in names]
        return await post(database, f"grant/{number}", [*lines, Posting("issued", -40, "PTS")])

    assert all(await asyncio.gather(*(one(number) for number in range(8))))
    issued = Posting("issued", -320, "PTS")
    assert await balances(database, [issued]) == sums([issued])


LINES = st.lists(
    st.builds(
        Posting,
        st.sampled_from(["random:one", "random:two", "random:three"]),
        st.integers(-3, 3) | st.integers(-(10**12), 10**12),
        st.sampled_from(["CNY", "USD", "PTS"]),
    ),
    max_size=5,
)


def is_sound(lines: list[Posting]) -> bool:
    totals: Counter[str] = Counter()
    for line in lines:
        totals[line.currency] += line.amount_minor
    return len(lines) >= 2 and not any(totals.values()) and all(one.amount_minor for one in lines)


def balanced(lines: list[Posting]) -> list[Posting]:
    return lines + [Posting("random:one", -line.amount_minor, line.currency) for line in lines]


MAYBE_SOUND = LINES | LINES.map(balanced)


async def test_random_postings_are_taken_if_and_only_if_they_are_sound(database: Database) -> None:
    """A model in Python and the ledger agree on every transaction, its repeat and its sums."""
    model: Counter[tuple[str, str]] = Counter()
    numbers = count(1)

    async def check(lines: list[Posting], repeat: list[Posting]) -> None:
        cause = f"random/{next(numbers)}"
        if not is_sound(lines):
            with pytest.raises(DBAPIError):
                await post(database, cause, lines)
            return
        assert await post(database, cause, lines)
        for line in lines:
            model[line.account, line.currency] += line.amount_minor
        if Counter(repeat) == Counter(lines):
            assert not await post(database, cause, repeat)
        else:
            with pytest.raises(IntegrityError):
                await post(database, cause, repeat)

    loop = asyncio.get_running_loop()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        MAYBE_SOUND.flatmap(
            lambda lines: st.tuples(st.just(lines), st.permutations(lines).map(list) | MAYBE_SOUND)
        )
    )
    def examples(pair: tuple[list[Posting], list[Posting]]) -> None:
        asyncio.run_coroutine_threadsafe(check(*pair), loop).result()

    await asyncio.to_thread(examples)
    accounts = [Posting(name, 1, "CNY") for name in ("random:one", "random:two", "random:three")]
    assert await balances(database, accounts) == dict(model)
    assert sum(model.values()) == 0
