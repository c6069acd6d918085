"""Each fault of a gateway, and a refund that comes to its right end through it.

One cell is one refund of one payment with one fault, for that payment alone. What
`tests/end_to_end/` injects is not repeated here: a request that loses its answer once. That each
gateway's adapter knows every fault for what it is, `tests/gateways/` shows.
"""

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import select

from billing.messages import GATEWAY_REPORTED, GatewayReport
from storage.tables import events
from tests.end_to_end.claims import claimed_refund
from tests.end_to_end.outcomes import attention_to, events_of, until_delivered, until_status
from tests.faults.gateway_cells import (
    GATEWAYS,
    REASONS,
    SIGNING,
    SILENCES,
    Cell,
    all_end_well,
)
from tests.fixtures.house import House

AMOUNT: Final = 900
LIES: Final = (
    ("refund", "wrong_currency"),
    ("refund", "wrong_order"),
    ("refund_query", "wrong_amount"),
    ("refund_query", "unknown_status"),
)
_PENDING_CARD: Final = "4000000000007726"
_PATIENCE_SECONDS: Final = 180

Json = dict[str, Any]


class TestARefundMeetsFaults:
    """It is asked for, and asked after, until there is an answer to believe; however late, early
    or often its webhooks come, the money goes back once."""

    async def test_and_is_made_once(self, house: House) -> None:
        await all_end_well(house, [*self._webhooks(), *self._requests(), *self._queries()])

    def _requests(self) -> Iterator[Cell]:
        for gateway in GATEWAYS:
            for fault in ("http_429", "http_500", "truncated", "cut_after"):
                yield Cell(asked_for, gateway, "refund", fault, times=2)
        for gateway in SIGNING:
            yield Cell(asked_for, gateway, "refund", "bad_signature", times=2)
            yield Cell(asked_for, gateway, "refund", "balance_insufficient", times=2)
        yield Cell(asked_for, "wechatpay", "refund", "slow", parameters={"seconds": 1})
        # An error that Stripe does not keep under the key: the repeat gets the refund itself.
        yield Cell(asked_for, "stripe", "refund", "http_500_after", parameters={"stored": False})

    def _queries(self) -> Iterator[Cell]:
        """Each way in which a query goes wrong is seen once."""
        for gateway, fault in zip(itertools.cycle(GATEWAYS), SILENCES, strict=False):
            yield Cell(asked_after, gateway, "refund_query", fault, times=2)
        for gateway in SIGNING:
            yield Cell(asked_after, gateway, "refund_query", "bad_signature")
        yield Cell(asked_after, "alipay", "refund_query", "slow", parameters={"seconds": 1})

    def _webhooks(self) -> Iterator[Cell]:
        for gateway in GATEWAYS:
            # The first poll makes up for it.
            yield Cell(told, gateway, "webhook", "never", times=9)
            yield Cell(told, gateway, "webhook", "bad_signature", times=9)
            yield Cell(told, gateway, "webhook", "duplicate", times=9, parameters={"copies": 2})
            yield Cell(told_early, gateway, "webhook", "before_answer", times=9)


async def asked_for(cell: Cell, house: House) -> None:
    """The fault meets the request for the refund."""
    payment = await _taken(cell, house, {})
    await cell.inject(house, payment["id"])
    refund_id = await _refund(house, payment, secrets.token_hex(16))
    await _has_refunded_once(house, payment["id"], refund_id)
    assert await cell.has_fired(house, payment["id"])


async def asked_after(cell: Cell, house: House) -> None:
    """The fault meets the question what became of a refund that was accepted."""
    payment = await _taken(cell, house, _pending(cell.gateway))
    refund_id = await _accepted(cell, house, payment)
    await cell.inject(house, payment["id"])
    await _report(house, refund_id)
    await _has_refunded_once(house, payment["id"], refund_id)
    assert await cell.has_fired(house, payment["id"])


async def told(cell: Cell, house: House) -> None:
    """The fault meets the webhooks of a refund that was accepted; without any, it is polled."""
    payment = await _taken(cell, house, _pending(cell.gateway))
    await _leave_open(cell, house, payment["id"])
    await cell.inject(house, payment["id"])
    refund_id = await _refund(house, payment, secrets.token_hex(16))
    await _has_refunded_once(house, payment["id"], refund_id)
    assert await cell.has_fired(house, payment["id"])
    await until_delivered(house, payment["id"])
    await _has_refunded_once(house, payment["id"], refund_id)


async def told_early(cell: Cell, house: House) -> None:
    """The webhook is there before the answer to the request that it tells of."""
    payment = await _taken(cell, house, _pending(cell.gateway))
    key = secrets.token_hex(16)
    refund_id = await claimed_refund(house, payment, key, amount=AMOUNT)
    await cell.inject(house, payment["id"])
    assert await _refund(house, payment, key) == refund_id
    await _has_refunded_once(house, payment["id"], refund_id)
    assert await cell.has_fired(house, payment["id"])


