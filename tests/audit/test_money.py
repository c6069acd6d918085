"""The checker's teeth for promises 1 to 4 and 8: each violation is planted, and it alone found."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from audit.evidence import Charge, Evidence
from audit.money import recorded_once
from billing.payment import GatewayName
from billing.refund import RefundCause, RefundStatus
from storage.database import Database, UnitOfWork
from storage.ledger import Posting
from tests.audit.conftest import Broken, Plant
from tests.audit.record import LONG_AGO, CleanRecord

REFUND = "ref_01h455vb4pex5vsknk084sn02q"


async def test_a_clean_record_is_clean(broken: Broken) -> None:
    assert await broken() == []


class TestTakenOnce:
    async def test_two_charges_of_one_attempt(self, broken: Broken, clean: CleanRecord) -> None:
        clean.truth.taken.append(clean.truth.charge_of(clean.paid))
        assert await broken() == [(1, clean.paid)]

    async def test_charges_of_two_attempts_are_no_violation_in_themselves(
        self, broken: Broken, clean: CleanRecord
    ) -> None:
        attempts = [one.attempt for one in clean.truth.taken if one.payment_id == clean.paid_again]
        assert sorted(attempts) == [1, 2]
        assert await broken() == []

    async def test_a_second_kept_receipt(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(
            "DROP INDEX receipts_kept_key",
            f"UPDATE receipts SET kept = true WHERE payment_id = '{clean.paid_again}'",
        )
        found = await broken()
        assert (1, clean.paid_again) in found
        # The ledger still has it among the unapplied.
        assert {subject for _, subject in found} == {clean.paid_again}

    async def test_a_succeeded_payment_without_a_kept_receipt(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE receipts SET kept = false WHERE payment_id = '{clean.paid}'")
        assert await broken() == [(1, clean.paid), (2, clean.paid), (4, clean.paid)]

    async def test_a_canceled_payment_that_kept_one(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE receipts SET kept = true WHERE payment_id = '{clean.late}'")
        assert await broken() == [(1, clean.late), (2, clean.late)]


class TestRecordedOnce:
    def charge(self, payment_id: str, paid_at: datetime) -> Charge:
        return Charge(GatewayName.ALIPAY, payment_id, 1, 2900, 0, "CNY", paid_at)

    async def test_money_without_a_receipt(self, broken: Broken, clean: CleanRecord) -> None:
        clean.truth.taken.append(self.charge(clean.waiting, LONG_AGO))
        assert await broken() == [(2, clean.waiting)]

    async def test_money_under_way_is_no_finding(self, broken: Broken, clean: CleanRecord) -> None:
        clean.truth.taken.append(self.charge(clean.waiting, datetime.now(UTC)))
        assert await broken() == []

    async def test_money_for_a_payment_nobody_knows(
        self, broken: Broken, clean: CleanRecord
    ) -> None:
        clean.truth.taken.append(self.charge("pay_unknown", LONG_AGO))
        assert await broken() == [(2, "pay_unknown")]

    async def test_a_receipt_without_money(self, broken: Broken, clean: CleanRecord) -> None:
        clean.truth.taken.remove(clean.truth.charge_of(clean.paid))
        assert await broken() == [(2, clean.paid)]

    async def test_a_receipt_since_the_gateways_were_asked(
        self, clean: CleanRecord, database: Database
    ) -> None:
        clean.truth.taken.remove(clean.truth.charge_of(clean.paid))
        evidence = Evidence(
            database=database,
            charges=await clean.truth.charges(),
            truth=clean.truth,
            now=datetime.now(UTC) - timedelta(minutes=1),
        )
        assert await recorded_once(evidence) == []

    async def test_nothing_is_said_of_what_the_gateway_was_not_asked(
        self, broken: Broken, clean: CleanRecord
    ) -> None:
        clean.truth.taken.remove(clean.truth.charge_of(clean.paid))
        clean.truth.uncovered.add(clean.paid)
        assert await broken() == []

    @pytest.mark.parametrize(
        "change",
        [{"amount_minor": 2901}, {"currency": "USD"}, {"gateway": GatewayName.WECHATPAY}],
        ids=lambda change: next(iter(change)),
    )
    async def test_a_receipt_of_other_money(
        self, broken: Broken, clean: CleanRecord, change: dict[str, object]
    ) -> None:
        charge = clean.truth.charge_of(clean.paid)
        clean.truth.taken.remove(charge)
        clean.truth.taken.append(dataclasses.replace(charge, **change))  # type: ignore[arg-type]
        assert await broken() == [(2, clean.paid)]

    async def test_a_receipt_of_more_than_was_ordered(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE payments SET amount_minor = 2800 WHERE id = '{clean.paid}'")
        assert await broken() == [(2, clean.paid)]

    async def test_a_receipt_without_a_transaction(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        cause = f"receipt/{clean.paid}"
        plant(
            "DELETE FROM ledger_postings USING ledger_transactions AS t"
            f" WHERE t.id = transaction_id AND t.cause = '{cause}'",
            f"DELETE FROM ledger_transactions WHERE cause = '{cause}'",
        )
        assert await broken() == [(2, clean.paid)]

    async def test_a_transaction_without_a_receipt(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(
            f"DELETE FROM receipts WHERE payment_id = '{clean.late}'",
            f"UPDATE payment_attempts SET state = 'dead' WHERE payment_id = '{clean.late}'",
        )
        clean.truth.taken.remove(clean.truth.charge_of(clean.late))
        assert await broken() == [(2, clean.late), (4, clean.late)]

    async def test_a_receipt_posted_twice(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        """Balanced, and wrong: what a repeated insert of postings comes to."""
        plant(
            "INSERT INTO ledger_postings (transaction_id, account_id, currency, amount_minor)"
            " SELECT transaction_id, account_id, currency, amount_minor FROM ledger_postings"
            " JOIN ledger_transactions AS t ON t.id = transaction_id"
            f" WHERE t.cause = 'receipt/{clean.paid}'"
        )
        assert await broken() == [(2, clean.paid)]

    async def test_a_receipt_posted_to_another_account(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(
            "UPDATE ledger_postings SET account_id ="
            " (SELECT id FROM ledger_accounts WHERE code = 'unapplied_receipts:stripe')"
            " FROM ledger_transactions AS t"
            f" WHERE t.id = transaction_id AND t.cause = 'receipt/{clean.paid}'"
            " AND amount_minor < 0"
        )
        assert await broken() == [(2, clean.paid)]

    async def test_an_attempt_that_paid_without_a_receipt(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE payment_attempts SET state = 'paid' WHERE payment_id = '{clean.canceled}'")
        assert await broken() == [(2, clean.canceled)]


class TestBalanced:
    async def test_a_transaction_that_does_not_sum_to_zero(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(
            "UPDATE ledger_postings SET amount_minor = amount_minor + 1"
            " FROM ledger_transactions AS t"
            f" WHERE t.id = transaction_id AND t.cause = 'receipt/{clean.paid}'"
            " AND amount_minor > 0"
        )
        assert await broken() == [(2, clean.paid), (3, f"receipt/{clean.paid}")]

    async def test_a_sum_of_zero_over_two_currencies_is_none(
        self, broken: Broken, plant: Plant
    ) -> None:
        plant(
            "INSERT INTO ledger_transactions (cause, effective_at) VALUES ('exchange', now())",
            "INSERT INTO ledger_postings (transaction_id, account_id, currency, amount_minor)"
            " SELECT max(t.id), 1, currency, amount FROM ledger_transactions AS t,"
            " (VALUES ('CNY', 100), ('USD', -100)) AS sides (currency, amount)"
            " GROUP BY currency, amount",
        )
        assert await broken() == [(3, "exchange"), (3, "exchange")]

    async def test_a_transaction_without_postings(self, broken: Broken, plant: Plant) -> None:
        plant("INSERT INTO ledger_transactions (cause, effective_at) VALUES ('nothing', now())")
        assert await broken() == [(3, "nothing")]

    @pytest.mark.parametrize(
        ("table", "trigger"),
        [
            ("ledger_postings", "ledger_postings_balance"),
            ("ledger_transactions", "ledger_transactions_balance"),
            ("ledger_postings", "ledger_postings_append_only"),
            ("ledger_accounts", "ledger_accounts_no_truncate"),
        ],
    )
    async def test_a_trigger_that_sleeps_or_is_gone(
        self, broken: Broken, plant: Plant, table: str, trigger: str
    ) -> None:
        plant(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
        assert await broken() == [(3, trigger)]
        plant(f"ALTER TABLE {table} ENABLE REPLICA TRIGGER {trigger}")
        assert await broken() == [(3, trigger)]
        plant(f"DROP TRIGGER {trigger} ON {table}")
        assert await broken() == [(3, trigger)]

    @pytest.mark.parametrize(
        "right", ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "UPDATE (amount_minor)"]
    )
    async def test_an_application_with_a_right_too_many(
        self, broken: Broken, plant: Plant, right: str
    ) -> None:
        plant(f"GRANT {right} ON ledger_postings TO everbill_app")
        assert await broken() == [(3, "ledger_postings")]


class TestRefundedWithinBounds:
    async def test_the_gateway_returned_more_than_it_took(
        self, broken: Broken, clean: CleanRecord
    ) -> None:
        charge = clean.truth.charge_of(clean.paid)
        clean.truth.taken.remove(charge)
        clean.truth.taken.append(dataclasses.replace(charge, refunded_minor=2901))
        # More than was taken, and more than we know of.
        assert await broken() == [(4, clean.paid), (4, clean.paid)]

    async def test_all_of_it_is_not_too_much(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        await self._refund(clean, database)
        assert await broken() == []

    async def test_a_refund_that_the_gateway_knows_nothing_of(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        charge = clean.truth.charge_of(clean.paid)
        await self._refund(clean, database)
        clean.truth.taken.remove(clean.truth.charge_of(clean.paid))
        clean.truth.taken.append(charge)
        assert await broken() == [(4, clean.paid)]

    async def test_a_refund_that_is_in_no_book(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        await self._refund(clean, database, posted_minor=None)
        assert await broken() == [(4, REFUND), (4, REFUND)]

    async def test_a_refund_posted_with_another_amount(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        await self._refund(clean, database, posted_minor=2899)
        assert await broken() == [(4, REFUND), (4, REFUND)]

    async def test_more_set_aside_than_came_in(
        self, broken: Broken, clean: CleanRecord, database: Database, plant: Plant
    ) -> None:
        async with database.begin() as work:
            await self._reserve(work, clean)
        plant(f"UPDATE refunds SET amount_minor = 2901 WHERE id = '{REFUND}'")
        assert await broken() == [(4, clean.paid)]

    async def _reserve(self, work: UnitOfWork, clean: CleanRecord) -> None:
        await work.refunds.reserve(
            refund_id=REFUND,
            payment_id=clean.paid,
            application=None,
            attempt=None,
            amount_minor=None,
            cause=RefundCause.REQUESTED,
            reason="returned goods",
            now=datetime.now(UTC),
        )

    async def _refund(
        self, clean: CleanRecord, database: Database, *, posted_minor: int | None = 2900
    ) -> None:
        """All of it, at the gateway and in the record; and in the ledger as told."""
        charge, now = clean.truth.charge_of(clean.paid), datetime.now(UTC)
        clean.truth.taken.remove(charge)
        clean.truth.taken.append(dataclasses.replace(charge, refunded_minor=2900))
        async with database.begin() as work:
            await self._reserve(work, clean)
            await work.refunds.move(REFUND, RefundStatus.SUCCEEDED, now=now, refunded_at=now)
            if posted_minor is not None:
                clearing = f"gateway_clearing:{charge.gateway.value}"
                await work.ledger.post(
                    f"refund/{REFUND}",
                    now,
                    [
                        Posting("revenue", posted_minor, charge.currency),
                        Posting(clearing, -posted_minor, charge.currency),
                    ],
                )

    async def test_money_that_nobody_waited_for_stays_with_us(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"DELETE FROM refunds WHERE payment_id = '{clean.late}'")
        assert await broken() == [(4, clean.late)]

    async def test_a_return_that_failed_calls_for_a_person(
        self, broken: Broken, clean: CleanRecord, plant: Plant, database: Database
    ) -> None:
        plant(f"UPDATE refunds SET status = 'failed' WHERE payment_id = '{clean.late}'")
        assert await broken() == [(4, clean.late)]
        async with database.begin() as work:
            await work.attention.raise_(clean.late, "return_failed", "refused", datetime.now(UTC))
        assert await broken() == []

    async def test_the_record_refunded_what_was_never_captured(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE payments SET amount_refunded_minor = 1 WHERE id = '{clean.canceled}'")
        assert await broken() == [(4, clean.canceled)]


class TestIntegersWithCurrencies:
    @pytest.mark.parametrize("type", ["numeric", "double precision", "integer"])
    async def test_an_amount_that_is_no_bigint(
        self, broken: Broken, plant: Plant, type: str
    ) -> None:
        plant(f"ALTER TABLE ledger_postings ALTER amount_minor TYPE {type}")
        assert await broken() == [(8, "ledger_postings.amount_minor")]

    async def test_a_float_by_another_name(self, broken: Broken, plant: Plant) -> None:
        plant("ALTER TABLE receipts ADD fee real")
        assert await broken() == [(8, "receipts.fee")]

    async def test_a_currency_of_nobody(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE payments SET currency = 'XXQ' WHERE id = '{clean.canceled}'")
        assert await broken() == [(8, "payments")]
