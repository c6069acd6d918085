"""Placing orders, against scripted answers."""

import traceback
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from billing.errors import (
    GatewayMisconfigured,
    GatewayThrottled,
    InstructionsLost,
    OutcomeUnknown,
)
from billing.payment import ClientSecret, PaymentMethod
from gateways.gateway import AlreadyOrdered, Opened, Refused
from gateways.stripe.adapter import StripeGateway
from tests.gateways.parties import NOW, NUMBER, make_order
from tests.gateways.scripted_stripe import (
    CLIENT_SECRET,
    INTENT_ID,
    KEY,
    MISMATCHES,
    ORDER,
    UNKNOWN,
    Answer,
    Clock,
    Stripe,
    error,
    gateway_at,
    intent,
    ok,
    page,
)


@pytest.fixture
async def gateway(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    async with gateway_at(scripted, clock) as gateway:
        yield gateway


async def test_an_order_is_placed_once_whatever_repeats(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [ok(intent()), ok(intent(), **{"idempotent-replayed": "true"})]
    first, second = await gateway.open(ORDER), await gateway.open(ORDER)
    assert first == second
    assert isinstance(first, Opened)
    assert first.reference == INTENT_ID
    assert first.next_action == ClientSecret(
        client_secret=CLIENT_SECRET, publishable_key="pk_test_0123456789"
    )
    assert scripted.calls == ["POST /v1/payment_intents"] * 2
    assert scripted.form() == {
        "amount": "2905",
        "currency": "usd",
        "allowed_payment_method_types[0]": "card",
        "capture_method": "automatic",
        "description": "Gold membership",
        "metadata[payment_id]": NUMBER,
        "metadata[attempt]": "1",
    }
    one, other = scripted.requests
    assert one.content == other.content
    for request in (one, other):
        assert request.headers["idempotency-key"] == f"{NUMBER}:01:open"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["stripe-version"] == "2026-10-28.endive"
        assert request.headers["user-agent"].startswith("Everbill/")
        assert "x-stripe-client-user-agent" not in request.headers


async def test_another_attempt_has_a_key_of_its_own(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [ok(intent(metadata={"payment_id": NUMBER, "attempt": "12"}))]
    await gateway.open(make_order(PaymentMethod.CARD, currency="USD", attempt=12))
    assert scripted.requests[0].headers["idempotency-key"] == f"{NUMBER}:12:open"


@pytest.mark.parametrize("answer", [make for _, make in UNKNOWN], ids=[name for name, _ in UNKNOWN])
async def test_without_a_whole_answer_the_outcome_is_unknown(
    gateway: StripeGateway, scripted: Stripe, answer: Callable[[], Answer]
) -> None:
    known = make_order(PaymentMethod.CARD, currency="USD", reference=INTENT_ID)
    scripted.answers = [answer(), answer()]
    for call in (gateway.open(ORDER), gateway.query(known)):
        with pytest.raises(OutcomeUnknown) as caught:
            await call
        assert not isinstance(caught.value, GatewayThrottled)
        assert "_secret_" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (error(429, code="rate_limit"), None),
        (error(400, code="rate_limit"), None),
        (httpx.Response(429, content=b"<html>", headers={"retry-after": "4"}), 4.0),
        (httpx.Response(429, json={"error": {}}, headers={"retry-after": "9"}), 9.0),
    ],
)
async def test_a_throttled_call_names_its_pause(
    gateway: StripeGateway, scripted: Stripe, answer: httpx.Response, seconds: float | None
) -> None:
    scripted.answers = [answer]
    with pytest.raises(GatewayThrottled) as caught:
        await gateway.open(ORDER)
    assert caught.value.retry_after_seconds == seconds


@pytest.mark.parametrize(
    "answer", [error(401), error(403), error(400, code="payment_method_unactivated")]
)
async def test_what_only_an_operator_can_change_is_told_so(
    gateway: StripeGateway, scripted: Stripe, answer: httpx.Response
) -> None:
    scripted.answers = [answer]
    with pytest.raises(GatewayMisconfigured, match="EVERBILL_STRIPE_SECRET_KEY"):
        await gateway.open(ORDER)


async def test_an_order_stripe_will_not_take_is_refused(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [error(400, code="amount_too_small", message="At least 50 cents.")]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    assert outcome.failure.code == "order_refused"
    assert outcome.failure.decline_code == "amount_too_small"
    assert outcome.failure.message == "At least 50 cents."


async def test_an_amount_stripe_cannot_say_is_refused_unasked(gateway: StripeGateway) -> None:
    outcome = await gateway.open(make_order(PaymentMethod.CARD, currency="MGA", amount_minor=501))
    assert isinstance(outcome, Refused)
    assert "MGA" in outcome.failure.message


@pytest.mark.parametrize(
    "answer",
    [error(500, replayed=True, type="api_error"), error(400, type="idempotency_error")],
)
async def test_a_key_that_is_used_up_is_followed_by_looking(
    gateway: StripeGateway, scripted: Stripe, answer: httpx.Response
) -> None:
    others = [intent(id="pi_other", metadata={}), intent(id="pi_n", metadata=None)]
    scripted.answers = [answer, page(*others, intent())]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Opened)
    assert outcome.reference == INTENT_ID
    assert scripted.calls == ["POST /v1/payment_intents", "GET /v1/payment_intents"]
    scripted.answers = [answer, page(*others)]
    with pytest.raises(InstructionsLost):
        await gateway.open(ORDER)


async def test_a_first_500_is_not_looked_into(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [error(500, type="api_error")]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)
    assert scripted.calls == ["POST /v1/payment_intents"]


async def test_an_old_key_is_never_sent_again(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    clock.now = NOW + timedelta(hours=23)
    scripted.answers = [page(intent())]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Opened)
    assert scripted.calls == ["GET /v1/payment_intents"]

    scripted.answers = [page(), ok(intent())]
    assert isinstance(await gateway.open(ORDER), Opened)
    assert scripted.requests[-1].headers["idempotency-key"] == f"{NUMBER}:01:reopen"

    scripted.answers = [page(intent(status="canceled"))]
    assert await gateway.open(ORDER) == AlreadyOrdered(INTENT_ID)


async def test_a_key_just_young_enough_is_sent(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    clock.now = NOW + timedelta(hours=23) - timedelta(seconds=1)
    scripted.answers = [ok(intent())]
    await gateway.open(ORDER)
    assert scripted.requests[-1].headers["idempotency-key"] == f"{NUMBER}:01:open"


@pytest.mark.parametrize(
    "changes", [changes for _, changes in MISMATCHES if "id" not in changes] + [
        {"client_secret": None}
    ],
)  # fmt: skip
async def test_instructions_for_something_else_are_not_handed_out(
    gateway: StripeGateway, scripted: Stripe, changes: dict[str, Any]
) -> None:
    scripted.answers = [ok(intent(**changes))]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)
