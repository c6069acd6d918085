"""Disputes: told in any order and any number of times, booked once."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from billing.dispute import Dispute, DisputeStatus
from billing.errors import RefundExceedsPayment
from billing.identifiers import attempt_number
from billing.messages import PaymentOrder
from billing.payment import GatewayName, PaymentMethod
from storage.database import Database
from storage.dispute_rows import DisputeChange, DisputeRecord
from storage.ledger import Posting
from tests.storage.samples import NOW, make_dispute, make_order, reserve, take, take_twice
from tests.storage.test_refunds import events_of

S = DisputeStatus
LATER = NOW + timedelta(days=3)
Course = list[tuple[DisputeStatus, int, int, int]]
"""Status, withdrawn, reinstated and fee, as the gateway tells them one after the other."""

WARNING, OPENED, REVIEWED = (
    (S.WARNING, 0, 0, 0),
    (S.OPEN, 2900, 0, 15),
    (S.UNDER_REVIEW, 2900, 0, 15),
)
WON, PAID_BACK = (S.WON, 2900, 0, 15), (S.WON, 2900, 2900, 15)
LOST = (S.LOST, 2900, 0, 15)
COURSES: dict[str, tuple[Course, dict[str, int]]] = {
    "won": (
        [WARNING, OPENED, REVIEWED, WON, PAID_BACK],
        {"gateway_clearing": -15, "dispute_fees": 15},
    ),
    "lost": (
        [OPENED, REVIEWED, LOST],
        {"gateway_clearing": -2915, "dispute_fees": 15, "revenue": 2900},
    ),
    "open": (
        [WARNING, OPENED],
        {"gateway_clearing": -2915, "dispute_fees": 15, "disputed": 2900},
    ),
    "dropped": ([WARNING, (S.WON, 0, 0, 0)], {}),
    "won after all": (
        [OPENED, LOST, WON, PAID_BACK],
        {"gateway_clearing": -15, "dispute_fees": 15},
    ),
    "lost in the end": (
        [OPENED, PAID_BACK, (S.LOST, 5800, 2900, 30)],
        {"gateway_clearing": -2930, "dispute_fees": 30, "revenue": 2900},
    ),
    "fee given back": ([OPENED, (S.WON, 2900, 2900, 0)], {}),
    "taken in parts": (
        [(S.OPEN, 1000, 0, 0), (S.OPEN, 2900, 0, 0), (S.LOST, 2900, 500, 0)],
        {"gateway_clearing": -2400, "revenue": 2400},
    ),
}


async def pay(database: Database, **changed: Any) -> PaymentOrder:
    return await take(
        database,
        **{"gateway": GatewayName.STRIPE, "method": PaymentMethod.CARD, "currency": "USD"}
        | changed,
    )


async def tell(
    database: Database, record: DisputeRecord, at: timedelta = timedelta(0)
) -> DisputeChange | None:
    async with database.begin() as work:
        return await work.disputes.record(record, NOW + at)


async def booked(database: Database, order: PaymentOrder) -> dict[str, int]:
    """What the ledger has of the payment's disputes, by account; none of them empty."""
    async with database.begin() as work:
        rows = await work.connection.execute(
            text(
                "SELECT split_part(account.code, ':', 1) AS code, posting.amount_minor"
                " FROM ledger_transactions AS transaction"
                " JOIN ledger_postings AS posting ON posting.transaction_id = transaction.id"
                " JOIN ledger_accounts AS account ON account.id = posting.account_id"
                " WHERE transaction.cause LIKE 'dispute/dp_' || :payment || '%'"
            ),
            {"payment": order.payment_id},
        )
        sums: Counter[str] = Counter()
        for code, amount in rows:
            sums[code] += amount
    return {code: amount for code, amount in sums.items() if amount}


async def types(database: Database, order: PaymentOrder) -> list[str]:
    told = await events_of(database, order.application, order.payment_id)
    return [event.type for event in told if event.type.startswith("dispute.")]


async def shown(database: Database, order: PaymentOrder) -> Dispute | None:
    async with database.begin() as work:
        found = await work.payments.find(order.payment_id)
    assert found is not None
    return found.payment.dispute


async def called_for(database: Database, order: PaymentOrder) -> list[tuple[str, str]]:
    async with database.begin() as work:
        waiting = await work.attention.open(order.payment_id)
    return [(one.reason, one.detail) for one in waiting]