class TestALieAboutARefund:
    """A refund is parked on the word that is not about it, and goes on by itself once the gateway
    tells the truth: at the next webhook or poll."""

    async def test_and_the_refund_waits_for_the_truth(self, house: House) -> None:
        await all_end_well(
            house,
            [
                Cell(misled, gateway, operation, lie)
                for gateway in GATEWAYS
                for operation, lie in LIES
            ],
        )


async def misled(cell: Cell, house: House) -> None:
    is_asked_after = cell.operation == "refund_query"
    payment = await _taken(cell, house, _pending(cell.gateway) if is_asked_after else {})
    if is_asked_after:
        refund_id = await _accepted(cell, house, payment)
        await cell.inject(house, payment["id"])
        await _report(house, refund_id)
        await house.until_refund(refund_id, "needs_review")
        assert await attention_to(house, payment["id"]) == [REASONS[cell.fault]]
        await _report(house, refund_id)
    else:
        await cell.inject(house, payment["id"])
        refund_id = await _refund(house, payment, secrets.token_hex(16))
    await _has_refunded_once(house, payment["id"], refund_id)
    assert await cell.has_fired(house, payment["id"])
    assert await _reasons(house, refund_id) == [REASONS[cell.fault]]


async def _reasons(house: House, refund_id: str) -> list[str]:
    """Why the refund was parked, each time."""
    parked = select(events.c.data).where(
        events.c.object_id == refund_id, events.c.type == "refund.needs_review"
    )
    async with house.database.begin() as work:
        return [data["review"]["reason"] for data in await work.connection.scalars(parked)]


async def _accepted(cell: Cell, house: House, payment: Json) -> str:
    """A refund that is on its way, and of which the gateway tells nothing by itself."""
    await house.sandbox.fault(cell.gateway, "webhook", "never", reference=payment["id"], times=1000)
    await _leave_open(cell, house, payment["id"])
    refund_id = await _refund(house, payment, secrets.token_hex(16))
    await house.until_refund(refund_id, "processing")
    return refund_id


async def _report(house: House, refund_id: str) -> None:
    """As a webhook or an operator would, who have the gateway asked."""
    await house.client.get_workflow_handle(refund_id).signal(
        GATEWAY_REPORTED, GatewayReport(event_id=secrets.token_hex(8), event_type="reported")
    )


def _pending(gateway: str) -> dict[str, str]:
    """The payer's card that makes Stripe take its time; WeChat Pay always does."""
    return {"card": _PENDING_CARD} if gateway == "stripe" else {}


async def _leave_open(cell: Cell, house: House, payment_id: str) -> None:
    """Alipay tells what became of a refund at once, unless that answer is lost."""
    if cell.gateway == "alipay":
        await house.sandbox.fault("alipay", "refund", "http_500_after", reference=payment_id)


async def _taken(cell: Cell, house: House, options: dict[str, str]) -> Json:
    """A payment that is paid, all of its webhooks behind it."""
    payment = await house.create(cell.gateway)
    action = payment["next_action"]
    await house.sandbox.pay(gateway=cell.gateway, next_action=action, **options)
    await until_status(house, payment["id"], "succeeded")
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await _all_told(house, payment["id"]):
            await asyncio.sleep(0.1)
    return payment


async def _all_told(house: House, payment_id: str) -> bool:
    answer = await house.sandbox.control.get("/control/webhooks", params={"limit": 1000})
    return all(
        each["state"] == "delivered"
        for each in answer.json()["data"]
        if each["reference"] == payment_id
    )


async def _refund(house: House, payment: Json, key: str) -> str:
    answer = await house.post_refund(payment["id"], key=key, amount=AMOUNT)
    assert answer.status_code in (201, 202), answer.text
    refund_id: str = answer.json()["id"]
    return refund_id


async def _has_refunded_once(house: House, payment_id: str, refund_id: str) -> None:
    """At the gateway, in the record, in the ledger and in the events, of which it is the last."""
    refund = await house.until_refund(refund_id)
    assert (refund["status"], refund["failure"], refund["review"]) == ("succeeded", None, None)
    [charge] = await house.charges(payment_id)
    assert charge["refunded"] == AMOUNT
    assert (await house.record(payment_id)).payment.amount_refunded == AMOUNT
    assert await house.postings(refund_id) == 1
    told = await events_of(house, refund_id)
    assert told.count("refund.succeeded") == 1
    assert told[-1] == "refund.succeeded"
    assert await attention_to(house, payment_id) == []
