"""A merchant who has payers save their cards, and charges them without the payer."""

import json
from dataclasses import dataclass
from typing import Any

import stripe

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import WebhookReceiver

METHOD_ID = "pm_01jd0000000000000000000001"


@dataclass
class Saver:
    client: stripe.StripeClient
    sandbox: SandboxProcess

    async def customer(self) -> str:
        return (await self.client.v1.customers.create_async({})).id

    async def ask(self, customer: str, method_id: str = METHOD_ID) -> stripe.SetupIntent:
        """A SetupIntent that waits for the payer."""
        return await self.client.v1.setup_intents.create_async(
            {
                "allowed_payment_method_types": ["card"],
                "customer": customer,
                "usage": "off_session",
                "metadata": {"method_id": method_id, "number": "1"},
            }
        )

    async def save(self, card: str = "4242424242424242") -> stripe.PaymentMethod:
        """A new customer's card, which passes 3-D Secure where it is asked for."""
        setup = await self.ask(await self.customer())
        told = await self.sandbox.pay(gateway="stripe", reference=METHOD_ID, card=card)
        if told["status"] == "requires_action":
            await self.authenticate(METHOD_ID, succeeded=True)
        saved = await self.client.v1.setup_intents.retrieve_async(setup.id)
        return await self.client.v1.payment_methods.retrieve_async(str(saved.payment_method))

    async def authenticate(self, reference: str, *, succeeded: bool) -> dict[str, Any]:
        answer = await self.sandbox.control.post(
            "/control/authenticate",
            json={"gateway": "stripe", "reference": reference, "succeeded": succeeded},
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def charge(
        self, method: stripe.PaymentMethod, payment_id: str = "pay_01", key: str | None = None
    ) -> stripe.PaymentIntent:
        return await self.client.v1.payment_intents.create_async(
            {
                "amount": 2900,
                "currency": "usd",
                "allowed_payment_method_types": ["card"],
                "customer": str(method.customer),
                "payment_method": method.id,
                "off_session": True,
                "confirm": True,
                "metadata": {"payment_id": payment_id, "attempt": "1"},
            },
            {"idempotency_key": key} if key else {},
        )

    async def outcome(self, method: stripe.PaymentMethod, payment_id: str = "pay_01") -> str:
        """`succeeded`, or the decline code of a charge."""
        try:
            return (await self.charge(method, payment_id)).status
        except stripe.CardError as problem:
            return str(problem.error and problem.error.decline_code)

    async def steer(self, reference: str = METHOD_ID, **options: Any) -> int:
        """`POST /control/mandate`; its status."""
        wanted = {"gateway": "stripe", "reference": reference, **options}
        return (await self.sandbox.control.post("/control/mandate", json=wanted)).status_code


async def events(receiver: WebhookReceiver, count: int) -> list[dict[str, Any]]:
    """The next webhooks, by type: those of different objects may overtake each other."""
    received = [json.loads((await receiver.next()).body) for _ in range(count)]
    return sorted(received, key=lambda event: str(event["type"]))
