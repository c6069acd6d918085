"""Saved cards: SetupIntents, and the PaymentMethods that they attach to a Customer for later use.

One saved method is one SetupIntent: its metadata carries the method's id and number, and its
idempotency key comes from the number, so that a repeat gets the same one. What may be charged is
the PaymentMethod, for as long as it is attached; once detached it never is again.
"""

import hashlib
from datetime import UTC, date, datetime
from typing import Final

import stripe
from stripe.params import SetupIntentListParams

from billing.errors import AnswerUntrusted, InvalidRequest, OutcomeUnknown
from billing.method import CardFace
from billing.payment import ClientSecret
from gateways.clock import Clock
from gateways.gateway import AlreadyOrdered, Opened, Refused
from gateways.mandates import Mandate, MandateObservation, MandateOrder, MandateState
from gateways.meaning import Meaning
from gateways.stripe.connection import KEY_LIFE, MOST_PAGES, PAGE_SIZE, read_error
from gateways.stripe.objects import (
    MANDATE_METHOD,
    MANDATE_NUMBER,
    CardView,
    CustomerView,
    ErrorView,
    SavedCardView,
    SetupPage,
    SetupView,
    read,
)
from gateways.stripe.outcomes import decline_of, setup_refusal_of, setup_state_of

_STEPS: Final = ("set_up", "set_up_again")
"""The keys of one SetupIntent, the second for where Stripe has forgotten or used up the first."""

_PROCESSING: Final = "processing"
_CANCELED: Final = ErrorView(code="canceled", message="The set-up was canceled at Stripe.")
_MOST_CUSTOMER_KEYS: Final = 3
_REFUSED: Final = (Meaning.REFUSED, Meaning.ABSENT, Meaning.ORDERED)


