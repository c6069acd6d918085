"""`everbill demo`: real journeys through all three gateways on this machine, and then the proof."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from temporalio.client import Client

from audit.evidence import Evidence
from audit.report import run_all
from audit.truth import SandboxTruth
from billing.money import format_minor
from cli import journeys
from cli.journeys import Journey
from cli.members import Member, membership
from cli.shop import METHODS, JourneyFailed, Shop
from embedded.errors import StackRefused
from embedded.options import StackOptions
from embedded.stack import Stack, interruptible
from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from runtime.temporal import encrypting_converter
from storage.database import Database
from storage.tables import payments, receipts

_WIDTH_OF_A_FILE: Final = 200
_COLUMNS: Final = (
    "gateway",
    "journey",
    "payment",
    "ended",
    "paid in",
    "refunded",
    "returned",
    "dispute",
    "points",
)
_MEMBERSHIP_COLUMNS: Final = (
    "gateway",
    "subscription",
    "lived",
    "renewals",
    "upgrade",
    "declined",
    "paused",
    "ended",
    "payments",
    "charged",
    "quoted ahead",
)


def demo() -> None:
    """Start everything, take payments through all three gateways, and check the promises."""
    console = _console()
    try:
        held = asyncio.run(_demo(console))
    except (StackRefused, JourneyFailed) as problem:
        console.print(f"everbill demo: {problem}", markup=False, style="red")
        raise typer.Exit(1) from None
    if not held:
        raise typer.Exit(1)


def _console() -> Console:
    """Wide enough for every table where it is no terminal, whose own width counts elsewhere."""
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=_WIDTH_OF_A_FILE)


async def _demo(console: Console) -> bool:
    options = StackOptions.from_environment()
    announce = _announcer(console)
    announce(
        f"starting PostgreSQL, Temporal, sandbox gateways, worker and API in {options.data_dir}"
    )
    stack = Stack(options, announce)
    return bool(await interruptible(_played(stack, console, announce), stack))


async def _played(stack: Stack, console: Console, announce: Callable[[str], None]) -> bool:
    async with stack:
        announce("ready; an application orders, payers pay, decline, leave, pay late and twice")
        told, members = await _journeys(stack, announce)
        cipher = Cipher(EncryptionKeys.parse(stack.environment["EVERBILL_ENCRYPTION_KEYS"]))
        database = Database(stack.environment["DATABASE_URL"], cipher)
        try:
            console.print(await _story(told, database))
            console.print(_memberships(members))
            console.print(await _ledger(database))
            held = all(journey.held for journey in told)
            held &= all(member.held for member in members)
            held &= await _promises(stack, database, cipher, console)
        finally:
            await database.dispose()
        ui = stack.addresses.temporal_ui
    verdict = "every journey ended as it should, and every promise held"
    console.print(
        verdict if held else "something did not hold: see above",
        style="bold green" if held else "bold red",
    )
    console.print(
        f"Everything is stopped. `make up` opens the same data again; Temporal's UI is {ui}"
    )
    return held


async def _journeys(
    stack: Stack, announce: Callable[[str], None]
) -> tuple[list[Journey], list[Member]]:
    gateways = list(METHODS)
    authorization = {"Authorization": f"Bearer {stack.api_key}"}
    async with (
        httpx.AsyncClient(
            base_url=stack.addresses.api, headers=authorization, timeout=30, trust_env=False
        ) as api,
        httpx.AsyncClient(base_url=stack.addresses.sandbox, timeout=30, trust_env=False) as sandbox,
    ):
        shop = Shop(api, sandbox)
        announce("members sign up, renew, upgrade, fall behind, pause and leave, by test clock")
        told, members = await asyncio.gather(
            asyncio.gather(*_side_by_side(shop, gateways)),
            asyncio.gather(*(membership(shop, gateway) for gateway in gateways)),
        )
        announce("now with the worker killed (SIGKILL) in the middle of three settlements")

        async def kill_worker() -> None:
            announce(f"killing the worker, process {stack.pid('worker')}")
            await stack.kill("worker")

        crashed = await journeys.paid_while_the_worker_dies(shop, gateways, kill_worker)
        await stack.until_ready("worker")
    return [*told, *crashed], members


def _side_by_side(shop: Shop, gateways: list[str]) -> Iterator[Coroutine[Any, Any, Journey]]:
    for play in (
        journeys.paid,
        journeys.webhook_first_and_twice,
        journeys.declined_then_expired,
        journeys.refunded_in_part,
        journeys.refunded_in_full,
        journeys.paid_on_two_rails,
        journeys.points_spent_and_taken_back,
    ):
        for gateway in gateways:
            yield play(shop, gateway)
    for gateway in journeys.LATE:
        yield journeys.canceled_then_paid(shop, gateway)
    yield journeys.expired_then_paid(shop)
    for outcome in ("won", "lost"):
        yield journeys.disputed(shop, outcome)


async def _story(told: list[Journey], database: Database) -> Table:
    table = Table(title="What happened", title_justify="left", box=None, pad_edge=False)
    for heading in _COLUMNS:
        # What finds no room goes on in the next line: no id and no number is cut.
        table.add_column(heading, overflow="fold")
    settled = await _seconds_to_settle(database, [journey.payment["id"] for journey in told])
    for journey in told:
        payment = journey.payment
        seconds = settled.get(payment["id"])
        table.add_row(
            payment["gateway"],
            journey.story,
            payment["id"],
            payment["status"] if journey.held else f"[red]{payment['status']}[/red]",
            "-" if seconds is None else f"{seconds:.2f} s",
            _money(payment["amount_refunded"], payment["currency"]),
            _money(journey.returned, payment["currency"]),
            journey.dispute or "-",
            "-" if journey.points is None else str(journey.points),
        )
    return table


def _memberships(members: list[Member]) -> Table:
    table = Table(title="Memberships, months in seconds", title_justify="left", box=None)
    for heading in _MEMBERSHIP_COLUMNS:
        table.add_column(heading, overflow="fold")
    for member in members:
        found, currency = member.subscription, member.subscription["plan"]["currency"]
        table.add_row(
            member.gateway,
            found["id"],
            f"{(member.now - member.began_at).days} days",
            str(member.renewals),
            format_minor(member.prorated, currency),
            f"{member.tries} tries",
            f"{member.paused_days} days",
            found["status"] if member.held else f"[red]{found['status']}[/red]",
            str(member.payments),
            format_minor(member.charged, currency),
            format_minor(member.quoted, currency),
        )
    return table


def _money(amount: int, currency: str) -> str:
    return format_minor(amount, currency) if amount else "-"


async def _seconds_to_settle(database: Database, payment_ids: list[str]) -> dict[str, float]:
    """From each order's row to that of the receipt that paid it, by PostgreSQL's clock."""
    async with database.begin() as work:
        rows = await work.connection.execute(
            select(
                receipts.c.payment_id,
                func.extract("epoch", receipts.c.recorded_at - payments.c.recorded_at),
            )
            .join(payments, payments.c.id == receipts.c.payment_id)
            .where(receipts.c.payment_id.in_(payment_ids), receipts.c.kept)
        )
        return {row[0]: float(row[1]) for row in rows}


async def _ledger(database: Database) -> Table:
    table = Table(title="The ledger, all that was ever posted here", title_justify="left", box=None)
    for heading in ("account", "currency", "balance"):
        table.add_column(
            heading, justify="right" if heading == "balance" else "left", overflow="fold"
        )
    async with database.begin() as work:
        balances = await work.ledger.balances()
    for balance in balances:
        table.add_row(
            balance.account,
            balance.currency,
            format_minor(balance.balance_minor, balance.currency),
        )
    for currency in sorted({balance.currency for balance in balances}):
        total = sum(each.balance_minor for each in balances if each.currency == currency)
        table.add_row("sum", currency, format_minor(total, currency), style="bold")
    return table


def _announcer(console: Console) -> Callable[[str], None]:
    began = time.monotonic()

    def announce(what: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {what}", markup=False, highlight=False)

    return announce


async def _promises(stack: Stack, database: Database, cipher: Cipher, console: Console) -> bool:
    """Hold gateways, record, ledger and Temporal against every promise."""
    client = await Client.connect(
        stack.addresses.temporal, data_converter=encrypting_converter(cipher)
    )
    truth = SandboxTruth(stack.addresses.sandbox)
    report = await run_all(
        Evidence(
            database=database,
            charges=await truth.charges(),
            truth=truth,
            now=datetime.now(UTC),
            client=client,
            logs=sorted(stack.folder.logs.glob("*.log")),
        )
    )
    console.print(report.table())
    for explanation in report.explanations():
        console.print(explanation, markup=False, style="red")
    return report.is_clean
