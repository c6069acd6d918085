"""Pay against close, and two rails of one order paid at once: whoever wins, one receipt is kept.

The arrangement: payments over the whole house, side by side. Of each, two deeds are done at one
moment and a random, seeded offset apart: the payer pays while the application cancels, or pays at
the old gateway and at the new one after a `switch`. A payment has ended well when its money was
kept once at most and everything else went back, and the application was told once to fulfil it.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.end_to_end.outcomes import attention_to, events_of, until_returned, until_status
from tests.end_to_end.test_switch import switched
from tests.fixtures.house import ENDED, METHODS, House

RACES_OF_EACH = 25
RACES_OF_EACH_SOAKED = 500
# A cancel goes its way through the workflow first: against one that comes later no payment loses.
LEAST_SECONDS, MOST_SECONDS = -1.5, 0.3
SIDE_BY_SIDE = 10
GATEWAYS = tuple(METHODS)
# The order of Stripe's rails is withdrawn by the switch itself: no race is left there.
RAILS = (("alipay", "stripe"), ("alipay", "wechatpay"), ("wechatpay", "alipay"))
_REFUSALS_TO_CLOSE = 20

Race = Callable[[House, int, float], Awaitable[str]]


async def pay_against_cancel(house: House, turn: int, offset: float) -> str:
    """Who won; `offset` is how many seconds the cancel comes after the payment."""
    payment = await _opened(house, GATEWAYS[turn % len(GATEWAYS)])
    taken, answer = await asyncio.gather(
        _after(-offset, _try_to_pay(house, payment)),
        _after(offset, house.command(payment["id"], "cancel")),
    )
    # Paid before the cancel was heard of, it is not cancelable.
    assert answer.status_code in (200, 202, 409), answer.text
    status = await until_status(house, payment["id"], *ENDED)
    await _ended_well(house, payment["id"], status, charges=int(taken))
    return f"{status}, {'paid' if taken else 'not paid'}"


async def two_rails(house: House, turn: int, offset: float) -> str:
    """Which one was kept; `offset` is how many seconds the new one is paid after the old one."""
    old, new = RAILS[turn % len(RAILS)]
    first = await _opened(house, old)
    if old == "wechatpay":
        # As a young order there may be: the switch cannot withdraw it.
        await house.sandbox.fault(
            old, "close", "close_too_early", reference=first["id"], times=_REFUSALS_TO_CLOSE
        )
    second = await switched(house, first, new, METHODS[new][0])
    taken = await asyncio.gather(
        _after(-offset, _try_to_pay(house, first)), _after(offset, _try_to_pay(house, second))
    )
    status = await until_status(house, first["id"], *ENDED)
    assert status == "succeeded"
    await _ended_well(house, first["id"], status, charges=sum(taken))
    [kept] = [one.attempt for one in await house.receipts(first["id"]) if one.kept]
    return f"{sum(taken)} paid, {'old' if kept == 1 else 'new'} kept"


async def _opened(house: House, gateway: str) -> dict[str, Any]:
    payment = await house.create(gateway, currency="CNY")
    return await house.until_status(payment["id"], "requires_action")


async def _after(seconds: float, deed: Awaitable[Any]) -> Any:
    await asyncio.sleep(max(0.0, seconds))
    return await deed


async def _try_to_pay(house: House, payment: dict[str, Any]) -> bool:
    """Whether the gateway took the money."""
    answer = await house.sandbox.control.post(
        "/control/pay",
        json={"gateway": payment["gateway"], "next_action": payment["next_action"]},
    )
    assert answer.status_code in (200, 409), answer.text
    return answer.status_code == 200


async def _ended_well(house: House, payment_id: str, status: str, *, charges: int) -> None:
    kept = int(status == "succeeded")
    assert status in ("succeeded", "canceled")
    assert charges >= kept
    if charges > kept:
        await until_returned(house, payment_id)
    assert len(await house.charges(payment_id)) == charges
    receipts = await house.receipts(payment_id)
    assert sorted(one.kept for one in receipts) == [False] * (charges - kept) + [True] * kept
    told = Counter(await events_of(house, payment_id))
    assert told["payment.succeeded"] == kept
    assert told["payment.receipt_returned"] == charges - kept
    assert await attention_to(house, payment_id) == []


async def _run(house: House, race: Race, count: int, progress: Callable[[str], None]) -> None:
    seed = secrets.randbits(32)
    progress(f"\n{race.__name__}: {count} races, seed {seed}")
    chance = random.Random(seed)
    offsets = [chance.uniform(LEAST_SECONDS, MOST_SECONDS) for _ in range(count)]
    places = asyncio.Semaphore(SIDE_BY_SIDE)
    outcomes: Counter[str] = Counter()

    async def one(turn: int) -> None:
        async with places:
            outcomes[await race(house, turn, offsets[turn])] += 1
        if outcomes.total() % 100 == 0:
            progress(f"{race.__name__}: {outcomes.total()} of {count}, {dict(outcomes)}")

    results = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
    lost = [
        f"race {turn}, offset {offsets[turn]:.4f}: {result!r}"
        for turn, result in enumerate(results)
        if isinstance(result, BaseException)
    ]
    assert not lost, f"seed {seed}\n" + "\n".join(lost)
    progress(f"{race.__name__}: {dict(outcomes)}")


async def test_races(house: House, request: pytest.FixtureRequest) -> None:
    line = request.config.get_terminal_writer().line
    await asyncio.gather(
        *(_run(house, race, RACES_OF_EACH, line) for race in (pay_against_cancel, two_rails))
    )


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("race", [pay_against_cancel, two_rails])
async def test_a_thousand_races(house: House, race: Race, request: pytest.FixtureRequest) -> None:
    await _run(house, race, RACES_OF_EACH_SOAKED, request.config.get_terminal_writer().line)
    await house.check_promises()
