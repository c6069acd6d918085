"""Each fault of a gateway, and a payment that comes to its right end through it.

One cell is one payment with one fault, for that payment alone. What `tests/end_to_end/` injects is
not repeated here: an open or a query that loses its answer once, answers of other money about a
payment that is paid, webhooks that never come or come again and again.
"""

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from typing import Any, Final

from billing.payment import PaymentStatus
from tests.end_to_end.claims import claimed
from tests.end_to_end.outcomes import (
    attention_to,
    events_of,
    has_paid_once,
    until_delivered,
    until_status,
)
from tests.faults.gateway_cells import (
    GATEWAYS,
    REASONS,
    SIGNING,
    SILENCES,
    STRIPE_LIES,
    Cell,
    all_end_well,
)
from tests.faults.operators import skip_time
from tests.fixtures.house import House

LIES_OF_UNPAID: Final = {
    "stripe": STRIPE_LIES,
    "alipay": ("wrong_merchant", "wrong_order", "unknown_status"),
    "wechatpay": ("wrong_merchant", "wrong_order", "unknown_status"),
}
"""What an answer can misstate before there is a receipt: Stripe's intents name their money from
the start, the others' is looked at when it is paid."""

_PATIENCE_SECONDS: Final = 180
_LOOKS_WHILE_OWED: Final = 75


async def _opened(house: House, gateway: str) -> dict[str, Any]:
    """A payment that waits for its payer, and that its gateway knows of: Alipay only has a trade
    from when the payer scans."""
    payment = await house.create(gateway)
    payment = await house.until_status(payment["id"], "requires_action")
    if gateway == "alipay":
        await house.sandbox.decline(gateway=gateway, next_action=payment["next_action"])
    return payment


class TestAPaymentMeetsFaults:
    """The order is placed, and its outcome asked for, until there is an answer to believe; however
    late, early or badly signed its webhooks are, the money is recorded once."""

    async def test_and_is_taken_once(self, house: House) -> None:
        await all_end_well(house, [*self._webhooks(), *self._opens(), *self._queries()])

    def _webhooks(self) -> Iterator[Cell]:
        for gateway in GATEWAYS:
            # Past the first poll, which settles the payment without it.
            late = {"seconds": 6}
            yield Cell(told_about, gateway, "webhook", "delay", times=9, parameters=late)
            yield Cell(told_about, gateway, "webhook", "bad_signature", times=9)
            yield Cell(told_early, gateway, "webhook", "before_answer", times=9)
            yield Cell(told_out_of_turn, gateway, "webhook", "reorder", times=2)
        yield Cell(told_about, "wechatpay", "webhook", "signtest", times=9)

    def _opens(self) -> Iterator[Cell]:
        for gateway in GATEWAYS:
            for fault in SILENCES:
                yield Cell(placed, gateway, "open", fault, times=2)
            yield Cell(placed, gateway, "open", "slow", parameters={"seconds": 1})
        for gateway in SIGNING:
            yield Cell(placed, gateway, "open", "bad_signature", times=2)
        for fault in STRIPE_LIES:
            yield Cell(placed, "stripe", "open", fault, times=2)
        yield Cell(placed, "alipay", "open", "wrong_order", times=2)
        # An error that Stripe does not keep under the key: the repeat gets the order itself.
        yield Cell(placed, "stripe", "open", "http_500_after", parameters={"stored": False})

    def _queries(self) -> Iterator[Cell]:
        for gateway in GATEWAYS:
            yield Cell(asked_about, gateway, "query", "http_500", times=2)
            yield Cell(asked_about, gateway, "query", "slow", parameters={"seconds": 1})
            yield Cell(overtaken, gateway, "query", "slow", parameters={"seconds": 2})
        for gateway in SIGNING:
            yield Cell(asked_about, gateway, "query", "bad_signature", times=2)


async def placed(cell: Cell, house: House) -> None:
    """The fault meets the order, and the payer pays by what comes of it in the end."""
    key = secrets.token_hex(16)
    payment_id = await claimed(house, cell.gateway, key)
    await cell.inject(house, payment_id)
    payment = await house.create(cell.gateway, key=key)
    assert payment["id"] == payment_id
    await house.pay(await house.until_status(payment_id, "requires_action"))
    await has_paid_once(house, payment_id)
    assert await cell.has_fired(house, payment_id)


