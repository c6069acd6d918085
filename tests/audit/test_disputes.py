"""The checker's teeth for promise 9: each violation is planted, and it alone found."""

import dataclasses
from datetime import UTC, datetime

import pytest

from billing.dispute import DisputeStatus
from storage.database import Database
from storage.ledger import Posting
from tests.audit.conftest import Broken, Plant
from tests.audit.record import CleanRecord
from tests.storage.samples import make_dispute

LATE_DISPUTES = [
    (DisputeStatus.WARNING, 0, 0, 0),
    (DisputeStatus.OPEN, 2900, 0, 1500),
    (DisputeStatus.WON, 2900, 2900, 1500),
    (DisputeStatus.LOST, 2900, 0, 1500),
]


async def dispute(
    database: Database,
    clean: CleanRecord,
    payment_id: str,
    status: DisputeStatus = DisputeStatus.OPEN,
    withdrawn: int = 2900,
    reinstated: int = 0,
    fee: int = 1500,
) -> str:
    """At the gateway and in the record; the dispute's id."""
    charge = clean.truth.charge_of(payment_id)
    clean.truth.taken.remove(charge)
    clean.truth.taken.append(dataclasses.replace(charge, disputed_minor=withdrawn - reinstated))
    async with database.begin() as work:
        found = await work.payments.find(payment_id)
        assert found is not None
        told = make_dispute(
            found.order, status, withdrawn=withdrawn, reinstated=reinstated, fee=fee
        )
        await work.disputes.record(told, datetime.now(UTC))
    return told.dispute.id


@pytest.mark.parametrize(("status", "withdrawn", "reinstated", "fee"), LATE_DISPUTES)
@pytest.mark.parametrize("whose", ["paid", "late"])
async def test_what_is_recorded_and_booked_is_clean(
    broken: Broken,
    clean: CleanRecord,
    database: Database,
    whose: str,
    status: DisputeStatus,
    withdrawn: int,
    reinstated: int,
    fee: int,
) -> None:
    payment_id = getattr(clean, whose)
    await dispute(database, clean, payment_id, status, withdrawn, reinstated, fee)
    assert await broken() == []


async def test_a_dispute_that_nobody_heard_of(broken: Broken, clean: CleanRecord) -> None:
    charge = clean.truth.charge_of(clean.late)
    clean.truth.taken.remove(charge)
    clean.truth.taken.append(dataclasses.replace(charge, disputed_minor=1))
    assert await broken() == [(9, clean.late)]


async def test_a_dispute_that_the_gateway_does_not_know(
    broken: Broken, clean: CleanRecord, database: Database
) -> None:
    await dispute(database, clean, clean.late)
    charge = clean.truth.charge_of(clean.late)
    clean.truth.taken.remove(charge)
    clean.truth.taken.append(dataclasses.replace(charge, disputed_minor=0))
    assert await broken() == [(9, clean.late)]


@pytest.mark.parametrize("status", [DisputeStatus.OPEN, DisputeStatus.LOST])
async def test_a_withdrawal_that_was_not_booked(
    broken: Broken, clean: CleanRecord, database: Database, plant: Plant, status: DisputeStatus
) -> None:
    dispute_id = await dispute(database, clean, clean.late, status)
    plant(
        "DELETE FROM ledger_postings WHERE transaction_id IN (SELECT id FROM ledger_transactions"
        f" WHERE cause = 'dispute/{dispute_id}/withdrawn/2900')",
        f"DELETE FROM ledger_transactions WHERE cause = 'dispute/{dispute_id}/withdrawn/2900'",
    )
    # What the account holds in all, and the dispute on it and on that of clearing.
    assert await broken() == [(9, "disputed:stripe"), (9, clean.late), (9, clean.late)]


async def test_a_withdrawal_that_was_booked_twice(
    broken: Broken, clean: CleanRecord, database: Database
) -> None:
    dispute_id = await dispute(database, clean, clean.late)
    async with database.begin() as work:
        await work.ledger.post(
            f"dispute/{dispute_id}/withdrawn/again",
            datetime.now(UTC),
            [
                Posting("disputed:stripe", 2900, "USD"),
                Posting("gateway_clearing:stripe", -2900, "USD"),
            ],
        )
    assert await broken() == [(9, "disputed:stripe"), (9, clean.late), (9, clean.late)]


async def test_money_on_the_account_that_is_no_dispute_s(
    broken: Broken, database: Database
) -> None:
    async with database.begin() as work:
        await work.ledger.post(
            "by hand",
            datetime.now(UTC),
            [Posting("disputed:stripe", 1, "USD"), Posting("gateway_clearing:stripe", -1, "USD")],
        )
    assert await broken() == [(9, "disputed:stripe")]


@pytest.mark.parametrize(
    "change", ["dispute = NULL", """dispute = jsonb_set(dispute, '{status}', '"won"')"""]
)
async def test_a_payment_that_shows_another_dispute(
    broken: Broken, clean: CleanRecord, database: Database, plant: Plant, change: str
) -> None:
    await dispute(database, clean, clean.late)
    plant(f"UPDATE payments SET {change} WHERE id = '{clean.late}'")
    assert await broken() == [(9, clean.late)]