@pytest.mark.parametrize("name", COURSES)
async def test_any_order_of_answers_ends_in_the_same_books(database: Database, name: str) -> None:
    course, expected = COURSES[name]
    for turn in permutations(course):
        order = await pay(database)
        for status, withdrawn, reinstated, fee in (*turn, *course):
            told = make_dispute(order, status, withdrawn=withdrawn, reinstated=reinstated, fee=fee)
            await tell(database, told)
        assert await booked(database, order) == expected, turn
        dispute = await shown(database, order)
        assert dispute is not None
        assert dispute.status is course[-1][0], turn
        assert bool(await called_for(database, order)) is not dispute.status.has_ended


async def test_a_course_is_told_step_by_step(database: Database) -> None:
    order = await pay(database, application="told")
    assert await shown(database, order) is None
    for status, withdrawn, reinstated, fee in COURSES["won"][0]:
        told = make_dispute(order, status, withdrawn=withdrawn, reinstated=reinstated, fee=fee)
        assert await tell(database, told) is not None
        assert await tell(database, told, timedelta(days=1)) is None, "a repeat changes nothing"
    assert await types(database, order) == [
        "dispute.opened",
        "dispute.funds_withdrawn",
        "dispute.updated",
        "dispute.won",
        "dispute.funds_reinstated",
    ]


async def test_one_answer_may_tell_of_everything(database: Database) -> None:
    order = await pay(database, application="at once")
    change = await tell(database, make_dispute(order, S.WON, reinstated=2900))
    assert change is not None
    assert change.before is None
    assert await types(database, order) == [
        "dispute.opened",
        "dispute.funds_withdrawn",
        "dispute.funds_reinstated",
        "dispute.won",
    ]
    assert await booked(database, order) == {"gateway_clearing": -1500, "dispute_fees": 1500}


async def test_an_event_says_what_a_subscriber_needs(database: Database) -> None:
    order = await pay(database, application="needs")
    await tell(database, make_dispute(order))
    event = (await events_of(database, "needs", order.payment_id))[-1]
    dispute = await shown(database, order)
    assert dispute is not None
    assert event.data == {
        "dispute": dispute.model_dump(mode="json"),
        "gateway": "stripe",
        "attempt": 1,
        "amount_withdrawn": 2900,
    }
    assert event.created_at == NOW


async def test_what_changes_without_money_is_an_update(database: Database) -> None:
    order = await pay(database, application="updates")
    await tell(database, make_dispute(order))
    books = await booked(database, order)
    await tell(database, make_dispute(order, due_by=NOW + timedelta(days=20)))
    assert await types(database, order) == [
        "dispute.opened", "dispute.funds_withdrawn", "dispute.updated",
    ]  # fmt: skip
    assert await booked(database, order) == books
    [(reason, detail)] = await called_for(database, order)
    assert reason == "dispute_opened"
    assert "by 2026-03-21 12:00 UTC" in detail


async def test_the_payment_shows_its_latest_dispute(database: Database) -> None:
    order = await pay(database)
    first = make_dispute(order, S.WON, reinstated=2900)
    await tell(database, first)
    second = make_dispute(order, id=f"{first.dispute.id}/2", opened_at=LATER)
    await tell(database, second)
    await tell(database, make_dispute(order, S.WON, reinstated=2900, fee=0))
    assert await shown(database, order) == second.dispute
    async with database.begin() as work:
        found = await work.disputes.of_payment(order.payment_id)
    assert [one.dispute.id for one in found] == [first.dispute.id, second.dispute.id]
    assert found[0].dispute.closed_at == NOW
    assert len(await called_for(database, order)) == 1


async def test_when_it_was_closed_is_kept(database: Database) -> None:
    order = await pay(database)
    await tell(database, make_dispute(order, S.WON))
    await tell(database, make_dispute(order, S.WON, reinstated=2900), timedelta(days=1))
    dispute = await shown(database, order)
    assert dispute is not None
    assert dispute.closed_at == NOW


async def test_a_loss_of_money_that_paid_for_nothing_is_no_loss_of_revenue(
    database: Database,
) -> None:
    order = await take_twice(
        database, gateway=GatewayName.STRIPE, method=PaymentMethod.CARD, currency="USD"
    )
    await tell(database, make_dispute(order, S.LOST, attempt=2, fee=0))
    assert await booked(database, order) == {
        "gateway_clearing": -2900, "unapplied_receipts": 2900,
    }  # fmt: skip


async def test_money_that_never_came_is_not_disputed(database: Database) -> None:
    order = make_order(gateway=GatewayName.STRIPE, method=PaymentMethod.CARD, currency="USD")
    async with database.begin() as work:
        await work.payments.insert(order, NOW)
    with pytest.raises(IntegrityError):
        await tell(database, make_dispute(order))
    assert await booked(database, order) == {}


