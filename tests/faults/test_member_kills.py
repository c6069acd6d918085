"""The kill matrix of memberships: a worker dies by SIGKILL in each activity of a saved method and
of a subscription, on each gateway; what is renewed is charged once, and no period is skipped.

The arrangement is that of `test_kill_matrix`. `method.open`, `method.settle` and `method.revoke`
die around each call to the gateway; the charge of a renewal (`payment.open`) and, where gateways
keep windows, what prepares it (`subscription.prepare`) before, inside and after;
`subscription.open`, `subscription.write` and `subscription.give_back`, which call no gateway,
before and after. The soak has the places before anything has happened as well.
"""

import asyncio
import contextlib

import pytest

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from tests.faults.crash_points import CrashPoints
from tests.faults.keeping import KeptWorkers
from tests.faults.member_matrix import MemberMatrix, member_cells
from tests.fixtures.database import DatabaseUrls
from tests.fixtures.house import open_house

WORKERS = ("core", "core", "stripe", "alipay", "wechatpay")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_soak", [False, pytest.param(True, marks=pytest.mark.soak)])
async def test_workers_die_in_memberships(
    postgres_server: PostgresServer,
    temporal_server: TemporalServer,
    template_urls: DatabaseUrls,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    *,
    is_soak: bool,
) -> None:
    folder = tmp_path_factory.mktemp("members")
    points = CrashPoints(folder)
    async with (
        open_house(postgres_server, temporal_server, template_urls, "members") as house,
        contextlib.AsyncExitStack() as stack,
    ):
        workers = KeptWorkers(folder, WORKERS, house.environment)
        stack.push_async_callback(workers.stop)
        await workers.start()
        matrix = MemberMatrix(house, points)
        cells = list(member_cells(is_soak=is_soak))
        outcomes = await asyncio.gather(
            *(matrix.play(cell) for cell in cells), return_exceptions=True
        )
        failed = {
            cell.name: repr(outcome)
            for cell, outcome in zip(cells, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        }
        assert not failed, f"{failed}\n{workers.log.read_text()[-4000:]}"
        assert len(points.fired) == len(cells)
        more, less = await matrix.count()
        await house.check_promises()
    request.config.get_terminal_writer().line(
        f"\nkill matrix: {len(cells)} kills in memberships, {more} paid twice, {less} lost"
    )
    assert (more, less) == (0, 0)
