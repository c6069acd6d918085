"""Charges of saved cards: PaymentIntents confirmed as they are made, without the payer.

One attempt has one PaymentIntent and one idempotency key, so that an unknown outcome is repeated as
it was. A declined charge leaves a PaymentIntent that its client secret could still have paid, so a
refusal is believed only once that is canceled, or there is none.
"""

from typing import Final

import stripe

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    InstructionsLost,
    InvalidRequest,
    OutcomeUnknown,
)
from billing.identifiers import gateway_key
from billing.payment import ClientSecret, Failure
from gateways.clock import Clock
from gateways.gateway import (
    AlreadyOrdered,
    Observation,
    ObservedState,
    Opened,
    OpenOutcome,
    Order,
    Refused,
)
from gateways.meaning import Meaning
from gateways.stripe.amounts import to_stripe
from gateways.stripe.connection import KEY_LIFE, ErrorAnswer, read_error
from gateways.stripe.intents import WITH_CHARGE, StripeIntents
from gateways.stripe.objects import ChargeView, ErrorView, IntentView, read
from gateways.stripe.outcomes import (
    charge_refusal_of,
    decline_of,
    needs_payer,
    not_whole,
    state_of,
)

_WAITS_FOR_PAYER: Final = "requires_action"
_UNTOLD: Final = ErrorView()
_REFUSALS: Final = (Meaning.REFUSED, Meaning.ABSENT, Meaning.DECLINED)
_SETTLED: Final = (*_REFUSALS, Meaning.ORDERED)


class StripeCharges:
    """`publishable_key` goes to the payer's browser where their bank wants them there."""

    def __init__(
        self,
        client: stripe.StripeClient,
        intents: StripeIntents,
        *,
        publishable_key: str,
        clock: Clock,
    ) -> None:
        self._creation = client.v1.payment_intents
        self._intents = intents
        self._publishable_key = publishable_key
        self._clock = clock

    async def open(self, order: Order) -> OpenOutcome:
        """See `gateways.mandates`. Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured,
        InvalidRequest where there is no saved card to charge, and InstructionsLost where Stripe
        keeps repeating a failure of its own, and no PaymentIntent came of it."""
        mandate = order.mandate
        if mandate is None or mandate.reference is None or mandate.customer_reference is None:
            raise InvalidRequest("there is no saved card to charge", param="payment_method_id")
        if self._clock() - order.created_at < KEY_LIFE:
            step = "open"
        else:
            intent = await self._intents.find(order)
            if intent is not None:
                return await self._outcome(order, intent, intent.last_payment_error)
            step = "reopen"
        return await self._create(order, mandate.customer_reference, mandate.reference, step)

    async def _create(self, order: Order, customer: str, card: str, step: str) -> OpenOutcome:
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
                    "customer": customer,
                    "payment_method": card,
                    "off_session": True,
                    "confirm": True,
                    "description": order.description,
                    "metadata": {"payment_id": order.payment_id, "attempt": str(order.attempt)},
                    "expand": [WITH_CHARGE],
                },
                {"idempotency_key": gateway_key(order.payment_id, order.attempt, step)},
            )
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            intent = read(IntentView, created)
            return await self._outcome(order, intent, intent.last_payment_error)
        is_used_up = answer.meaning is Meaning.UNKNOWN and answer.is_replayed
        if is_used_up or answer.meaning in _SETTLED:
            return await self._not_created(order, answer)
        return answer.raise_as_error()

    async def _not_created(self, order: Order, answer: ErrorAnswer) -> OpenOutcome:
        """What an error comes to: Stripe keeps the PaymentIntent of a declined charge, and may
        refuse a repeat of what an earlier call, its answer lost, has taken."""
        is_refusal = answer.meaning in _REFUSALS
        try:
            named = answer.error.payment_intent
            intent = await (self._intents.retrieve(named) if named else self._intents.find(order))
        except (AnswerUntrusted, GatewayMisconfigured) as problem:
            raise OutcomeUnknown(f"{answer.detail}; then {problem.detail}") from problem
        if intent is not None:
            error = answer.error if is_refusal else intent.last_payment_error
            return await self._outcome(order, intent, error)
        if not is_refusal:
            raise InstructionsLost(
                f"{order.number} has no PaymentIntent, and its key is used up: {answer.detail}"
            )
        return Refused(_failure_of(answer.error))

    async def _outcome(
        self, order: Order, intent: IntentView, error: ErrorView | None
    ) -> OpenOutcome:
        """What the PaymentIntent comes to; one that only its payer could still pay is canceled,
        unless the payer is wanted."""
        self._intents.check_ordered(order, intent)
        state = state_of(intent.status)
        if state is ObservedState.PENDING:
            if intent.status == _WAITS_FOR_PAYER or (error is not None and needs_payer(error)):
                return self._opened(intent)
            intent = await self._canceled(intent)
            state = state_of(intent.status)
        if state is ObservedState.PENDING:
            raise OutcomeUnknown(f"{intent.id} was declined, and can still be paid")
        if state is ObservedState.DEAD:
            return Refused(_failure_of(error or _UNTOLD))
        return AlreadyOrdered(intent.id, self._seen(order, intent))

    def _seen(self, order: Order, intent: IntentView) -> Observation | None:
        """The receipt, where this answer is as good as that of a query: only what is paid stays
        so in an answer that Stripe repeats. What cannot be trusted is left to the query."""
        is_paid = state_of(intent.status) is ObservedState.PAID
        if not is_paid or not isinstance(intent.latest_charge, ChargeView):
            return None
        try:
            return self._intents.observe(order, intent)
        except AnswerUntrusted:
            return None

    async def _canceled(self, intent: IntentView) -> IntentView:
        """The PaymentIntent as it is once Stripe was asked to cancel it: paid, perhaps."""
        try:
            await self._intents.cancel(intent.id)
            return await self._intents.retrieve(intent.id)
        except (AnswerUntrusted, GatewayMisconfigured) as problem:
            # Told as it is, it would be a refusal of the charge.
            raise OutcomeUnknown(
                f"{intent.id} was declined, and is not known to be canceled: {problem.detail}"
            ) from problem

    def _opened(self, intent: IntentView) -> Opened:
        if not intent.client_secret:
            raise OutcomeUnknown(f"Stripe gave no client secret for {intent.id}")
        return Opened(
            ClientSecret(client_secret=intent.client_secret, publishable_key=self._publishable_key),
            reference=intent.id,
        )


def _failure_of(error: ErrorView) -> Failure:
    """A declined charge, or one that Stripe would not even try."""
    if error.type == "invalid_request_error":
        return charge_refusal_of(error)
    return decline_of(error)
