"""The checker's teeth for promises 5 to 7, without Temporal."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from audit.conduct import OVERDUE_ALLOWANCE
from audit.evidence import Evidence
from audit.report import run_all
from billing.payment import GatewayName
from storage.database import Database
from storage.inbox import InboxOutcome
from tests.audit.conftest import Broken, Plant
from tests.audit.record import LONG_AGO, CleanRecord


class TestEndsAreFinal:
    async def test_an_end_that_was_left_and_reached_again(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(
            "INSERT INTO events (id, object_id, sequence, application, type, data, effective_at)"
            f" SELECT 'evt_' || n, '{clean.canceled}', 3 + n, 'shop', type, '{{}}', now()"
            " FROM (VALUES (1, 'payment.processing'), (2, 'payment.canceled')) AS later (n, type)"
        )
        assert await broken() == [(5, clean.canceled), (5, clean.canceled)]

    async def test_what_is_noted_after_the_end_is_no_violation(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        async with database.begin() as work:
            await work.events.append(
                clean.canceled, "shop", "payment.receipt_unapplied", {}, LONG_AGO
            )
        assert await broken() == []

    async def test_a_status_written_past_the_application(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        plant(f"UPDATE payments SET status = 'expired' WHERE id = '{clean.canceled}'")
        assert await broken() == [(5, clean.canceled)]

    async def test_a_payment_that_stays_open_past_its_deadline(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        deadline = datetime.now(UTC) - OVERDUE_ALLOWANCE - timedelta(seconds=5)
        plant(f"UPDATE payments SET expires_at = '{deadline}' WHERE id = '{clean.waiting}'")
        assert await broken() == [(5, clean.waiting)]

    async def test_one_that_is_being_closed_has_a_moment(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        deadline = datetime.now(UTC) - OVERDUE_ALLOWANCE + timedelta(seconds=60)
        plant(f"UPDATE payments SET expires_at = '{deadline}' WHERE id = '{clean.waiting}'")
        assert await broken() == []


class TestNothingLost:
    async def store(
        self, database: Database, number: str, received: datetime, outcome: InboxOutcome | None
    ) -> None:
        async with database.begin() as work:
            entry = await work.inbox.store(
                GatewayName.ALIPAY, "notify-2", "TRADE_SUCCESS", number, b"{}", received
            )
            assert entry is not None
            if outcome is not None:
                await work.inbox.mark(entry.id, outcome, received)

    async def test_a_webhook_that_was_never_delivered(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        await self.store(database, clean.waiting, LONG_AGO, None)
        assert await broken() == [(6, "notify-2")]

    async def test_a_webhook_of_this_minute_is_under_way(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        await self.store(database, clean.waiting, datetime.now(UTC), None)
        assert await broken() == []

    async def test_a_webhook_of_ours_taken_for_a_stranger_s(
        self, broken: Broken, clean: CleanRecord, database: Database
    ) -> None:
        await self.store(database, clean.waiting, LONG_AGO, InboxOutcome.UNMATCHED)
        assert await broken() == [(6, "notify-2")]

    async def test_a_stranger_s_webhook_is_no_violation(
        self, broken: Broken, database: Database
    ) -> None:
        await self.store(
            database, "pay_01k0000000000000000000000v", LONG_AGO, InboxOutcome.UNMATCHED
        )
        assert await broken() == []

    @pytest.mark.parametrize("age", [timedelta(minutes=2), timedelta(seconds=1)])
    async def test_an_order_that_was_claimed_and_never_recorded(
        self, broken: Broken, database: Database, age: timedelta
    ) -> None:
        async with database.begin() as work:
            await work.claims.claim(
                application="shop",
                key="order-2",
                fingerprint="f",
                command="create",
                object_id="pay_lost",
                request=b"{}",
                now=datetime.now(UTC) - age,
            )
        lost = [(6, "pay_lost")]
        assert await broken() == (lost if age > timedelta(minutes=1) else [])

    async def test_an_order_that_was_refused_under_its_key_is_no_violation(
        self, broken: Broken, database: Database
    ) -> None:
        async with database.begin() as work:
            await work.claims.claim(
                application="shop",
                key="order-3",
                fingerprint="f",
                command="create",
                object_id="pay_refused",
                request=b"{}",
                now=LONG_AGO,
            )
            await work.claims.store_answer(
                application="shop", key="order-3", status=422, body=b"{}"
            )
        assert await broken() == []

    @pytest.mark.parametrize("sequence", [1, 2])
    async def test_an_event_that_was_removed(
        self, broken: Broken, clean: CleanRecord, plant: Plant, sequence: int
    ) -> None:
        plant(f"DELETE FROM events WHERE object_id = '{clean.paid}' AND sequence = {sequence}")
        assert await broken() == [(6, clean.paid)]

    async def test_a_last_event_that_was_removed(
        self, broken: Broken, clean: CleanRecord, plant: Plant
    ) -> None:
        """No gap tells of it; the status does."""
        plant(f"DELETE FROM events WHERE object_id = '{clean.paid}' AND sequence = 3")
        assert await broken() == [(5, clean.paid)]


class TestNothingTold:
    @pytest.mark.parametrize(
        "told",
        [
            "sk_" + "live_abcdefgh12345678",
            "whsec_" + "abcdefgh12345678",
            "-----BEGIN " + "PRIVATE KEY-----",
            "paid with 4242 4242 4242 4242",
            "postgresql://everbill:hunter2@db/everbill",
        ],
        ids=["stripe key", "webhook secret", "private key", "card number", "password in a URL"],
    )
    async def test_a_log_that_tells(
        self, clean: CleanRecord, database: Database, tmp_path: Path, told: str
    ) -> None:
        log = tmp_path / "api.log"
        log.write_text(f'{{"event": "well"}}\n{{"event": "{told}"}}\n{{"payment": "pay_1"}}\n')
        assert await self.look(clean, database, log) == [(7, "api.log:2")]

    async def test_a_log_that_struck_it_out(
        self, clean: CleanRecord, database: Database, tmp_path: Path
    ) -> None:
        log = tmp_path / "api.log"
        log.write_bytes(
            b'{"authorization": "[redacted]", "request_id": "req_1763865600123456789"}\n\xff\n'
        )
        assert await self.look(clean, database, log) == []

    async def look(
        self, clean: CleanRecord, database: Database, log: Path
    ) -> list[tuple[int, str]]:
        report = await run_all(
            Evidence(
                database=database,
                charges=await clean.truth.charges(),
                truth=clean.truth,
                now=datetime.now(UTC),
                logs=[log],
            )
        )
        return [(finding.promise, finding.subject) for finding in report.findings]
