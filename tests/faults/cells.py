"""The cells of the kill matrix: a journey, its gateway, and where in it the worker dies."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from billing.payment import GatewayName, PaymentMethod
from tests.faults.crash_points import CrashPoint

METHODS: Final = (
    (GatewayName.STRIPE, PaymentMethod.CARD),
    (GatewayName.ALIPAY, PaymentMethod.QR),
    (GatewayName.ALIPAY, PaymentMethod.PAGE),
    (GatewayName.WECHATPAY, PaymentMethod.NATIVE),
)
OPEN: Final = "payment.open"
SETTLE: Final = "payment.settle"
CLOSE: Final = "payment.close"
END: Final = "payment.end"
FLAG: Final = "payment.flag"
DISPUTES: Final = "dispute.settle"
DISCOVER: Final = "refund.discover"

PLACES: Final = {
    OPEN: ("before", "before_open", "after_open", "after"),
    SETTLE: ("before", "before_query", "after_query", "after"),
    # Right before the second query is right after the close.
    CLOSE: (
        "before",
        "before_query",
        "after_query",
        "before_close",
        "after_close",
        "after_requery",
        "after",
    ),
    DISPUTES: ("before", "before_list_disputes", "after_list_disputes", "after"),
    DISCOVER: ("before", "before_list_refunds", "after_list_refunds", "after"),
    END: ("before", "after"),
    FLAG: ("before", "after"),
}
JOURNEYS: Final = {
    "paid": (OPEN, SETTLE),
    "canceled": (OPEN, CLOSE),
    "expired": (OPEN, CLOSE),
    "disputed": (DISPUTES,),
    "refunded": (DISCOVER,),
}


@dataclass(frozen=True)
class Cell:
    """The worker of the gateway's queue dies at this place of this activity."""

    gateway: GatewayName
    method: PaymentMethod
    journey: str
    activity: str
    place: str

    @property
    def name(self) -> str:
        return "-".join((self.gateway, self.method, self.journey, self.activity, self.place))

    def point(self, owner: str) -> CrashPoint:
        return CrashPoint(self.activity, self.place, owner)

    @property
    def is_reachable(self) -> bool:
        """An order at WeChat Pay closes by itself at its expiry: the first query says so, and
        nothing is left to close. Only Stripe has disputes. How a payment was made does not matter
        to its refunds."""
        if self.activity == DISPUTES:
            return self.gateway is GatewayName.STRIPE
        if self.activity == DISCOVER:
            return self.method is not PaymentMethod.PAGE
        closing = ("before_close", "after_close", "after_requery")
        is_closing = self.activity == CLOSE and self.place in closing
        return not (
            is_closing and self.gateway is GatewayName.WECHATPAY and self.journey == "expired"
        )


def gateway_cells() -> Iterator[Cell]:
    for (gateway, method), (journey, activities) in itertools.product(METHODS, JOURNEYS.items()):
        for activity in activities:
            for place in PLACES[activity]:
                cell = Cell(gateway, method, journey, activity, place)
                if cell.is_reachable:
                    yield cell
