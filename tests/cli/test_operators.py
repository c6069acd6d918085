"""What operators type when money looks wrong: doctor, resume, review."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, select, update
from typer.testing import CliRunner, Result

from audit.report import PROMISES
from cli.__main__ import app
from embedded.launch import free_port
from embedded.options import PROJECT
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from storage.tables import idempotency_claims, reviews
from tests.deploy.compose import make_namespace
from tests.end_to_end.claims import claimed
from tests.fixtures.database import DatabaseUrls
from tests.fixtures.house import METHODS, House, open_house

NAMESPACE = "operators"
Tamper = Callable[..., contextlib.AbstractContextManager[None]]


@pytest.fixture(scope="module")
async def house(
    postgres_server: PostgresServer, temporal_server: TemporalServer, template_urls: DatabaseUrls
) -> AsyncIterator[House]:
    """A house of our own, for doctor looks into every corner."""
    await asyncio.to_thread(make_namespace, temporal_server.address, NAMESPACE)
    async with open_house(postgres_server, temporal_server, template_urls, NAMESPACE) as built:
        await built.start_worker()
        yield built
        await built.stop_worker()


@pytest.fixture
def tamper(house: House, postgres_server: PostgresServer) -> Tamper:
    """Do one statement as a superuser, and undo it by another."""
    database = make_url(house.environment["DATABASE_URL"]).database
    assert database is not None
    url = postgres_server.url(database)

    @contextlib.contextmanager
    def tampering(do: str, undo: str) -> Iterator[None]:
        for statement in (do, undo):
            with psycopg.connect(url) as connection:
                connection.execute("SET session_replication_role = replica")
                connection.execute(statement)
            if statement is do:
                yield

    return tampering


def as_a_process(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **house.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def everbill(house: House, *arguments: str, **settings: str) -> Result:
    """The command runs an event loop of its own, so not in this one.

    What the house logs meanwhile comes out with it.
    """
    environment = {**house.environment, "COLUMNS": "200", **settings}
    return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)


async def paid_payment(house: House, gateway: str) -> str:
    payment = await house.create(gateway)
    await house.pay(payment)
    ended = await house.until_status(payment["id"])
    assert ended["status"] == "succeeded"
    return str(ended["id"])


async def parked_payment(house: House) -> dict[str, Any]:
    payment = await house.create("wechatpay")
    await house.sandbox.fault(
        "wechatpay", "query", "wrong_amount", reference=payment["id"], times=50
    )
    await house.pay(payment)
    parked = await house.until_status(payment["id"], "needs_review")
    await house.sandbox.control.delete("/control/faults")
    return parked


class TestDoctor:
    @pytest.mark.parametrize("source", [(), ("--gateway-truth", "query")], ids=["book", "query"])
    async def test_a_system_that_is_well(self, house: House, source: tuple[str, ...]) -> None:
        for gateway in METHODS:
            await paid_payment(house, gateway)
            canceled = await house.create(gateway)
            assert (await house.command(canceled["id"], "cancel")).json()["status"] == "canceled"
        done = await everbill(house, "doctor", *source)
        assert done.exit_code == 0, done.output
        assert done.output.count("yes") == len(PROMISES)

    @pytest.mark.parametrize("source", ["sandbox", "query"])
    async def test_a_receipt_of_other_money(
        self, house: House, tamper: Tamper, source: str
    ) -> None:
        paid = await paid_payment(house, "alipay")
        set_amount = f"UPDATE receipts SET amount_minor = {{}} WHERE payment_id = '{paid}'"
        with tamper(set_amount.format(1), set_amount.format(2900)):
            done = await everbill(house, "doctor", "--gateway-truth", source)
        assert done.exit_code == 1
        assert f"promise 2, {paid}: the gateway tells of 2900 CNY" in done.output
        assert "no: 3 findings" in done.output, "charge, order and ledger against the receipt"
        assert done.output.count("yes") == len(PROMISES) - 1

    async def test_in_a_namespace_that_is_not_there_no_payment_is_called_lost(
        self, house: House
    ) -> None:
        await house.create("stripe")
        done = await everbill(house, "doctor", TEMPORAL_NAMESPACE="nowhere")
        assert done.exit_code == 1
        assert "everbill doctor: TEMPORAL_NAMESPACE" in done.output
        assert "promise" not in done.output

    @pytest.mark.parametrize("is_sure", [True, False])
    async def test_an_order_that_was_claimed_and_never_begun_is_information(
        self, house: House, monkeypatch: pytest.MonkeyPatch, is_sure: bool
    ) -> None:
        """Its API died in between: nothing was asked of anybody, and a repeat is safe. Where
        Temporal is younger than the claim, that cannot be told."""
        if is_sure:

            async def known(*_: object) -> bool:
                return True

            monkeypatch.setattr("audit.conduct.was_never_known", known)
        key = secrets.token_hex(16)
        payment_id = await claimed(house, "stripe", key)
        async with house.database.begin() as work:
            await work.connection.execute(
                update(idempotency_claims)
                .where(idempotency_claims.c.object_id == payment_id)
                .values(created_at=datetime.now(UTC) - timedelta(days=29))
            )
        done = await everbill(house, "doctor")
        assert done.exit_code == (0 if is_sure else 1), done.output
        assert (f"for information: {payment_id}: it was claimed" in done.output) is is_sure
        assert (f"promise 6, {payment_id}: it was ordered" in done.output) is not is_sure
        assert done.output.count("yes") == len(PROMISES) - (not is_sure)
        answer = await house.post_create("stripe", key=key)
        assert (answer.status_code, answer.json()["id"]) == (201, payment_id)
        done = await everbill(house, "doctor")
        assert (done.exit_code, payment_id in done.output) == (0, False)
        await house.command(payment_id, "cancel")

    async def test_a_guard_that_was_switched_off(self, house: House, tamper: Tamper) -> None:
        switch = "ALTER TABLE ledger_postings {} TRIGGER ledger_postings_append_only"
        with tamper(switch.format("DISABLE"), switch.format("ENABLE")):
            done = await everbill(house, "doctor")
        assert done.exit_code == 1
        assert "promise 3, ledger_postings_append_only" in done.output
        assert "everbill migrate" in done.output

    async def test_a_log_that_tells_a_secret(self, house: House, tmp_path: Path) -> None:
        log = tmp_path / "worker.log"
        log.write_text("whsec_" + "abcdefgh12345678\n")
        done = await everbill(house, "doctor", "--log", str(log))
        assert done.exit_code == 1
        assert "promise 7, worker.log:1" in done.output
        assert "whsec_" not in done.output

    async def test_a_gateway_that_does_not_answer_is_no_finding(self, house: House) -> None:
        paid = await paid_payment(house, "wechatpay")
        await house.sandbox.fault("wechatpay", "query", "http_500", reference=paid, times=9)
        done = await everbill(house, "doctor", "--gateway-truth", "query")
        await house.sandbox.control.delete("/control/faults")
        assert done.exit_code == 0, done.output
        assert f"not compared: {paid}" in done.output

    async def test_what_waits_for_a_person_is_told_and_no_finding(self, house: House) -> None:
        parked = await parked_payment(house)
        # The money is at the gateway and not in the record, which is right for a minute only.
        done = await everbill(house, "doctor")
        assert done.exit_code == 0, done.output
        assert f"waits for a person: {parked['id']}, amount_mismatch" in done.output
        await house.command(parked["id"], "review", action="retry", reason="settle it")

    async def test_the_sandbox_s_book_is_asked_of_a_sandbox_only(self, house: House) -> None:
        done = await everbill(
            house,
            *("doctor", "--gateway-truth", "sandbox"),
            EVERBILL_ALIPAY_GATEWAY_URL="https://alipay.invalid/gateway.do",
            EVERBILL_PUBLIC_URL="https://pay.example.com",
        )
        assert done.exit_code == 1
        assert "--gateway-truth sandbox" in done.output


class TestResume:
    async def test_a_payment_whose_process_is_lost(self, house: House) -> None:
        payment = await house.create("alipay")
        await house.client.get_workflow_handle(payment["id"]).terminate("lost")
        done = await everbill(house, "resume", payment["id"])
        assert done.exit_code == 0
        assert done.output.endswith(f"Resumed {payment['id']}.\n")
        await house.pay(payment)
        assert (await house.until_status(payment["id"]))["status"] == "succeeded"
        again = await everbill(house, "resume", payment["id"])
        assert again.exit_code == 0
        assert "needs no resuming" in again.output

    async def test_all_that_are_lost(self, house: House) -> None:
        payments = [await house.create(gateway) for gateway in METHODS]
        for payment in payments:
            await house.client.get_workflow_handle(payment["id"]).terminate("lost")
        done = await everbill(house, "resume", "--all")
        assert done.exit_code == 0
        assert done.output.endswith("Resumed 3 processes.\n")
        for payment in payments:
            answer = await house.command(payment["id"], "cancel")
            assert answer.json()["status"] == "canceled"

    async def test_its_output_is_words_alone(self, house: House) -> None:
        payment = await house.create("wechatpay")
        await house.client.get_workflow_handle(payment["id"]).terminate("lost")
        done = await asyncio.to_thread(as_a_process, house, "resume", payment["id"])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"Resumed {payment['id']}.\n"
        await house.command(payment["id"], "cancel")

    async def test_a_payment_that_nobody_knows(self, house: House) -> None:
        done = await everbill(house, "resume", "pay_nobody")
        assert done.exit_code == 1
        assert done.output.endswith("everbill resume: there is no payment pay_nobody\n")

    @pytest.mark.parametrize("arguments", [(), ("pay_x", "--all")])
    async def test_one_or_all(self, house: House, arguments: tuple[str, ...]) -> None:
        assert (await everbill(house, "resume", *arguments)).exit_code == 2


class TestReview:
    async def test_retry_settles_what_the_gateway_confirms(self, house: House) -> None:
        parked = await parked_payment(house)
        listed = await everbill(house, "review", "list")
        assert parked["id"] in listed.output
        assert "amount_mismatch" in listed.output
        done = await everbill(
            house, "review", "decide", parked["id"], "retry", "--reason", "their console is right"
        )
        assert done.exit_code == 0, done.output
        assert done.output.endswith(f"{parked['id']} is now succeeded.\n")
        assert parked["id"] not in (await everbill(house, "review", "list")).output
        async with house.database.begin() as work:
            rows = await work.connection.execute(
                select(reviews).where(reviews.c.payment_id == parked["id"])
            )
            [row] = rows.mappings()
        assert (row["action"], row["reason"]) == ("retry", "their console is right")
        assert row["actor"].startswith("login:")
        again = await everbill(
            house, "review", "decide", parked["id"], "close", "--reason", "twice"
        )
        assert again.exit_code == 1
        assert "is succeeded: nobody has to decide on it" in again.output

    async def test_a_parked_payment_without_a_process(self, house: House) -> None:
        parked = await parked_payment(house)
        await house.client.get_workflow_handle(parked["id"]).terminate("lost")
        decision = ("review", "decide", parked["id"], "retry", "--reason", "go on")
        done = await everbill(house, *decision)
        assert done.exit_code == 1
        assert f"`everbill resume {parked['id']}`, then decide again" in done.output
        assert (await everbill(house, "resume", parked["id"])).exit_code == 0
        done = await everbill(house, *decision)
        assert done.output.endswith(f"{parked['id']} is now succeeded.\n")

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("retry",), "--reason"),
            (("retry", "--reason", " "), "printable characters"),
            (("retry", "--reason", "x" * 501), "printable characters"),
            (("retry", "--reason", "card 4242424242424242"), "card number"),
            (("close", "--reason", "end it", "--gateway-number", "42"), "evidence"),
            (("forget", "--reason", "never mind"), "forget"),
            (("retry", "--reason", "who?"), "there is no payment pay_nobody"),
        ],
    )
    async def test_what_it_does_not_take(
        self, house: House, arguments: tuple[str, ...], complaint: str
    ) -> None:
        done = await everbill(house, "review", "decide", "pay_nobody", *arguments)
        assert done.exit_code in (1, 2)
        assert complaint in done.output
        assert "4242424242424242" not in done.output


@pytest.mark.parametrize("command", [("doctor",), ("resume", "--all"), ("review", "list")])
@pytest.mark.parametrize("missing", ["DATABASE_URL", "TEMPORAL_ADDRESS"])
async def test_what_is_out_of_reach_is_named(
    house: House, command: tuple[str, ...], missing: str
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    url = f"postgresql://everbill:secret-word@{nowhere}/everbill"
    settings = {missing: url if missing == "DATABASE_URL" else nowhere}
    done = await everbill(house, *command, **settings)
    assert done.exit_code == 1
    assert f"see {missing}" in done.output
    assert "Traceback" not in done.output
    assert "secret-word" not in done.output


async def test_a_namespace_that_is_not_there_is_named(house: House) -> None:
    done = await everbill(house, "review", "list", TEMPORAL_NAMESPACE="elsewhere")
    assert done.exit_code == 0, "it asks PostgreSQL alone"
    payment = await house.create("alipay")
    done = await everbill(house, "resume", payment["id"], TEMPORAL_NAMESPACE="elsewhere")
    assert done.exit_code == 1
    assert "see TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE" in done.output
    await house.command(payment["id"], "cancel")
