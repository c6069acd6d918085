"""The checker's teeth for promise 10: each violation is planted, and it alone found."""

from dataclasses import dataclass
from datetime import datetime

import pytest

from audit.evidence import Charge
from billing.payment import AttemptState, GatewayName, PaymentStatus, PaymentType
from billing.points import ClawbackPolicy, PointsPurchase
from billing.refund import RefundCause
from storage.database import Database
from storage.ledger import Posting
from storage.points import User
from tests.audit.conftest import Broken, Plant
from tests.audit.record import LONG_AGO, CleanRecord, FakeTruth
from tests.storage.points_samples import fail_refund, make_transaction_id
from tests.storage.samples import make_order, make_refund_id

USER = User("shop", "ann")
ACCOUNT = "points:shop:ann"
PURCHASE = PointsPurchase(package_id="small", points=100, bonus_points=20)


@dataclass(frozen=True)
class Bought:
    """Two purchases, a spend, a refund under way that left a debt, and one that failed."""

    payment: str
    refund: str
    failed: str
    spend: str


async def _buy(database: Database, truth: FakeTruth, now: datetime) -> str:
    order = make_order(
        type=PaymentType.POINTS,
        application=USER.application,
        user_id=USER.user_id,
        gateway=GatewayName.ALIPAY,
        created_at=now,
        points=PURCHASE,
    )
    async with database.begin() as work:
        await work.payments.insert(order, now)
        await work.receipts.record(
            payment_id=order.payment_id,
            attempt=1,
            gateway=order.gateway,
            receipt_reference=f"{order.payment_id}/1",
            amount_minor=order.amount_minor,
            currency=order.currency,
            paid_at=now,
            kept=True,
            now=now,
        )
        await work.attempts.set(order.payment_id, 1, state=AttemptState.PAID, now=now)
        await work.ledger.post(
            f"receipt/{order.payment_id}",
            now,
            [
                Posting("gateway_clearing:alipay", order.amount_minor, order.currency),
                Posting("revenue", -order.amount_minor, order.currency),
            ],
        )
        await work.payments.move(order.payment_id, PaymentStatus.SUCCEEDED, paid_at=now, now=now)
        await work.points.grant(USER, order.payment_id, PURCHASE, now)
    truth.taken.append(
        Charge(order.gateway, order.payment_id, 1, order.amount_minor, 0, order.currency, now)
    )
    return order.payment_id


async def _refund(database: Database, payment_id: str, amount_minor: int) -> str:
    refund_id = make_refund_id()
    async with database.begin() as work:
        await work.refunds.reserve(
            refund_id=refund_id,
            payment_id=payment_id,
            application=None,
            attempt=None,
            amount_minor=amount_minor,
            cause=RefundCause.REQUESTED,
            reason="returned",
            now=LONG_AGO,
            clawback=ClawbackPolicy.DEBT,
        )
    return refund_id


@pytest.fixture
async def bought(database: Database, clean: CleanRecord) -> Bought:
    payment = await _buy(database, clean.truth, LONG_AGO)
    spend = make_transaction_id()
    async with database.begin() as work:
        await work.points.spend(USER, spend, 90, "a hint", LONG_AGO)
    failed = await _refund(database, payment, 500)
    await fail_refund(database, failed, now=LONG_AGO)
    refund = await _refund(database, payment, 1450)
    return Bought(payment, refund, failed, spend)


async def test_points_as_they_should_be(broken: Broken, bought: Bought) -> None:
    assert await broken() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE points_balances SET balance = balance + 1",
        "UPDATE points_balances SET debt = debt + 1, balance = balance - 1",
        "UPDATE points_lots SET remaining = remaining + 1, spent = spent - 1 WHERE kind = 'paid'",
        "DELETE FROM points_balances",
    ],
)
async def test_a_balance_that_does_not_agree(
    broken: Broken, bought: Bought, plant: Plant, change: str
) -> None:
    plant(change)
    assert await broken() == [(10, ACCOUNT)]


