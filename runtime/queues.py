"""Task queues: one for workflows and records, one for each gateway."""

from typing import Final

from billing.payment import GatewayName

CORE: Final = "everbill"


def gateway_queue(gateway: GatewayName) -> str:
    """Apart, so that each gateway is rate limited by itself and one outage blocks no other."""
    return f"gateway-{gateway.value}"
