"""What a subscription's charges come to at least."""

import pytest

from billing.charges import least_charge, minimum_of
from billing.payment import GatewayName, PaymentMethod
from billing.subscription_messages import PaymentWay, SubscriptionTerms
from tests.billing.subscriptions import running


@pytest.mark.parametrize(
    ("gateway", "currency", "least"),
    [
        (GatewayName.STRIPE, "USD", 50),
        (GatewayName.STRIPE, "CNY", 400),
        (GatewayName.ALIPAY, "CNY", 1),
        (GatewayName.WECHATPAY, "CNY", 1),
    ],
)
def test_the_least_charge(gateway: GatewayName, currency: str, least: int) -> None:
    assert least_charge(gateway, currency) == least


def test_the_gateway_it_is_at_now_decides() -> None:
    """What was agreed on at the sign-up holds at the gateway that it was agreed for."""
    found = running()
    way = PaymentWay(gateway=GatewayName.ALIPAY, method=PaymentMethod.QR)
    terms = SubscriptionTerms(way=way, minimum=7)
    at_alipay = found.model_copy(update={"gateway": GatewayName.ALIPAY})
    moved = found.model_copy(update={"gateway": GatewayName.STRIPE})
    assert (minimum_of(at_alipay, terms), minimum_of(moved, terms)) == (7, 400)
