"""The PaymentIntents of one Stripe account: found for an attempt, checked against it, canceled."""

from datetime import UTC, datetime, timedelta
from typing import Final

import stripe
from stripe.params import PaymentIntentListParams, PaymentIntentSearchParams

from billing.errors import AnswerUntrusted, OutcomeUnknown
from gateways.clock import Clock
from gateways.gateway import Observation, ObservedState, Order, Receipt, check_receipt
from gateways.meaning import Meaning
from gateways.stripe.amounts import from_stripe, to_stripe
from gateways.stripe.connection import CLOCK_SKEW, MOST_PAGES, PAGE_SIZE, read_error
from gateways.stripe.objects import ChargeView, IntentPage, IntentView, belongs_to, read
from gateways.stripe.outcomes import decline_of, state_of

WITH_CHARGE: Final = "latest_charge"
"""To be expanded, for a receipt's reference and time."""

SEARCH_LAG: Final = timedelta(days=1)
"""How old at least is what search knows for sure: Stripe speaks of an hour in its worst times."""


class StripeIntents:
    """`is_live` tells which mode (live or test) the account's secret key belongs to."""

    def __init__(self, client: stripe.StripeClient, *, is_live: bool, clock: Clock) -> None:
        self._intents = client.v1.payment_intents
        self._charges = client.v1.charges
        self._is_live = is_live
        self._clock = clock

    async def find(self, order: Order) -> IntentView | None:
        """The attempt's PaymentIntent; None where Stripe never made one."""
        if order.reference is None:
            return await self._look_up(order)
        return await self.retrieve(order.reference)

    async def reference(self, order: Order) -> str | None:
        """What Stripe calls the attempt's PaymentIntent; None where it never made one."""
        if order.reference is not None:
            return order.reference
        intent = await self.find(order)
        return None if intent is None else intent.id

    async def retrieve(self, intent_id: str) -> IntentView:
        """A PaymentIntent that Stripe has named before."""
        try:
            found = await self._intents.retrieve_async(intent_id, {"expand": [WITH_CHARGE]})
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return _checked_id(read(IntentView, found), intent_id)
        # Including ABSENT: what Stripe once named is not gone, so this is not its account.
        return answer.raise_as_error()

    async def find_evidence(self, order: Order, number: str) -> IntentView | None:
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
            found = await self._intents.retrieve_async(number, {"expand": [WITH_CHARGE]})
            return _checked_id(read(IntentView, found), number)
        except stripe.StripeError as problem:
            answer = read_error(problem)
        if answer.meaning is Meaning.ABSENT:
            return None
        return answer.raise_as_error()

    async def cancel(self, intent_id: str) -> None:
        """Ask that it take no money. Returns also where Stripe will not cancel it any more."""
        try:
            # No key of ours: Stripe would repeat a first refusal under it for a day.
            await self._intents.cancel_async(intent_id, {"cancellation_reason": "abandoned"})
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return
        if answer.meaning is not Meaning.ORDERED:
            answer.raise_as_error()

    def check_identity(self, order: Order, intent: IntentView) -> None:
        """Raises AnswerUntrusted where it was made for something else, or in another mode."""
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

    def check_terms(self, order: Order, intent: IntentView) -> None:
        """Raises AnswerUntrusted where it asks for other money."""
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

    def check_ordered(self, order: Order, intent: IntentView) -> None:
        """Raises OutcomeUnknown where an answer to an order is about another one."""
        try:
            self.check_identity(order, intent)
            self.check_terms(order, intent)
        except AnswerUntrusted as problem:
            raise OutcomeUnknown(f"not what was ordered: {problem.detail}") from None

    def observe(self, order: Order, intent: IntentView) -> Observation:
        """What the PaymentIntent says of the attempt. Raises AnswerUntrusted."""
        self.check_identity(order, intent)
        state = state_of(intent.status)
        error = intent.last_payment_error
        if state is not ObservedState.PAID:
            self.check_terms(order, intent)
            return Observation(
                state=state,
                status=intent.status,
                reference=intent.id,
                failure=decline_of(error) if error is not None else None,
            )
        # Wrong money is told first: only what was received can be given back.
        receipt = check_receipt(order, self._receipt(order, intent))
        self.check_terms(order, intent)
        return Observation(state=state, status=intent.status, reference=intent.id, receipt=receipt)

    async def _look_up(self, order: Order) -> IntentView | None:
        """Go through the PaymentIntents made since the order. Search would be one call, but lags
        behind; a list never does. Where there are more than can be gone through, search decides."""
        # A charge may be asked for past its expiry, which is its payer's alone.
        newest = self._clock() if order.mandate else min(self._clock(), order.expires_at)
        wanted: PaymentIntentListParams = {
            "created": {
                "gte": int((order.created_at - CLOCK_SKEW).timestamp()),
                "lte": int((newest + CLOCK_SKEW).timestamp()),
            },
            "limit": PAGE_SIZE,
            "expand": [f"data.{WITH_CHARGE}"],
        }
        if order.mandate is not None and order.mandate.customer_reference is not None:
            wanted["customer"] = order.mandate.customer_reference
        for _ in range(MOST_PAGES):
            page = await self._page(wanted)
            for listed in page.data:
                if belongs_to(listed.get("metadata"), order.payment_id, order.attempt):
                    return read(IntentView, listed)
            if not page.has_more or not page.data:
                return None
            wanted["starting_after"] = str(page.data[-1].get("id"))
        found = await self._search(order)
        if found is None and self._clock() < newest + CLOCK_SKEW + SEARCH_LAG:
            raise OutcomeUnknown(
                f"{order.number} is not among the {PAGE_SIZE * MOST_PAGES} PaymentIntents looked"
                " through, and there are more, which search may not know yet"
            )
        return found

    async def _search(self, order: Order) -> IntentView | None:
        """What search finds is there, as it once was; what it does not find may have been made of
        late. Raises OutcomeUnknown also where Stripe does not let the account search."""
        wanted: PaymentIntentSearchParams = {
            "query": f'metadata["payment_id"]:"{order.payment_id}"'
            f' AND metadata["attempt"]:"{order.attempt}"',
            "limit": PAGE_SIZE,
        }
        try:
            page = read(IntentPage, await self._intents.search_async(wanted))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            for found in page.data:
                if belongs_to(found.get("metadata"), order.payment_id, order.attempt):
                    return await self.retrieve(str(found.get("id")))
            if page.has_more:
                raise OutcomeUnknown(
                    f"{order.number} is not among the {len(page.data)} PaymentIntents that search"
                    " finds first, and it finds more"
                )
            return None
        if answer.meaning is Meaning.THROTTLED:
            answer.raise_as_error()
        # Not every account may search, and all else works for those that may not.
        raise OutcomeUnknown(
            f"{order.number} is not among the {PAGE_SIZE * MOST_PAGES} PaymentIntents looked"
            f" through, and search (/v1/payment_intents/search) does not answer: {answer.detail}"
        )

    async def _page(self, wanted: PaymentIntentListParams) -> IntentPage:
        try:
            return read(IntentPage, await self._intents.list_async(wanted))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        return answer.raise_as_error()

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


def _checked_id(intent: IntentView, asked_for: str) -> IntentView:
    if intent.id != asked_for:
        raise AnswerUntrusted(
            "order_mismatch", f"Stripe was asked about {asked_for} and answers with {intent.id}"
        )
    return intent
