"""Card payments by Stripe PaymentIntents (API 2026-10-28.endive, through the official SDK).

The payer confirms in the browser with the client secret; a declined try leaves the PaymentIntent
waiting for another. One PaymentIntent is one attempt: its metadata carries payment id and attempt
number, and its idempotency key comes from both, so that a repeat gets the same one.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Final

import stripe

from billing.errors import InstructionsLost, OutcomeUnknown
from billing.identifiers import gateway_key
from billing.payment import ClientSecret, GatewayName, PaymentMethod
from gateways.clock import Clock
from gateways.gateway import (
    AlreadyOrdered,
    Capabilities,
    DisputeObservation,
    Observation,
    ObservedState,
    Opened,
    OpenOutcome,
    Order,
    RefundObservation,
    RefundOrder,
    Refused,
    ToldRefunds,
)
from gateways.mandates import Mandates
from gateways.meaning import Meaning
from gateways.stripe.amounts import to_stripe
from gateways.stripe.charges import StripeCharges
from gateways.stripe.connection import KEY_LIFE, SdkTransport, read_error
from gateways.stripe.disputes import StripeDisputes
from gateways.stripe.intents import StripeIntents
from gateways.stripe.mandates import StripeMandates
from gateways.stripe.objects import IntentView, read
from gateways.stripe.outcomes import decline_of, not_whole, refusal_of, state_of
from gateways.stripe.refunds import StripeRefunds

ABSENT_FOR_GOOD: Final = timedelta(seconds=60)
"""An order still unknown to Stripe this long past its expiry will never be placed."""

_ABSENT: Final = "absent"


class StripeGateway:
    """One Stripe account. `publishable_key` goes to the payer's browser; `is_live` tells which
    mode the secret key belongs to."""

    name = GatewayName.STRIPE
    mandates: Mandates | None
    capabilities = Capabilities(
        methods=frozenset({PaymentMethod.CARD, PaymentMethod.SAVED}),
        currencies=None,
        disputes=True,
    )

    def __init__(
        self,
        client: stripe.StripeClient,
        transport: SdkTransport,
        *,
        publishable_key: str,
        is_live: bool,
        clock: Clock,
    ) -> None:
        self._creation = client.v1.payment_intents
        self._intents = StripeIntents(client, is_live=is_live, clock=clock)
        self._charges = StripeCharges(
            client, self._intents, publishable_key=publishable_key, clock=clock
        )
        self.mandates = StripeMandates(
            client, publishable_key=publishable_key, is_live=is_live, clock=clock
        )
        self._refunds = StripeRefunds(client, clock)
        self._disputes = StripeDisputes(client, is_live=is_live)
        self._transport = transport
        self._publishable_key = publishable_key
        self._clock = clock

    async def open(self, order: Order) -> OpenOutcome:
        """See `Gateway.open`. Raises InstructionsLost where Stripe keeps repeating a failure of
        its own under this attempt's key, and no PaymentIntent came of it."""
        if order.method is PaymentMethod.SAVED:
            return await self._charges.open(order)
        if self._clock() - order.created_at < KEY_LIFE:
            return await self._create(order, "open")
        intent = await self._intents.find(order)
        if intent is not None:
            return self._opened(order, intent)
        return await self._create(order, "reopen")

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        """See `Gateway.query`. `gateway_number` is a PaymentIntent's id or a charge's."""
        if gateway_number is not None:
            intent = await self._intents.find_evidence(order, gateway_number)
            return self._intents.observe(order, intent) if intent else _absent(ObservedState.ABSENT)
        intent = await self._intents.find(order)
        if intent is not None:
            return self._intents.observe(order, intent)
        # Nobody has the instructions of an order that Stripe never saw.
        is_over = self._clock() >= order.expires_at + ABSENT_FOR_GOOD
        return _absent(ObservedState.DEAD if is_over else ObservedState.ABSENT)

    async def close(self, order: Order) -> None:
        """See `Gateway.close`."""
        reference = await self._intents.reference(order)
        if reference is not None:
            await self._intents.cancel(reference)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.refund`."""
        return await self._refunds.refund(order)

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.query_refund`."""
        return await self._refunds.query(order)

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        """See `Gateway.list_refunds`: Stripe lists every one, and needs no hints."""
        reference = await self._intents.reference(order)
        if reference is None:
            return ToldRefunds()
        return await self._refunds.listed(order, reference)

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        """See `Gateway.list_disputes`."""
        reference = await self._intents.reference(order)
        return [] if reference is None else await self._disputes.of(order, reference)

    async def aclose(self) -> None:
        """See `Gateway.aclose`."""
        await self._transport.close_async()

    async def _create(self, order: Order, step: str) -> OpenOutcome:
        amount = to_stripe(order.amount_minor, order.currency)
        if amount is None:
            return Refused(not_whole(order.currency))
        try:
            created = await self._creation.create_async(
                {
                    "amount": amount,
                    "currency": order.currency.lower(),
                    "allowed_payment_method_types": ["card"],
                    "capture_method": "automatic",
                    "description": order.description,
                    "metadata": {"payment_id": order.payment_id, "attempt": str(order.attempt)},
                },
                {"idempotency_key": gateway_key(order.payment_id, order.attempt, step)},
            )
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return self._opened(order, read(IntentView, created))
        if answer.meaning is Meaning.ORDERED or (
            answer.meaning is Meaning.UNKNOWN and answer.is_replayed
        ):
            return await self._recover(order, answer.detail)
        if answer.meaning in (Meaning.REFUSED, Meaning.ABSENT):
            return Refused(refusal_of(answer.error))
        if answer.meaning is Meaning.DECLINED:
            return Refused(decline_of(answer.error))
        return answer.raise_as_error()

    async def _recover(self, order: Order, detail: str) -> OpenOutcome:
        """The key will not bring the order back: find it, or tell that it is lost."""
        intent = await self._intents.find(order)
        if intent is None:
            raise InstructionsLost(
                f"{order.number} has no PaymentIntent, and its key is used up: {detail}"
            )
        return self._opened(order, intent)

    def _opened(self, order: Order, intent: IntentView) -> OpenOutcome:
        self._intents.check_ordered(order, intent)
        if state_of(intent.status) is not ObservedState.PENDING:
            return AlreadyOrdered(intent.id)
        if not intent.client_secret:
            raise OutcomeUnknown(f"Stripe gave no client secret for {intent.id}")
        return Opened(
            ClientSecret(client_secret=intent.client_secret, publishable_key=self._publishable_key),
            reference=intent.id,
        )


def _absent(state: ObservedState) -> Observation:
    return Observation(state=state, status=_ABSENT)