async def asked_about(cell: Cell, house: House) -> None:
    """The fault meets the question what became of a payment that was paid."""
    payment = await house.create(cell.gateway)
    await cell.inject(house, payment["id"])
    await house.pay(payment)
    await has_paid_once(house, payment["id"])
    assert await cell.has_fired(house, payment["id"])


async def overtaken(cell: Cell, house: House) -> None:
    """The answer that nothing is paid is still on its way when the payer pays."""
    payment = await house.create(cell.gateway)
    payment_id: str = payment["id"]
    await cell.inject(house, payment_id)
    refreshing = asyncio.create_task(house.command(payment_id, "refresh"))
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await cell.has_fired(house, payment_id):
            await asyncio.sleep(0.05)
    await house.pay(payment)
    assert (await refreshing).status_code in (200, 202)
    await has_paid_once(house, payment_id)


async def told_about(cell: Cell, house: House) -> None:
    payment = await house.create(cell.gateway)
    payment_id: str = payment["id"]
    await cell.inject(house, payment_id)
    await house.pay(payment)
    await has_paid_once(house, payment_id)
    for told in await _met(cell, house, payment_id):
        first, is_forged = told["tries"][0], cell.fault != "delay"
        assert (first["accepted"], first["forged"]) == (not is_forged, is_forged)
    await until_delivered(house, payment_id)
    await has_paid_once(house, payment_id)


async def told_early(cell: Cell, house: House) -> None:
    """The webhook is there before the answer to the call, or to the payer, that it tells of."""
    key = secrets.token_hex(16)
    payment_id = await claimed(house, cell.gateway, key)
    await cell.inject(house, payment_id)
    payment = await house.create(cell.gateway, key=key)
    await house.pay(payment)
    assert all(told["tries"] for told in await _webhooks_of(house, payment_id))
    await has_paid_once(house, payment_id)
    assert all(told["tries"][0]["accepted"] for told in await _met(cell, house, payment_id))


async def told_out_of_turn(cell: Cell, house: House) -> None:
    """What happened first is told after what came later: at Stripe the decline after the payment
    of the same order, at the others, which tell of payments alone, after that of another."""
    payment, other = await asyncio.gather(*(house.create(cell.gateway) for _ in range(2)))
    payment_id: str = payment["id"]
    await cell.inject(house, payment_id)
    if cell.gateway == "stripe":
        await house.sandbox.decline(gateway=cell.gateway, next_action=payment["next_action"])
    await house.pay(payment)
    await house.pay(other)
    await has_paid_once(house, payment_id)
    await has_paid_once(house, other["id"])
    assert all(told["tries"][0]["accepted"] for told in await _met(cell, house, payment_id))
    await until_delivered(house, payment_id)
    await has_paid_once(house, payment_id)


async def _met(cell: Cell, house: House, payment_id: str) -> list[dict[str, Any]]:
    """The webhooks that met the fault, once the gateway is done with them; there is one."""
    await until_delivered(house, payment_id, 1)
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            told = await _webhooks_of(house, payment_id)
            if all(each["state"] == "delivered" for each in told):
                break
            await asyncio.sleep(0.2)
    met = [each for each in told if each["fault"] == cell.fault]
    assert met
    return met


async def _webhooks_of(house: House, payment_id: str) -> list[dict[str, Any]]:
    """What the sandbox has to tell of the payment, among all that it tells of the others."""
    answer = await house.sandbox.control.get("/control/webhooks", params={"limit": 1000})
    return [each for each in answer.json()["data"] if each["reference"] == payment_id]


class TestACancelMeetsFaults:
    """Query, close and query are repeated until the order can take no money any more."""

    async def test_and_the_payment_is_canceled_for_good(self, house: House) -> None:
        await all_end_well(house, [*self._closes(), *self._queries()])

    def _closes(self) -> Iterator[Cell]:
        for gateway in GATEWAYS:
            for fault in SILENCES:
                yield Cell(canceled, gateway, "close", fault)
            yield Cell(canceled, gateway, "close", "slow", parameters={"seconds": 1})
        for gateway in SIGNING:
            yield Cell(canceled, gateway, "close", "bad_signature", times=2)
        # What the answer to a close says is not relied on: the query after it decides.
        for fault in STRIPE_LIES:
            yield Cell(canceled, "stripe", "close", fault)
        for fault in ("wrong_merchant", "wrong_order"):
            yield Cell(canceled, "alipay", "close", fault)
        yield Cell(canceled, "wechatpay", "close", "close_too_early")

    def _queries(self) -> Iterator[Cell]:
        """That a query goes wrong in every way is seen above: here each way is seen once."""
        for gateway, fault in zip(itertools.cycle(GATEWAYS), SILENCES, strict=False):
            yield Cell(canceled, gateway, "query", fault, times=2)
        for gateway in SIGNING:
            yield Cell(canceled, gateway, "query", "bad_signature", times=2)
        yield Cell(canceled, "stripe", "query", "slow", parameters={"seconds": 1})


