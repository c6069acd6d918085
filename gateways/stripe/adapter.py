"""Card payments by Stripe PaymentIntents (API 2026-10-28.endive, through the official SDK).

The payer confirms in the browser with the client secret; a declined try leaves the PaymentIntent
waiting for another. One PaymentIntent is one attempt: its metadata carries payment id and attempt
number, and its idempotency key comes from both, so that a repeat gets the same one.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import stripe
from stripe.params import PaymentIntentListParams

from billing.errors import AnswerUntrusted, InstructionsLost, OutcomeUnknown
from billing.identifiers import gateway_key
from billing.payment import ClientSecret, DeclineClass, Failure, GatewayName, PaymentMethod
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
    Receipt,
    RefundObservation,
    RefundOrder,
    Refused,
    ToldRefunds,
    check_receipt,
)
from gateways.mandates import Mandates
from gateways.meaning import Meaning
from gateways.stripe.amounts import from_stripe, to_stripe
from gateways.stripe.connection import SdkTransport, read_error
from gateways.stripe.disputes import StripeDisputes
from gateways.stripe.objects import (
    ChargeView,
    IntentPage,
    IntentView,
    belongs_to,
    read,
)
from gateways.stripe.outcomes import decline_of, refusal_of, state_of
from gateways.stripe.refunds import StripeRefunds

KEY_LIFE: Final = timedelta(hours=23)
"""Stripe may forget an idempotency key after 24 hours; sent again, it would be a new order."""

ABSENT_FOR_GOOD: Final = timedelta(seconds=60)
"""An order still unknown to Stripe this long past its expiry will never be placed."""

_CLOCK_SKEW: Final = timedelta(minutes=5)
_PAGE_SIZE: Final = 100
_MOST_PAGES: Final = 20
_EXPAND: Final = "latest_charge"
_ABSENT: Final = "absent"


class StripeGateway:
    """One Stripe account. `publishable_key` goes to the payer's browser; `is_live` tells which
    mode the secret key belongs to."""

    name = GatewayName.STRIPE
    mandates: Mandates | None = None
    capabilities = Capabilities(
        methods=frozenset({PaymentMethod.CARD}), currencies=None, disputes=True
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
        self._intents = client.v1.payment_intents
        self._charges = client.v1.charges
        self._refunds = StripeRefunds(client, clock)
        self._disputes = StripeDisputes(client, is_live=is_live)
        self._transport = transport
        self._publishable_key = publishable_key
        self._is_live = is_live
        self._clock = clock

    async def open(self, order: Order) -> OpenOutcome:
        """See `Gateway.open`. Raises InstructionsLost where Stripe keeps repeating a failure of
        its own under this attempt's key, and no PaymentIntent came of it."""
        if self._clock() - order.created_at < KEY_LIFE:
            return await self._create(order, "open")
        intent = await self._find(order)
        if intent is not None:
            return self._opened(order, intent)
        return await self._create(order, "reopen")

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        """See `Gateway.query`. `gateway_number` is a PaymentIntent's id or a charge's."""
        if gateway_number is not None:
            intent = await self._find_evidence(order, gateway_number)
            return self._observe(order, intent) if intent else _absent(ObservedState.ABSENT)
        intent = await self._find(order)
        if intent is not None:
            return self._observe(order, intent)
        # Nobody has the instructions of an order that Stripe never saw.
        is_over = self._clock() >= order.expires_at + ABSENT_FOR_GOOD
        return _absent(ObservedState.DEAD if is_over else ObservedState.ABSENT)

    async def close(self, order: Order) -> None:
        """See `Gateway.close`."""
        reference = order.reference
        if reference is None:
            intent = await self._find(order)
            if intent is None:
                return
            reference = intent.id
        try:
            # No key of ours: Stripe would repeat a first refusal under it for a day.
            await self._intents.cancel_async(reference, {"cancellation_reason": "abandoned"})
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return
        if answer.meaning is not Meaning.ORDERED:
            answer.raise_as_error()

    async def refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.refund`."""
        return await self._refunds.refund(order)

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.query_refund`."""
        return await self._refunds.query(order)

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        """See `Gateway.list_refunds`: Stripe lists every one, and needs no hints."""
        reference = await self._reference(order)
        if reference is None:
            return ToldRefunds()
        return await self._refunds.made_elsewhere(order, reference)

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        """See `Gateway.list_disputes`."""
        reference = await self._reference(order)
        return [] if reference is None else await self._disputes.of(order, reference)

    async def aclose(self) -> None:
        """See `Gateway.aclose`."""
        await self._transport.close_async()

    async def _create(self, order: Order, step: str) -> OpenOutcome:
        amount = to_stripe(order.amount_minor, order.currency)
        if amount is None:
            return Refused(
                Failure(
                    code="order_refused",
                    advice=DeclineClass.HARD,
                    message=f"Stripe takes whole {order.currency} only.",
                )
            )
        try:
            created = await self._intents.create_async(
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
        intent = await self._find(order)
        if intent is None:
            raise InstructionsLost(
                f"{order.number} has no PaymentIntent, and its key is used up: {detail}"
            )
        return self._opened(order, intent)

    def _opened(self, order: Order, intent: IntentView) -> OpenOutcome:
        try:
            self._check_identity(order, intent)
            self._check_terms(order, intent)
        except AnswerUntrusted as problem:
            raise OutcomeUnknown(f"not what was ordered: {problem.detail}") from None
        if state_of(intent.status) is not ObservedState.PENDING:
            return AlreadyOrdered()
        if not intent.client_secret:
            raise OutcomeUnknown(f"Stripe gave no client secret for {intent.id}")
        return Opened(
            ClientSecret(client_secret=intent.client_secret, publishable_key=self._publishable_key),
            reference=intent.id,
        )

    def _observe(self, order: Order, intent: IntentView) -> Observation:
        self._check_identity(order, intent)
        state = state_of(intent.status)
        error = intent.last_payment_error
        if state is not ObservedState.PAID:
            self._check_terms(order, intent)
            return Observation(
                state=state,
                status=intent.status,
                reference=intent.id,
                failure=decline_of(error) if error is not None else None,
            )
        # Wrong money is told first: only what was received can be given back.
        receipt = check_receipt(order, self._receipt(order, intent))
        self._check_terms(order, intent)
        return Observation(state=state, status=intent.status, reference=intent.id, receipt=receipt)

    def _receipt(self, order: Order, intent: IntentView) -> Receipt:
        charge, currency = intent.latest_charge, intent.currency.upper()
        amount_minor = from_stripe(intent.amount_received, currency)
        if amount_minor is None:
            raise AnswerUntrusted(
                "amount_mismatch",
                f"{order.number}: Stripe reports {intent.amount_received} {currency} in its own"
                " units, a fraction of a minor unit",
            )
        if isinstance(charge, ChargeView):
            reference, paid_at = charge.id, datetime.fromtimestamp(charge.created, UTC)
        else:
            reference, paid_at = charge or intent.id, self._clock()
        return Receipt(reference, amount_minor, currency, paid_at)

    def _check_identity(self, order: Order, intent: IntentView) -> None:
        if not belongs_to(intent.metadata, order.payment_id, order.attempt):
            raise AnswerUntrusted(
                "order_mismatch",
                f"{intent.id} was not made for attempt {order.attempt} of {order.payment_id}",
            )
        if intent.livemode is not self._is_live:
            raise AnswerUntrusted(
                "merchant_mismatch",
                f"{intent.id} is not of the mode (test or live) of EVERBILL_STRIPE_SECRET_KEY",
            )

    def _check_terms(self, order: Order, intent: IntentView) -> None:
        if intent.currency != order.currency.lower():
            raise AnswerUntrusted(
                "currency_mismatch",
                f"{order.number} asks for {order.currency}, {intent.id} for"
                f" {intent.currency.upper()}",
            )
        if intent.amount != to_stripe(order.amount_minor, order.currency):
            raise AnswerUntrusted(
                "amount_mismatch",
                f"{order.number} asks for {order.amount_minor} {order.currency} in minor units,"
                f" {intent.id} for {intent.amount} in Stripe's",
            )

    async def _find(self, order: Order) -> IntentView | None:
        """The attempt's PaymentIntent; None where Stripe never made one."""
        if order.reference is None:
            return await self._look_up(order)
        try:
            found = await self._intents.retrieve_async(order.reference, {"expand": [_EXPAND]})
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return _checked_id(read(IntentView, found), order.reference)
        # Including ABSENT: what Stripe once named is not gone, so this is not its account.
        return answer.raise_as_error()

    async def _reference(self, order: Order) -> str | None:
        if order.reference is not None:
            return order.reference
        intent = await self._find(order)
        return None if intent is None else intent.id

    async def _look_up(self, order: Order) -> IntentView | None:
        """Go through the PaymentIntents made since the order. Search would be one call, but may
        lag behind by minutes; a list never does."""
        newest = min(self._clock(), order.expires_at) + _CLOCK_SKEW
        wanted: PaymentIntentListParams = {
            "created": {
                "gte": int((order.created_at - _CLOCK_SKEW).timestamp()),
                "lte": int(newest.timestamp()),
            },
            "limit": _PAGE_SIZE,
            "expand": [f"data.{_EXPAND}"],
        }
        for _ in range(_MOST_PAGES):
            page = await self._page(wanted)
            for listed in page.data:
                if belongs_to(listed.get("metadata"), order.payment_id, order.attempt):
                    return read(IntentView, listed)
            if not page.has_more or not page.data:
                return None
            wanted["starting_after"] = str(page.data[-1].get("id"))
        raise OutcomeUnknown(
            f"{order.number} is not among the {_PAGE_SIZE * _MOST_PAGES} PaymentIntents looked"
            " through, and there are more"
        )

    async def _page(self, wanted: PaymentIntentListParams) -> IntentPage:
        try:
            return read(IntentPage, await self._intents.list_async(wanted))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        return answer.raise_as_error()

    async def _find_evidence(self, order: Order, number: str) -> IntentView | None:
        """The PaymentIntent an operator pointed at, by its own id or by its charge's."""
        try:
            if number.startswith("ch_"):
                charge = read(ChargeView, await self._charges.retrieve_async(number))
                if charge.payment_intent is None:
                    return None
                number = charge.payment_intent
            if not number.startswith("pi_"):
                raise AnswerUntrusted(
                    "order_mismatch",
                    f"{number!r} given as evidence for {order.number} is neither a PaymentIntent"
                    " (pi_…) nor a charge (ch_…)",
                )
            found = await self._intents.retrieve_async(number, {"expand": [_EXPAND]})
            return _checked_id(read(IntentView, found), number)
        except stripe.StripeError as problem:
            answer = read_error(problem)
        if answer.meaning is Meaning.ABSENT:
            return None
        return answer.raise_as_error()


def _absent(state: ObservedState) -> Observation:
    return Observation(state=state, status=_ABSENT)


def _checked_id(intent: IntentView, asked_for: str) -> IntentView:
    if intent.id != asked_for:
        raise AnswerUntrusted(
            "order_mismatch", f"Stripe was asked about {asked_for} and answers with {intent.id}"
        )
    return intent
