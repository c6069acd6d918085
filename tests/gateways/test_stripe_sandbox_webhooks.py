"""What the sandbox sends arrives where the registry says, and passes the verifier."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.payment import GatewayName, PaymentMethod
from gateways.gateway import Notification, Opened, WebhookRefused
from gateways.registry import build_gateways, build_verifiers, notify_url
from runtime.settings import Settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.mailbox import Mailbox
from tests.gateways.parties import NUMBER, make_order


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def sandbox_public_url(mailbox: Mailbox) -> AsyncIterator[str]:
    server = await asyncio.start_server(mailbox.take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_webhooks_of_a_payment_name_its_order(
    sandbox: SandboxProcess, sandbox_settings: Settings, sandbox_public_url: str, mailbox: Mailbox
) -> None:
    now = datetime.now(UTC)
    order = make_order(
        PaymentMethod.CARD,
        attempt=3,
        number=f"{NUMBER}03",
        description='{"会员"} &+= 1',
        currency="USD",
        created_at=now,
        expires_at=now + timedelta(hours=1),
    )
    gateway = build_gateways(sandbox_settings)[GatewayName.STRIPE]
    outcome = await gateway.open(order)
    await gateway.aclose()
    assert isinstance(outcome, Opened)
    await sandbox.pay(gateway="stripe", next_action=outcome.next_action.model_dump())

    settings = sandbox_settings.model_copy(update={"public_url": sandbox_public_url})
    address = notify_url(settings, GatewayName.STRIPE)
    verifier = build_verifiers(settings)[GatewayName.STRIPE]
    told: list[Notification] = []
    for _ in range(3):
        arrived = await mailbox.delivered.get()
        assert f"{sandbox_public_url}{arrived.path}" == address
        told.append(verifier.verify(arrived.headers, arrived.body, datetime.now(UTC)))
        with pytest.raises(WebhookRefused):
            verifier.verify(arrived.headers, arrived.body + b" ", datetime.now(UTC))
    assert {notification.event_type: notification.number for notification in told} == {
        "payment_intent.created": None,
        "charge.succeeded": None,
        "payment_intent.succeeded": order.number,
    }
    assert len({notification.event_id for notification in told}) == 3