async def test_a_movement_that_is_not_in_the_ledger(
    broken: Broken, bought: Bought, plant: Plant
) -> None:
    plant(f"UPDATE ledger_transactions SET cause = 'gone' WHERE cause = 'points/{bought.spend}'")
    assert await broken() == [(10, bought.spend)]


async def test_points_that_only_the_ledger_knows(
    broken: Broken, bought: Bought, database: Database
) -> None:
    async with database.begin() as work:
        await work.ledger.post(
            "a gift",
            LONG_AGO,
            [Posting(ACCOUNT, -5, "PTS"), Posting("points_issued", 5, "PTS")],
        )
        await work.ledger.post(
            "another",
            LONG_AGO,
            [Posting("points:shop:bo", -5, "PTS"), Posting("points_issued", 5, "PTS")],
        )
    assert await broken() == [(10, ACCOUNT), (10, "points:shop:bo")]


async def test_a_history_with_a_gap(broken: Broken, bought: Bought, plant: Plant) -> None:
    plant(
        f"UPDATE points_transactions SET amount = amount - 1 WHERE id = '{bought.spend}'",
    )
    assert await broken() == [(10, bought.spend)]


async def test_a_purchase_that_brought_nothing(
    broken: Broken, bought: Bought, clean: CleanRecord, plant: Plant
) -> None:
    plant(f"UPDATE payments SET type = 'points' WHERE id = '{clean.paid}'")
    assert await broken() == [(10, clean.paid)]


async def test_points_of_a_payment_that_was_not_for_them(
    broken: Broken, bought: Bought, plant: Plant
) -> None:
    plant(f"UPDATE payments SET type = 'one_time' WHERE id = '{bought.payment}'")
    assert await broken() == [(10, bought.payment)]


async def test_a_refund_that_took_no_points(broken: Broken, bought: Bought, plant: Plant) -> None:
    plant(
        "UPDATE points_clawbacks SET amount_minor = amount_minor - 1"
        f" WHERE cause_id = '{bought.refund}'"
    )
    assert await broken() == [(10, bought.refund)]


async def test_a_failed_refund_that_keeps_the_points(
    broken: Broken, bought: Bought, plant: Plant
) -> None:
    plant(f"UPDATE points_clawbacks SET restored_at = NULL WHERE cause_id = '{bought.failed}'")
    assert (10, bought.failed) in await broken()


async def test_a_clawback_that_took_less_than_it_says(
    broken: Broken, bought: Bought, plant: Plant
) -> None:
    plant(f"UPDATE points_clawbacks SET points = points + 1 WHERE cause_id = '{bought.refund}'")
    assert await broken() == [(10, bought.payment), (10, bought.refund)]


@pytest.mark.parametrize("by", ["- 1", "+ 1"], ids=["too few", "too many"])
async def test_refunds_that_took_other_points_than_are_due(
    broken: Broken, bought: Bought, plant: Plant, by: str
) -> None:
    plant(
        f"UPDATE points_clawbacks SET points = points {by}, owed = owed {by}"
        f" WHERE cause_id = '{bought.refund}'"
    )
    assert (10, bought.payment) in await broken()


async def test_a_dispute_that_took_no_points(broken: Broken, bought: Bought, plant: Plant) -> None:
    plant(
        "INSERT INTO disputes (gateway, reference, payment_id, attempt, application, status,"
        " gateway_status, reason, amount_minor, currency, withdrawn_minor, reinstated_minor,"
        " written_off_minor, fee_minor, opened_at, updated_at, effective_at)"
        " SELECT gateway, 'dp_1', payment_id, attempt, 'shop', 'open', 'open', 'none', 1, currency,"
        f" 1, 0, 0, 0, now(), now(), now() FROM receipts WHERE payment_id = '{bought.payment}'"
    )
    assert (10, "dp_1") in await broken()


@pytest.mark.parametrize(
    ("trigger", "table"),
    [
        ("points_balances_agree", "points_balances"),
        ("points_transactions_chain", "points_transactions"),
    ],
)
async def test_a_guard_that_is_switched_off(
    broken: Broken, clean: CleanRecord, plant: Plant, trigger: str, table: str
) -> None:
    plant(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
    assert await broken() == [(3, trigger)]
