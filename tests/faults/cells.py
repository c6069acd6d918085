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
SWITCH: Final = "payment.switch"
ASK_REFUND: Final = "refund.ask"
SETTLE_REFUND: Final = "refund.settle"
SPEND: Final = "points.spend"
DISCOVER: Final = "refund.discover"

PLACES: Final = {
    OPEN: ("before", "before_open", "after_open", "after"),
    # Before the commit, where there are points to be credited with it.
    SETTLE: ("before", "before_query", "after_query", "before_commit", "after"),
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
    SWITCH: ("before", "before_open", "after_open", "after"),
    ASK_REFUND: ("before", "before_refund", "after_refund", "after"),
    SETTLE_REFUND: ("before", "before_query_refund", "after_query_refund", "after"),
    DISCOVER: ("before", "before_list_refunds", "after_list_refunds", "after"),
    END: ("before", "after"),
    FLAG: ("before", "after"),
    SPEND: ("before", "before_commit", "after"),
}
REFUSED_SPEND: Final = ("before",)
"""The places of a spend that is refused: past them nothing happens that could be lost."""
JOURNEYS: Final = {
    "paid": (OPEN, SETTLE),
    "canceled": (OPEN, CLOSE),
    "expired": (OPEN, CLOSE),
    "disputed": (DISPUTES,),
    "switched": (SWITCH,),
    "returned": (SETTLE, ASK_REFUND, SETTLE_REFUND),
    "refunded": (DISCOVER,),
    "bought": (SETTLE,),
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
        nothing is left to close. Only Stripe has disputes, and only there no order can be paid that
        was canceled; Alipay refunds at once, and is not asked again. One method of a gateway stands
        for all where the method makes no difference. Only a settlement that credits points has a
        place right before its commit."""
        if self.place == "before_commit" and self.journey != "bought":
            return False
        if self.activity == DISPUTES:
            return self.gateway is GatewayName.STRIPE
        if self.journey in ("switched", "returned", "refunded") and (
            self.method is PaymentMethod.PAGE
        ):
            return False
        if self.journey == "returned" and self.gateway is GatewayName.STRIPE:
            return False
        if self.activity == SETTLE_REFUND:
            return self.gateway is GatewayName.WECHATPAY
        closing = ("before_close", "after_close", "after_requery")
        is_closing = self.activity == CLOSE and self.place in closing
        return not (
            is_closing and self.gateway is GatewayName.WECHATPAY and self.journey == "expired"
        )

    @property
    def is_alike(self) -> bool:
        """Whether another cell has the same death: an order is placed alike whatever comes of it,
        Alipay asked alike for each of its methods, and a payment for points settled like any other
        until they are credited."""
        if self.journey == "bought" and self.place != "before_commit":
            return True
        if self.method is PaymentMethod.PAGE:
            return self.journey != "paid"
        return self.activity == OPEN and self.journey != "paid"


def gateway_cells(*, is_soak: bool = False) -> Iterator[Cell]:
    """The soak has those that are like another one as well."""
    for (gateway, method), (journey, activities) in itertools.product(METHODS, JOURNEYS.items()):
        for activity in activities:
            for place in PLACES[activity]:
                cell = Cell(gateway, method, journey, activity, place)
                if cell.is_reachable and (is_soak or not cell.is_alike):
                    yield cell
