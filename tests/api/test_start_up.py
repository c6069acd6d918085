"""What the API tells operators when it starts."""

from structlog.testing import capture_logs

from api.app import tell_webhook_addresses
from billing.payment import GatewayName
from runtime.settings import load_settings
from tests.fixtures.house import environment

KEYS = {
    "DATABASE_URL": "postgresql://everbill:password@127.0.0.1:9/everbill",
    "EVERBILL_PUBLIC_URL": "https://pay.example.com/",
    "EVERBILL_STRIPE_SECRET_KEY": "sk_test_0123456789abcdef",
    "EVERBILL_STRIPE_PUBLISHABLE_KEY": "pk_test_0123456789abcdef",
    "EVERBILL_STRIPE_WEBHOOK_SECRETS": "whsec_0123456789abcdef",
}


def test_it_tells_where_the_gateways_reach_it() -> None:
    with environment(KEYS), capture_logs() as told:
        tell_webhook_addresses(load_settings(), GatewayName)
    base = "https://pay.example.com/api/v1/payment/webhook"
    assert [line["addresses"] for line in told if line["event"] == "webhook_addresses"] == [
        {name: f"{base}/{name}" for name in ("stripe", "alipay", "wechatpay")}
    ]
