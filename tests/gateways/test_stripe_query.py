"""Asking about orders and closing them, against scripted answers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    OutcomeUnknown,
)
from billing.payment import ClientSecret, DeclineClass, PaymentMethod
from gateways.gateway import ObservedState
from gateways.mandates import Mandate
from gateways.stripe.adapter import StripeGateway
from gateways.stripe.connection import connect
from tests.gateways.parties import EXPIRES_AT, NOW, make_order
from tests.gateways.scripted_stripe import (
    CLIENT_SECRET,
    INTENT_ID,
    KEY,
    MISMATCHES,
    ORDER,
    Answer,
    Clock,
    Stripe,
    error,
    gateway_at,
    intent,
    ok,
    page,
    paid,
)


@pytest.fixture
async def gateway(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    async with gateway_at(scripted, clock) as gateway:
        yield gateway


@pytest.mark.parametrize(("reason", "changes"), MISMATCHES)
@pytest.mark.parametrize("status", ["succeeded", "requires_payment_method"])
async def test_an_answer_about_something_else_is_untrusted(
    gateway: StripeGateway, scripted: Stripe, status: str, reason: str, changes: dict[str, Any]
) -> None:
    known = make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID)
    scripted.answers = [ok(paid(status=status) | changes)]
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.query(known)
    assert caught.value.reason == reason


@pytest.mark.parametrize("received", [ORDER.amount_minor - 1, ORDER.amount_minor + 1, 0])
async def test_money_that_is_not_the_amount_is_untrusted(
    gateway: StripeGateway, scripted: Stripe, received: int
) -> None:
    scripted.answers = [page(paid(amount_received=received))]
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.query(ORDER)
    assert caught.value.reason == "amount_mismatch"


async def test_a_paid_order_has_its_receipt(gateway: StripeGateway, scripted: Stripe) -> None:
    known = make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID)
    scripted.answers = [ok(paid())]
    seen = await gateway.query(known)
    assert (seen.state, seen.status, seen.reference) == (
        ObservedState.PAID, "succeeded", INTENT_ID,
    )  # fmt: skip
    assert seen.receipt is not None
    assert seen.receipt.gateway_reference == "ch_1"
    assert (seen.receipt.amount_minor, seen.receipt.currency) == (2905, "USD")
    assert seen.receipt.paid_at.timestamp() == 1795394000
    assert scripted.calls == [f"GET /v1/payment_intents/{INTENT_ID}"]
    assert scripted.form() == {"expand[0]": "latest_charge"}


@pytest.mark.parametrize(("charge", "reference"), [("ch_2", "ch_2"), (None, INTENT_ID)])
async def test_a_receipt_without_its_charge_is_dated_now(
    gateway: StripeGateway, scripted: Stripe, charge: str | None, reference: str
) -> None:
    scripted.answers = [page(paid(latest_charge=charge))]
    seen = await gateway.query(ORDER)
    assert seen.receipt is not None
    assert (seen.receipt.gateway_reference, seen.receipt.paid_at) == (reference, NOW)


async def test_a_receipt_is_in_our_minor_units(gateway: StripeGateway, scripted: Stripe) -> None:
    krona = make_order(PaymentMethod.CARD, currency="ISK", amount_minor=29)
    scripted.answers = [page(paid(currency="isk", amount=2900, amount_received=2900))]
    seen = await gateway.query(krona)
    assert seen.receipt is not None
    assert seen.receipt.amount_minor == 29


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("requires_payment_method", ObservedState.PENDING),
        ("requires_action", ObservedState.PENDING),
        ("processing", ObservedState.PROCESSING),
        ("canceled", ObservedState.DEAD),
        ("requires_reflection", ObservedState.UNRECOGNISED),
    ],
)
async def test_an_unpaid_order_is_told_with_its_last_decline(
    gateway: StripeGateway, scripted: Stripe, status: str, state: ObservedState
) -> None:
    declined = {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}
    scripted.answers = [page(intent(status=status, last_payment_error=declined))]
    seen = await gateway.query(ORDER)
    assert (seen.state, seen.status, seen.reference, seen.receipt) == (
        state, status, INTENT_ID, None,
    )  # fmt: skip
    assert seen.failure is not None
    assert (seen.failure.decline_code, seen.failure.advice) == ("lost_card", DeclineClass.HARD)


async def test_an_order_is_found_pages_down(gateway: StripeGateway, scripted: Stripe) -> None:
    strangers = [intent(id=f"pi_{place}", metadata={"payment_id": "?"}) for place in range(3)]
    scripted.answers = [page(*strangers, has_more=True), page(intent())]
    seen = await gateway.query(ORDER)
    assert seen.reference == INTENT_ID
    assert scripted.form()["starting_after"] == "pi_2"
    first = scripted.form(0)
    assert first["limit"] == "100"
    assert int(first["created[gte]"]) <= NOW.timestamp() - 60
    assert int(first["created[lte]"]) >= NOW.timestamp() + 60
    assert first["expand[0]"] == "data.latest_charge"


class TestMoreThanCanBeLookedThrough:
    """Search is asked then: what it finds is there, and what it does not find may be, for a day."""

    @staticmethod
    def script(stripe: Stripe, *found: dict[str, Any], has_more: bool = False) -> None:
        stripe.answers = [page(intent(metadata={}), has_more=True) for _ in range(20)]
        result = {"object": "search_result", "data": found, "has_more": has_more}
        stripe.answers.append(ok(result))

    async def test_what_search_finds_is_it(self, gateway: StripeGateway, scripted: Stripe) -> None:
        stranger = intent(id="pi_other", metadata={"payment_id": ORDER.payment_id, "attempt": "2"})
        self.script(scripted, stranger, intent())
        scripted.answers.append(ok(paid()))
        seen = await gateway.query(ORDER)
        assert (seen.state, seen.reference) == (ObservedState.PAID, INTENT_ID)
        assert scripted.calls[-2:] == [
            "GET /v1/payment_intents/search",
            f"GET /v1/payment_intents/{INTENT_ID}",
        ]
        assert scripted.form(-2)["query"] == (
            f'metadata["payment_id"]:"{ORDER.payment_id}" AND metadata["attempt"]:"1"'
        )

    @pytest.mark.parametrize(
        "moment", [NOW, EXPIRES_AT + timedelta(minutes=1), EXPIRES_AT + timedelta(days=1)]
    )
    async def test_what_it_does_not_find_may_only_be_new(
        self, gateway: StripeGateway, scripted: Stripe, clock: Clock, moment: datetime
    ) -> None:
        clock.now = moment
        self.script(scripted)
        with pytest.raises(OutcomeUnknown, match="there are more"):
            await gateway.query(ORDER)

    @pytest.mark.parametrize("found", [(), (intent(metadata={}),)])
    async def test_where_search_finds_more_it_may_be_among_those(
        self, gateway: StripeGateway, scripted: Stripe, clock: Clock, found: tuple[Any, ...]
    ) -> None:
        clock.now = EXPIRES_AT + timedelta(days=2)
        self.script(scripted, *found, has_more=True)
        with pytest.raises(OutcomeUnknown, match="finds more"):
            await gateway.query(ORDER)

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            (error(400, message="Search is not available for your account."), OutcomeUnknown),
            (error(403), OutcomeUnknown),
            (error(404), OutcomeUnknown),
            (error(500), OutcomeUnknown),
            (error(429), GatewayThrottled),
        ],
    )
    async def test_where_search_is_not_to_be_had_nobody_knows(
        self, gateway: StripeGateway, scripted: Stripe, answer: Answer, problem: type[Exception]
    ) -> None:
        """As in countries where Stripe has none: the account and its key are all right."""
        self.script(scripted)
        scripted.answers[-1] = answer
        with pytest.raises(problem, match="search" if problem is OutcomeUnknown else "429"):
            await gateway.query(ORDER)

    async def test_after_a_day_it_was_never_placed(
        self, gateway: StripeGateway, scripted: Stripe, clock: Clock
    ) -> None:
        clock.now = EXPIRES_AT + timedelta(days=1, minutes=5)
        self.script(scripted)
        assert (await gateway.query(ORDER)).state is ObservedState.DEAD

    async def test_a_charge_may_be_made_at_any_time(
        self, gateway: StripeGateway, scripted: Stripe, clock: Clock
    ) -> None:
        """It is asked for past its expiry too, so that no silence ever says that it was not."""
        clock.now = EXPIRES_AT + timedelta(days=30)
        self.script(scripted)
        mandate = Mandate("pm_1", "pm_1", customer_reference="cus_1")
        charge = make_order(PaymentMethod.SAVED, currency="USD", mandate=mandate)
        with pytest.raises(OutcomeUnknown, match="there are more"):
            await gateway.query(charge)


async def test_an_order_never_placed_is_absent_and_dead_once_over(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    for moment, state in [
        (NOW, ObservedState.ABSENT),
        (EXPIRES_AT + timedelta(seconds=59), ObservedState.ABSENT),
        (EXPIRES_AT + timedelta(seconds=60), ObservedState.DEAD),
    ]:
        clock.now = moment
        scripted.answers = [page()]
        assert (await gateway.query(ORDER)).state is state


async def test_an_order_once_seen_is_never_absent(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    clock.now = EXPIRES_AT + timedelta(days=1)
    known = make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID)
    scripted.answers = [error(404, code="resource_missing"), error(404, code="resource_missing")]
    with pytest.raises(GatewayMisconfigured):
        await gateway.query(known)
    with pytest.raises(GatewayMisconfigured):
        await gateway.close(known)


async def test_evidence_is_followed(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [ok(paid())]
    seen = await gateway.query(ORDER, gateway_number=INTENT_ID)
    assert seen.state is ObservedState.PAID

    charge = {"id": "ch_1", "object": "charge", "created": 1, "payment_intent": INTENT_ID}
    scripted.answers = [ok(charge), ok(paid())]
    seen = await gateway.query(ORDER, gateway_number="ch_1")
    assert seen.state is ObservedState.PAID
    assert scripted.calls[1:] == ["GET /v1/charges/ch_1", f"GET /v1/payment_intents/{INTENT_ID}"]


@pytest.mark.parametrize(
    "answers",
    [
        [error(404, code="resource_missing")],
        [ok({"id": "ch_1", "object": "charge", "created": 1, "payment_intent": None})],
    ],
)
async def test_evidence_of_nothing_shows_nothing(
    gateway: StripeGateway, scripted: Stripe, clock: Clock, answers: list[Answer]
) -> None:
    clock.now = EXPIRES_AT + timedelta(days=1)
    scripted.answers = answers
    assert (await gateway.query(ORDER, gateway_number="ch_1")).state is ObservedState.ABSENT


async def test_evidence_of_something_else_is_untrusted(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    with pytest.raises(AnswerUntrusted, match="neither"):
        await gateway.query(ORDER, gateway_number="../../v1/accounts")
    scripted.answers = [ok(paid(metadata={}))]
    with pytest.raises(AnswerUntrusted, match="was not made for"):
        await gateway.query(ORDER, gateway_number=INTENT_ID)


async def test_closing_cancels_and_lets_a_refusal_be(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    known = make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID)
    refusal = error(400, code="payment_intent_unexpected_state", payment_intent=paid())
    scripted.answers = [ok(intent(status="canceled")), refusal, refusal]
    for _ in range(3):
        await gateway.close(known)
    assert scripted.calls == [f"POST /v1/payment_intents/{INTENT_ID}/cancel"] * 3
    assert scripted.form() == {"cancellation_reason": "abandoned"}
    keys = {request.headers["idempotency-key"] for request in scripted.requests}
    assert len(keys) == 3


async def test_closing_an_order_whose_number_was_lost_looks_for_it(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [page()]
    await gateway.close(ORDER)
    scripted.answers = [page(intent()), ok(intent(status="canceled"))]
    await gateway.close(ORDER)
    assert scripted.calls[1:] == [
        "GET /v1/payment_intents",
        f"POST /v1/payment_intents/{INTENT_ID}/cancel",
    ]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (error(500), OutcomeUnknown),
        (error(429), GatewayThrottled),
        (error(401), GatewayMisconfigured),
        (error(400, code="parameter_unknown"), GatewayMisconfigured),
        (httpx.ReadError("gone"), OutcomeUnknown),
    ],
)
async def test_a_close_that_came_to_nothing_is_told(
    gateway: StripeGateway, scripted: Stripe, answer: Answer, problem: type[Exception]
) -> None:
    scripted.answers = [answer]
    with pytest.raises(problem):
        await gateway.close(make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID))


async def test_an_error_holds_no_client_secret(gateway: StripeGateway, scripted: Stripe) -> None:
    """Not in its text, not in what it was raised from: all of it may end up in a log."""
    known = make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID)
    scripted.answers = [error(409, code="lock_timeout", message="busy", payment_intent=intent())]
    with pytest.raises(OutcomeUnknown) as caught:
        await gateway.query(known)
    chain: list[BaseException | None] = [caught.value]
    while chain[-1] is not None:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    assert all(CLIENT_SECRET not in repr(error_) for error_ in chain if error_)
    assert all(CLIENT_SECRET not in str(error_.args) for error_ in chain if error_)
    opened_repr = repr(ClientSecret(client_secret=CLIENT_SECRET, publishable_key="pk"))
    assert CLIENT_SECRET not in opened_repr


async def test_a_call_that_is_cancelled_stays_cancelled(
    clock: Clock,
) -> None:
    started = asyncio.Event()

    async def never(_: httpx.Request) -> httpx.Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    client, transport = connect(KEY, "https://stripe.test", transport=httpx.MockTransport(never))
    gateway = StripeGateway(client, transport, publishable_key="pk", is_live=False, clock=clock)
    call = asyncio.create_task(gateway.open(ORDER))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await gateway.aclose()