class StripeMandates:
    """See `gateways.mandates.Mandates`."""

    def __init__(
        self,
        client: stripe.StripeClient,
        *,
        publishable_key: str,
        is_live: bool,
        clock: Clock,
    ) -> None:
        self._customers = client.v1.customers
        self._setups = client.v1.setup_intents
        self._cards = client.v1.payment_methods
        self._publishable_key = publishable_key
        self._is_live = is_live
        self._clock = clock

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> str:
        """A Customer that holds nothing but our own names."""
        metadata = {"application": application, "user_id": user_id}
        for turn in range(1, _MOST_CUSTOMER_KEYS + 1):
            key = _customer_key(application, user_id, created_at, turn)
            try:
                created = await self._customers.create_async(
                    {"metadata": metadata}, {"idempotency_key": key}
                )
            except stripe.StripeError as problem:
                answer = read_error(problem)
            else:
                customer = read(CustomerView, created)
                if customer.livemode is not self._is_live:
                    raise OutcomeUnknown(f"{customer.id} is not of the secret key's mode")
                return customer.id
            # A failure kept under its key for a day is left behind: a Customer holds no money.
            if not (answer.is_replayed and answer.meaning is Meaning.UNKNOWN):
                break
        return answer.raise_as_error()

    async def set_up(self, order: MandateOrder) -> Opened | Refused | AlreadyOrdered:
        """A SetupIntent, which the payer confirms in the browser with its client secret. Stripe
        takes no limit and no rhythm."""
        if order.customer_reference is None:
            raise InvalidRequest("Stripe saves a card for a Customer only", param="user_id")
        mandate = Mandate(
            order.method_id, order.number, customer_reference=order.customer_reference
        )
        is_fresh = self._clock() - order.created_at < KEY_LIFE
        for step in _STEPS if is_fresh else _STEPS[1:]:
            if step != _STEPS[0]:
                found = await self._find(mandate)
                if found is not None:
                    return self._opened(mandate, found)
            outcome = await self._create(order, mandate, step)
            if outcome is not None:
                return outcome
        raise OutcomeUnknown(f"{order.number} has no SetupIntent, and its keys are used up")

    async def query(self, mandate: Mandate) -> MandateObservation:
        """See `Mandates.query`. Of what succeeded, the PaymentMethod tells whether it still may be
        charged, and its card, which the network may have replaced."""
        setup = await self._find(mandate)
        if setup is None:
            return MandateObservation(MandateState.ABSENT, "absent")
        self._check(mandate, setup)
        state = setup_state_of(setup.status)
        if state is MandateState.ACTIVE:
            return await self._observe_card(mandate, setup)
        error = setup.last_setup_error
        return MandateObservation(
            state,
            setup.status,
            reference=mandate.reference,
            failure=decline_of(error) if error is not None else None,
        )

    async def revoke(self, mandate: Mandate) -> None:
        """Detach the card, or cancel the SetupIntent that would save it. What is not this mandate's
        is left alone: the query that follows says so."""
        if mandate.reference is not None:
            return await self._detach(mandate.reference)
        setup = await self._find(mandate)
        if setup is None or not self._is_ours(mandate, setup):
            return None
        if setup_state_of(setup.status) is MandateState.PENDING:
            await self._cancel(setup.id)
            setup = await self._retrieve(setup.id)
        state = setup_state_of(setup.status)
        if state is MandateState.PENDING:
            raise OutcomeUnknown(f"{setup.id} is {setup.status}, and is not canceled yet")
        if state is MandateState.ACTIVE and setup.payment_method is not None:
            await self._detach(setup.payment_method)
        return None

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        """Stripe asks for no notice."""

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        """Stripe keeps no day of the next charge."""

    async def _create(
        self, order: MandateOrder, mandate: Mandate, step: str
    ) -> Opened | Refused | AlreadyOrdered | None:
        """None where the key will not bring a SetupIntent: there may be one all the same."""
        try:
            created = await self._setups.create_async(
                {
                    "allowed_payment_method_types": ["card"],
                    "customer": order.customer_reference or "",
                    "description": order.description,
                    "metadata": {MANDATE_METHOD: order.method_id, MANDATE_NUMBER: order.number},
                    "usage": "off_session",
                },
                {"idempotency_key": f"{order.number}:{step}"},
            )
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return self._opened(mandate, read(SetupView, created))
        if answer.meaning is Meaning.ORDERED or (
            answer.meaning is Meaning.UNKNOWN and answer.is_replayed
        ):
            return None
        if answer.meaning in (Meaning.REFUSED, Meaning.ABSENT):
            return Refused(setup_refusal_of(answer.error))
        return answer.raise_as_error()

    def _opened(self, mandate: Mandate, setup: SetupView) -> Opened | Refused | AlreadyOrdered:
        try:
            self._check(mandate, setup)
        except AnswerUntrusted as problem:
            raise OutcomeUnknown(f"not what was asked for: {problem.detail}") from None
        state = setup_state_of(setup.status)
        if state is MandateState.FAILED:
            error = setup.last_setup_error
            return Refused(decline_of(error) if error else setup_refusal_of(_CANCELED))
        if state is not MandateState.PENDING or setup.status == _PROCESSING:
            return AlreadyOrdered()
        if not setup.client_secret:
            raise OutcomeUnknown(f"Stripe gave no client secret for {setup.id}")
        return Opened(
            ClientSecret(client_secret=setup.client_secret, publishable_key=self._publishable_key),
            reference=setup.id,
        )

    async def _observe_card(self, mandate: Mandate, setup: SetupView) -> MandateObservation:
        reference = setup.payment_method or mandate.reference
        if reference is None:
            raise OutcomeUnknown(f"Stripe calls {setup.id} succeeded, without a PaymentMethod")
        saved = await self._saved(reference)
        if saved is None or saved.customer is None:
            word = "absent" if saved is None else "detached"
            return MandateObservation(MandateState.ENDED, word, reference=reference)
        if saved.customer != setup.customer:
            raise AnswerUntrusted(
                "mandate_mismatch", f"{reference} of {mandate.number} is another Customer's"
            )
        return MandateObservation(
            MandateState.ACTIVE,
            setup.status,
            reference=reference,
            card=_face_of(saved.card) if saved.card is not None else None,
        )

    async def _saved(self, reference: str) -> SavedCardView | None:
        """The PaymentMethod; None where Stripe knows none by that name."""
        try:
            found = read(SavedCardView, await self._cards.retrieve_async(reference))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            if found.id != reference:
                raise AnswerUntrusted(
                    "mandate_mismatch",
                    f"Stripe was asked about {reference} and answers with {found.id}",
                )
            return found
        return None if answer.meaning is Meaning.ABSENT else answer.raise_as_error()

    async def _detach(self, reference: str) -> None:
        try:
            await self._cards.detach_async(reference)
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return
        # What is detached cannot be detached, and has no code of its own for that.
        if answer.meaning not in _REFUSED:
            answer.raise_as_error()

    async def _cancel(self, setup_id: str) -> None:
        """Returns also where Stripe will not cancel it any more."""
        try:
            # No key of ours: Stripe would repeat a first refusal under it for a day.
            await self._setups.cancel_async(setup_id, {"cancellation_reason": "abandoned"})
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            return
        if answer.meaning not in _REFUSED:
            answer.raise_as_error()

    async def _find(self, mandate: Mandate) -> SetupView | None:
        """The mandate's SetupIntent; None where Stripe never made one."""
        if mandate.setup_reference is not None:
            return await self._retrieve(mandate.setup_reference)
        if mandate.customer_reference is None:
            return None
        wanted: SetupIntentListParams = {
            "customer": mandate.customer_reference,
            "limit": PAGE_SIZE,
        }
        for _ in range(MOST_PAGES):
            page = await self._page(wanted)
            for listed in page.data:
                metadata = listed.get("metadata")
                if isinstance(metadata, dict) and metadata.get(MANDATE_NUMBER) == mandate.number:
                    return read(SetupView, listed)
            if not page.has_more or not page.data:
                return None
            wanted["starting_after"] = str(page.data[-1].get("id"))
        raise OutcomeUnknown(
            f"{mandate.number} is not among the {PAGE_SIZE * MOST_PAGES} SetupIntents looked"
            " through, and there are more"
        )

    async def _page(self, wanted: SetupIntentListParams) -> SetupPage:
        try:
            return read(SetupPage, await self._setups.list_async(wanted))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        return answer.raise_as_error()

    async def _retrieve(self, setup_id: str) -> SetupView:
        try:
            found = read(SetupView, await self._setups.retrieve_async(setup_id))
        except stripe.StripeError as problem:
            answer = read_error(problem)
        else:
            if found.id != setup_id:
                raise AnswerUntrusted(
                    "mandate_mismatch",
                    f"Stripe was asked about {setup_id} and answers with {found.id}",
                )
            return found
        # Including ABSENT: what Stripe once named is not gone, so this is not its account.
        return answer.raise_as_error()

    def _is_ours(self, mandate: Mandate, setup: SetupView) -> bool:
        try:
            self._check(mandate, setup)
        except AnswerUntrusted:
            return False
        return True

    def _check(self, mandate: Mandate, setup: SetupView) -> None:
        """Raises AnswerUntrusted where the SetupIntent is another mandate's."""
        metadata = setup.metadata
        told = metadata.get(MANDATE_METHOD), metadata.get(MANDATE_NUMBER)
        if (
            told != (mandate.method_id, mandate.number)
            or mandate.customer_reference not in (None, setup.customer)
            or (setup.payment_method and mandate.reference not in (None, setup.payment_method))
        ):
            raise AnswerUntrusted(
                "mandate_mismatch", f"{setup.id} was not made for {mandate.number}"
            )
        if setup.livemode is not self._is_live:
            raise AnswerUntrusted(
                "merchant_mismatch",
                f"{setup.id} is not of the mode (test or live) of EVERBILL_STRIPE_SECRET_KEY",
            )


def _face_of(card: CardView) -> CardFace:
    return CardFace(
        brand=card.brand,
        last4=card.last4,
        expires_month=card.exp_month,
        expires_year=card.exp_year,
    )


def _customer_key(application: str, user_id: str, created_at: datetime, turn: int) -> str:
    """The idempotency key of a Customer; `turn` counts the keys of one."""
    moment = created_at.astimezone(UTC).isoformat()
    digest = hashlib.sha256(f"{application}\0{user_id}\0{moment}".encode()).hexdigest()
    return f"customer:{digest[:32]}:{turn:02d}"
