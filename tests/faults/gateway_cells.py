"""The cells of the gateways' faults: what goes wrong in which call, and the play that meets it."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fixtures.house import METHODS, House

GATEWAYS: Final = tuple(METHODS)
SIGNING: Final = ("alipay", "wechatpay")
"""The gateways that sign their answers."""

SILENCES: Final = (
    "cut_before",
    "cut_after",
    "http_429",
    "http_500",
    "http_500_after",
    "garbage",
    "truncated",
)
STRIPE_LIES: Final = ("wrong_amount", "wrong_currency", "wrong_order", "unknown_status")
REASONS: Final = {
    "wrong_amount": "amount_mismatch",
    "wrong_currency": "currency_mismatch",
    "wrong_merchant": "merchant_mismatch",
    "wrong_order": "order_mismatch",
    "unknown_status": "unknown_status",
}
_IN_FLIGHT: Final = 24

Play = Callable[["Cell", House], Awaitable[None]]


@dataclass(frozen=True)
class Cell:
    """One payment, or one refund, at `gateway` that meets `fault` in `operation`, `times` times."""

    play: Play
    gateway: str
    operation: str
    fault: str
    times: int = 1
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        more = "".join(f"-{name}={value}" for name, value in self.parameters.items())
        return f"{self.play.__name__}-{self.gateway}-{self.operation}-{self.fault}{more}"

    async def inject(self, house: House, payment_id: str) -> None:
        await house.sandbox.fault(
            self.gateway,
            self.operation,
            self.fault,
            reference=payment_id,
            times=self.times,
            **self.parameters,
        )

    async def has_fired(self, house: House, payment_id: str) -> bool:
        """Whether the fault was done to at least one call."""
        answer = await house.sandbox.control.get("/control/faults")
        waiting = [
            each
            for each in answer.json()["data"]
            if (each["reference"], each["operation"]) == (payment_id, self.operation)
        ]
        return sum(int(each["times"]) for each in waiting) < self.times


async def all_end_well(house: House, cells: Iterable[Cell]) -> None:
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def one(cell: Cell) -> str | None:
        async with slots:
            try:
                await cell.play(cell, house)
            except Exception as problem:  # noqa: BLE001 - told below, next to the others
                return f"{cell.name}: {''.join(traceback.format_exception(problem))}"
            return None

    failed = [told for told in await asyncio.gather(*map(one, cells)) if told]
    assert not failed, "\n".join(failed)