async def canceled(cell: Cell, house: House) -> None:
    payment_id = (await _opened(house, cell.gateway))["id"]
    await cell.inject(house, payment_id)
    answer = await house.command(payment_id, "cancel")
    assert answer.status_code in (200, 202), answer.text
    assert await until_status(house, payment_id, "canceled") == "canceled"
    if cell.fault == "close_too_early":
        await skip_time(house.client, payment_id)
    await _ended_unpaid(house, payment_id, "payment.canceled")
    assert await cell.has_fired(house, payment_id)


async def _ended_unpaid(house: House, payment_id: str, last_event: str) -> None:
    """No attempt can take money any more, none did, and nothing is in the books."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while (await house.record(payment_id)).open_attempts:
            await asyncio.sleep(0.1)
    assert await house.charges(payment_id) == []
    assert await house.receipts(payment_id) == []
    assert await house.postings(payment_id) == 0
    told = await events_of(house, payment_id)
    assert told.count(last_event) == 1
    assert told[-1] == last_event


class TestALieAboutAnUnpaidOrder:
    """A payment is parked on the word that is not about it; only a person moves it on, and what
    is posted is what the gateway then says."""

    async def test_and_the_payment_waits_for_a_person(self, house: House) -> None:
        await all_end_well(
            house,
            [
                # Twice, since on a busy machine an answer can be lost with the try that asked.
                Cell(play, gateway, "query", lie, times=2)
                for play, gateway in itertools.product((paid_while_parked, ended_by_hand), GATEWAYS)
                for lie in LIES_OF_UNPAID[gateway]
            ],
        )


async def paid_while_parked(cell: Cell, house: House) -> None:
    """The payer pays what is parked already; the webhook does not move it, the review does."""
    payment = await _opened(house, cell.gateway)
    payment_id: str = payment["id"]
    await cell.inject(house, payment_id)
    assert (await house.command(payment_id, "refresh")).status_code in (200, 202)
    await _is_parked(cell, house, payment_id)
    await house.pay(payment)
    await until_delivered(house, payment_id, 1)
    await _is_parked(cell, house, payment_id)
    await _ask_until_settled(cell, house, payment_id)
    await has_paid_once(house, payment_id)
    assert await attention_to(house, payment_id) == []


async def _ask_until_settled(cell: Cell, house: House, payment_id: str) -> None:
    """An operator asks again, and once more while the gateway goes on lying, or where a busy
    machine owes the answer to the last time."""
    for _ in range(cell.times + 1):
        answer = await house.command(payment_id, "review", action="retry", reason="ask again")
        if answer.status_code == 409:
            break
        assert answer.status_code in (200, 202), answer.text
        if answer.status_code == 202:
            for _ in range(_LOOKS_WHILE_OWED):
                if (await house.record(payment_id)).payment.status is PaymentStatus.SUCCEEDED:
                    return
                await asyncio.sleep(0.2)
        elif answer.json()["status"] == "needs_review":
            await _is_parked(cell, house, payment_id)
    assert await until_status(house, payment_id, "succeeded") == "succeeded"


async def ended_by_hand(cell: Cell, house: House) -> None:
    """The lie meets a cancel, which then is not the application's to make any more."""
    payment_id = (await _opened(house, cell.gateway))["id"]
    await cell.inject(house, payment_id)
    assert (await house.command(payment_id, "cancel")).status_code in (202, 409)
    await _is_parked(cell, house, payment_id)
    ended = await house.command(payment_id, "review", action="close", reason="nobody paid")
    assert ended.status_code in (200, 202), ended.text
    await until_status(house, payment_id, "failed")
    await _ended_unpaid(house, payment_id, "payment.failed")
    assert await attention_to(house, payment_id) == []


async def _is_parked(cell: Cell, house: House, payment_id: str) -> None:
    await until_status(house, payment_id, "needs_review")
    payment = (await house.record(payment_id)).payment
    assert payment.review is not None
    assert payment.review.reason == REASONS[cell.fault]
    assert await attention_to(house, payment_id) == [REASONS[cell.fault]]
    assert await house.receipts(payment_id) == []
    assert await house.postings(payment_id) == 0
