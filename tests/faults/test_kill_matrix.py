"""The kill matrix: a worker dies by SIGKILL in each activity of each journey, on each gateway.

The arrangement: API and sandbox run as ever; the worker is split by queue, so that a death on one
gateway leaves the others alone. Alipay's queue, with the cells of two methods, has two workers,
the others' one each, `core` three; a keeper puts a new process in place of each that died. A crash
point is armed for one payment, and is met wherever that payment is worked on. Cells run side by
side, one kill at a time on each gateway; each is over when its payment has come to its right end,
through a worker that is not the one that died.

`payment.open`, `payment.settle`, `payment.close`, `payment.switch`, `dispute.settle` and, where
money came late, `refund.ask` and `refund.settle` die before, inside (before and after each call to
the gateway) and after; `payment.end` and `payment.flag`, which call no gateway, before and after,
the gateway being out of reach; `payment.settle` also before the commit that credits points;
`points.spend` before, before its commit and after, and before a refusal; the workflows' own workers
die, all at once, under payments at every stage of their lives.

Of refunds, `refund.reserve` dies before and after, `refund.ask` and `refund.settle` before, inside
and after; on Stripe `refund.settle` dies also under a refund that the bank sends back. Where points
go back with the money, the first dies also before the commit that takes them, and the last before
the one that restores them.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from audit.evidence import Evidence
from audit.report import run_all
from audit.truth import SandboxTruth
from billing.payment import GatewayName, PaymentMethod
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from tests.faults import spends
from tests.faults.cells import END, FLAG, METHODS, PLACES, REFUSED_SPEND, SPEND, gateway_cells
from tests.faults.crash_points import CrashPoints
from tests.faults.keeping import KeptWorkers
from tests.faults.matrix import Matrix
from tests.faults.refund_matrix import RefundMatrix, refund_cells
from tests.fixtures.database import DatabaseUrls
from tests.fixtures.house import House, open_house

WORKERS = ("core", "core", "core", "stripe", "alipay", "alipay", "wechatpay")


@dataclass
class Scene:
    house: House
    workers: KeptWorkers
    points: CrashPoints
    matrix: Matrix


@pytest.fixture(scope="module")
async def scene(
    postgres_server: PostgresServer,
    temporal_server: TemporalServer,
    template_urls: DatabaseUrls,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """A house of its own, with workers that can be killed."""
    folder = tmp_path_factory.mktemp("kills")
    points = CrashPoints(folder)
    async with (
        open_house(postgres_server, temporal_server, template_urls, "kills") as house,
        contextlib.AsyncExitStack() as stack,
    ):
        workers = KeptWorkers(folder, WORKERS, house.environment)
        matrix = Matrix(house, workers, points)
        stack.push_async_callback(workers.stop)
        await workers.start()
        looking = asyncio.create_task(matrix.look())
        stack.callback(looking.cancel)
        yield Scene(house, workers, points, matrix)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_soak", [False, pytest.param(True, marks=pytest.mark.soak)])
async def test_the_gateways_workers_die(
    scene: Scene, request: pytest.FixtureRequest, *, is_soak: bool
) -> None:
    cells = list(gateway_cells(is_soak=is_soak))
    fired_before = len(scene.points.fired)
    await _all_of({cell.name: scene.matrix.play(cell) for cell in cells}, scene.workers)
    assert len(scene.points.fired) - fired_before == len(cells)
    await _hold_promises(scene, request)


@pytest.mark.timeout(600)
async def test_the_core_workers_die(scene: Scene, request: pytest.FixtureRequest) -> None:
    matrix = scene.matrix
    fired_before = len(scene.points.fired)
    canceled: list[str] = []

    async def out_of_reach(gateway: GatewayName, method: PaymentMethod) -> None:
        before, after = await asyncio.gather(
            *(matrix.play_out_of_reach(gateway, method, place) for place in PLACES[END])
        )
        # It is the same activity whatever the gateway: each method has one of its two deaths.
        place = PLACES[FLAG][METHODS.index((gateway, method)) % 2]
        await matrix.play_undying(before, gateway, place)
        canceled.extend((before, after))

    spend_through = partial(spends.play, scene.house, scene.points)
    work = {f"{method} out of reach": out_of_reach(gateway, method) for gateway, method in METHODS}
    work |= {f"spent {place}": spend_through(place, 30, 201) for place in PLACES[SPEND]}
    work |= {f"refused {place}": spend_through(place, 551, 409) for place in REFUSED_SPEND}
    await _all_of(work | {"core lost": matrix.lose_core()}, scene.workers)
    assert (await scene.house.sandbox.control.delete("/control/faults")).status_code == 200
    for payment_id in canceled:
        await matrix.let_die(payment_id)
    spent = len(PLACES[SPEND]) + len(REFUSED_SPEND)
    assert len(scene.points.fired) - fired_before == 3 * len(METHODS) + spent
    await _hold_promises(scene, request)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_soak", [False, pytest.param(True, marks=pytest.mark.soak)])
async def test_workers_die_in_refunds(
    scene: Scene, request: pytest.FixtureRequest, *, is_soak: bool
) -> None:
    refunds = RefundMatrix(scene.house, scene.points)
    looking = asyncio.create_task(refunds.look())
    try:
        cells = list(refund_cells(is_soak=is_soak))
        fired_before = len(scene.points.fired)
        payments = await asyncio.gather(*(refunds.take(cell) for cell in cells))
        work = {
            cell.name: refunds.play(cell, payment)
            for cell, payment in zip(cells, payments, strict=True)
        }
        await _all_of(work, scene.workers)
    finally:
        looking.cancel()
    assert len(scene.points.fired) - fired_before == len(cells)
    await _hold_promises(scene, request)
    twice, lost = await refunds.count()
    request.config.get_terminal_writer().line(
        f"\nkill matrix: {len(cells)} kills in refunds, {twice} refunded twice, {lost} lost"
    )
    assert (twice, lost) == (0, 0)


async def _hold_promises(scene: Scene, request: pytest.FixtureRequest) -> None:
    """Everything that has happened so far, held against what must be."""
    house, workers = scene.house, scene.workers
    watched = await scene.matrix.until_quiet()
    assert workers.dead == set(scene.points.fired.values()) | scene.matrix.killed
    await _check_promises(house, workers.log)
    payments = len(scene.matrix.statuses)
    charged_twice, refunded_twice, lost = await _count(house)
    request.config.get_terminal_writer().line(
        f"\nkill matrix: {len(workers.dead)} kills, {payments} payments, {charged_twice} charged"
        f" twice, {refunded_twice} refunded twice, {lost} lost, {len(watched)} still watched"
    )
    assert (charged_twice, refunded_twice, lost) == (0, 0, 0)


async def _all_of(work: dict[str, Coroutine[Any, Any, None]], workers: KeptWorkers) -> None:
    outcomes = await asyncio.gather(*work.values(), return_exceptions=True)
    failed = {
        name: repr(outcome)
        for name, outcome in zip(work, outcomes, strict=True)
        if isinstance(outcome, BaseException)
    }
    assert not failed, f"{failed}\n{workers.log.read_text()[-4000:]}"


async def _check_promises(house: House, log: Path) -> None:
    truth = SandboxTruth(house.sandbox.url)
    report = await run_all(
        Evidence(
            database=house.database,
            charges=await truth.charges(),
            truth=truth,
            now=datetime.now(UTC),
            client=house.client,
            logs=[log],
            under_way=timedelta(0),
        )
    )
    assert report.is_clean, "\n".join(report.explanations())


async def _count(house: House) -> tuple[int, int, int]:
    """Attempts that money was taken for more than once, charges of which more went back than was
    taken, and charges that are not in the ledger once and, where they are not the one kept receipt
    of a succeeded payment, back with the payer."""
    charges = await house.sandbox.charges()
    taken = Counter((charge["reference"], charge["attempt"]) for charge in charges)
    lost = 0
    for charge in charges:
        kept = [each for each in await house.receipts(charge["reference"]) if each.kept]
        is_kept = [(each.attempt, each.amount_minor, each.currency) for each in kept] == [
            (charge["attempt"], charge["amount"], charge["currency"])
        ]
        is_back = charge["refunded"] == charge["amount"]
        if is_kept == is_back or await house.postings(charge["reference"]) != 1:
            lost += 1
    return (
        sum(times > 1 for times in taken.values()),
        sum(charge["refunded"] > charge["amount"] for charge in charges),
        lost,
    )