async def test_all_is_written_or_nothing(database: Database) -> None:
    order = await pay(database, application="nothing")

    async def tell_and_fail() -> None:
        async with database.begin() as work:
            await work.disputes.record(make_dispute(order), NOW)
            raise LookupError

    with pytest.raises(LookupError):
        await tell_and_fail()
    assert await shown(database, order) is None
    assert await types(database, order) == []
    assert await booked(database, order) == {}
    assert await called_for(database, order) == []


async def test_many_at_once_book_once(database: Database) -> None:
    order = await pay(database, application="many")
    course = COURSES["lost"][0]
    await asyncio.gather(
        *(
            tell(database, make_dispute(order, status, withdrawn=out, reinstated=back, fee=fee))
            for status, out, back, fee in course * 4
        )
    )
    assert await booked(database, order) == COURSES["lost"][1]
    assert Counter(await types(database, order))["dispute.funds_withdrawn"] == 1


async def test_what_a_dispute_has_cannot_be_refunded(database: Database) -> None:
    order = await pay(database)
    await reserve(database, order, amount_minor=900)
    await tell(database, make_dispute(order, withdrawn=1500))
    with pytest.raises(RefundExceedsPayment, match="1500 withdrawn by a dispute"):
        await reserve(database, order, amount_minor=501)
    await tell(database, make_dispute(order, S.LOST, withdrawn=1500))
    with pytest.raises(RefundExceedsPayment, match=r"^500 of 2900 USD"):
        await reserve(database, order, amount_minor=501)
    assert (await reserve(database, order)).refund.amount == 500


async def test_what_was_won_back_can_be_refunded(database: Database) -> None:
    order = await pay(database)
    await tell(database, make_dispute(order))
    with pytest.raises(RefundExceedsPayment, match=r"^0 of 2900 USD"):
        await reserve(database, order)
    await tell(database, make_dispute(order, S.WON, reinstated=2900))
    assert (await reserve(database, order)).refund.amount == 2900


async def test_what_was_refunded_may_be_disputed_all_the_same(database: Database) -> None:
    order = await pay(database)
    await reserve(database, order, amount_minor=2000)
    await tell(database, make_dispute(order))
    with pytest.raises(RefundExceedsPayment, match=r"^0 of 2900 USD"):
        await reserve(database, order, amount_minor=1)


async def test_another_receipt_of_the_payment_can_be_given_back(database: Database) -> None:
    order = await take_twice(
        database, gateway=GatewayName.STRIPE, method=PaymentMethod.CARD, currency="USD"
    )
    await tell(database, make_dispute(order, attempt=2))
    refund = await reserve(database, order)
    assert (refund.refund.amount, refund.payment_number) == (
        2900, attempt_number(order.payment_id, 1),
    )  # fmt: skip


tellings = st.tuples(
    st.sampled_from(DisputeStatus),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(-5, 5),
)


@given(course=st.lists(tellings, min_size=1, max_size=8))
def test_entries_sum_to_where_the_money_is(
    course: list[tuple[DisputeStatus, int, int, int]],
) -> None:
    """Whatever is told: each transaction is balanced, no cause has two meanings, and the accounts
    end where the last telling says the money is."""
    order = make_order(gateway=GatewayName.STRIPE, currency="USD")
    sums: Counter[str] = Counter()
    causes: dict[str, list[Posting]] = {}
    before: DisputeRecord | None = None
    for status, withdrawn, reinstated, fee in course:
        lost = max(withdrawn - reinstated, 0) if status is S.LOST else 0
        told = make_dispute(order, status, withdrawn=withdrawn, reinstated=reinstated, fee=fee)
        after = DisputeRecord(**{**vars(told), "written_off_minor": lost})
        if before is not None and (
            after.age <= before.age
            or withdrawn < before.withdrawn_minor
            or reinstated < before.reinstated_minor
            or (fee != before.fee_minor and after.age[0] == before.age[0])
        ):
            continue
        for cause, postings in DisputeChange(before, after).entries("revenue"):
            assert causes.setdefault(cause, postings) is postings
            assert sum(one.amount_minor for one in postings) == 0
            for one in postings:
                sums[one.account] += one.amount_minor
        before = after
    assert before is not None
    assert sums["disputed:stripe"] == before.held_minor - before.written_off_minor
    assert sums["revenue"] == before.written_off_minor
    assert sums["dispute_fees:stripe"] == before.fee_minor
    assert sums["gateway_clearing:stripe"] == -before.held_minor - before.fee_minor
