"""The steps of which the kept journeys are made."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from billing.payment import Failure
from gateways.gateway import OpenOutcome, Order, Refused
from tests.end_to_end.stand_ins import StandIn
from tests.fixtures.house import House

PATIENCE_SECONDS: Final = 60

Json = dict[str, Any]


@dataclass(frozen=True)
class Journey:
    """`play` takes a payment to where all its workflows have ended or soon will, and gives its id.

    `has_after` where the last of them is the one for what comes after the payment's own.
    """

    play: Callable[[House], Awaitable[str]]
    has_after: bool = False


class Refusing(StandIn):
    async def open(self, order: Order) -> OpenOutcome:
        return Refused(Failure(code="order_refused", message="this merchant may not sell"))


async def opened(house: House, gateway: str, **fields: Any) -> Json:
    """A payment that waits for its payer."""
    payment = await house.create(gateway, **fields)
    return await house.until_status(payment["id"], "requires_action")


async def ended(house: House, payment: Json, status: str) -> str:
    assert (await house.until_status(payment["id"]))["status"] == status
    return str(payment["id"])


async def lie(house: House, payment: Json, lie: str) -> None:
    """Let the gateway answer queries wrongly until `mend`."""
    await house.sandbox.fault(payment["gateway"], "query", lie, reference=payment["id"], times=1000)


async def mend(house: House) -> None:
    """Clear every fault."""
    answer = await house.sandbox.control.delete("/control/faults")
    assert answer.status_code == 200, answer.text
