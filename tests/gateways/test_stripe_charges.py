"""Charging saved cards, against scripted answers."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from billing.errors import (
    GatewayMisconfigured,
    GatewayThrottled,
    InstructionsLost,
    InvalidRequest,
    OutcomeUnknown,
)
from billing.payment import ClientSecret, DeclineClass, PaymentMethod
from gateways.gateway import (
    AlreadyOrdered,
    Observation,
    ObservedState,
    Opened,
    Receipt,
    Refused,
)
from gateways.mandates import Mandate
from gateways.stripe.adapter import StripeGateway
from tests.gateways.parties import EXPIRES_AT, NOW, NUMBER, make_order
from tests.gateways.scripted_stripe import (
    CLIENT_SECRET,
    INTENT_ID,
    MISMATCHES,
    UNKNOWN,
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

MANDATE = Mandate(
    "pm_01jd9q8x1zf6w8v7r3m2k4n5p6",
    "pm01jd9q8x1zf6w8v7r3m2k4n5p6",
    reference="pm_1Q9x8Yabc",
    setup_reference="seti_1Q9x8Yabc",
    customer_reference="cus_R1a2b3c4",
)
ORDER = make_order(PaymentMethod.SAVED, currency="USD", mandate=MANDATE)
CREATE = "POST /v1/payment_intents"
LIST = "GET /v1/payment_intents"
RETRIEVE = f"GET /v1/payment_intents/{INTENT_ID}"
CANCEL = f"POST /v1/payment_intents/{INTENT_ID}/cancel"
RECEIVED = AlreadyOrdered(
    INTENT_ID,
    Observation(
        ObservedState.PAID,
        "succeeded",
        reference=INTENT_ID,
        receipt=Receipt("ch_1", ORDER.amount_minor, "USD", datetime.fromtimestamp(1795394000, UTC)),
    ),
)
TOO_LATE = error(400, type="invalid_request_error", code="payment_intent_unexpected_state")


def declined(*, replayed: bool = False, **described: Any) -> httpx.Response:
    told = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
    told |= {"message": "Your card has insufficient funds."} | described
    return error(402, replayed=replayed, payment_intent=intent(last_payment_error=told), **told)


def authentication(*, replayed: bool = False) -> httpx.Response:
    word = "authentication_required"
    return declined(code=word, decline_code=word, replayed=replayed)


def canceled() -> httpx.Response:
    return ok(intent(status="canceled"))


@pytest.fixture
async def gateway(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    async with gateway_at(scripted, clock) as gateway:
        yield gateway


async def test_a_charge_is_confirmed_as_it_is_made_and_the_same_at_each_repeat(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [ok(paid()), ok(paid(), **{"idempotent-replayed": "true"})]
    assert await gateway.open(ORDER) == await gateway.open(ORDER) == RECEIVED
    assert scripted.calls == [CREATE] * 2
    assert scripted.form() == {
        "amount": "2905",
        "currency": "usd",
        "allowed_payment_method_types[0]": "card",
        "capture_method": "automatic",
        "customer": "cus_R1a2b3c4",
        "payment_method": "pm_1Q9x8Yabc",
        "off_session": "true",
        "confirm": "true",
        "description": "Gold membership",
        "metadata[payment_id]": NUMBER,
        "metadata[attempt]": "1",
        "expand[0]": "latest_charge",
    }
    one, other = scripted.requests
    assert one.content == other.content
    assert {request.headers["idempotency-key"] for request in (one, other)} == {f"{NUMBER}:01:open"}


@pytest.mark.parametrize("status", ["processing", "requires_capture", "pondering"])
async def test_a_charge_under_way_is_asked_about(
    gateway: StripeGateway, scripted: Stripe, status: str
) -> None:
    scripted.answers = [ok(intent(status=status))]
    assert await gateway.open(ORDER) == AlreadyOrdered(INTENT_ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"latest_charge": "ch_1"},
        {"latest_charge": None},
        {"amount_received": ORDER.amount_minor - 1},
    ],
)
async def test_a_receipt_that_is_not_whole_is_left_to_the_query(
    gateway: StripeGateway, scripted: Stripe, changes: dict[str, Any]
) -> None:
    scripted.answers = [ok(paid(**changes))]
    assert await gateway.open(ORDER) == AlreadyOrdered(INTENT_ID)


async def test_a_declined_charge_is_canceled_before_it_is_refused(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [declined(), ok(intent()), canceled(), canceled()]
    first = await gateway.open(ORDER)
    assert isinstance(first, Refused)
    told = first.failure
    assert (told.code, told.decline_code) == ("payment_declined", "insufficient_funds")
    assert (told.advice, told.message) == (DeclineClass.SOFT, "Your card has insufficient funds.")
    assert scripted.calls == [CREATE, RETRIEVE, CANCEL, RETRIEVE]
    assert scripted.form(2) == {"cancellation_reason": "abandoned"}

    scripted.answers = [declined(replayed=True), canceled()]
    assert await gateway.open(ORDER) == first
    assert scripted.calls[4:] == [CREATE, RETRIEVE]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("expired_card", DeclineClass.NEEDS_CUSTOMER),
        ("stolen_card", DeclineClass.HARD),
        ("of_tomorrow", DeclineClass.SOFT),
    ],
)
async def test_a_decline_has_its_class(
    gateway: StripeGateway, scripted: Stripe, code: str, advice: DeclineClass
) -> None:
    scripted.answers = [declined(decline_code=code), ok(intent()), canceled(), canceled()]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    assert outcome.failure.advice is advice


@pytest.mark.parametrize("described", [{"payment_intent": None}, {"payment_intent": {"id": 7}}])
async def test_a_decline_that_does_not_name_its_charge_is_looked_for(
    gateway: StripeGateway, scripted: Stripe, described: dict[str, Any]
) -> None:
    nameless = error(402, type="card_error", code="card_declined", **described)
    scripted.answers = [nameless, page(intent()), canceled(), canceled()]
    first = await gateway.open(ORDER)
    assert scripted.calls == [CREATE, LIST, CANCEL, RETRIEVE]
    scripted.answers = [nameless, page()]
    assert await gateway.open(ORDER) == first
    assert isinstance(first, Refused)


@pytest.mark.parametrize("cancel", [TOO_LATE, ok(intent())])
async def test_a_declined_charge_that_was_paid_meanwhile_is_no_refusal(
    gateway: StripeGateway, scripted: Stripe, cancel: httpx.Response
) -> None:
    scripted.answers = [declined(), ok(intent()), cancel, ok(paid())]
    assert await gateway.open(ORDER) == RECEIVED
    scripted.answers = [declined(replayed=True), ok(paid())]
    assert await gateway.open(ORDER) == RECEIVED


@pytest.mark.parametrize(
    "cancel",
    [
        *(make for name, make in UNKNOWN if name in ("time-out", "500", "garbage", "409")),
        lambda: error(429, code="rate_limit"),
        lambda: error(403),
        lambda: error(401),
    ],
)
async def test_a_decline_that_is_not_known_to_be_canceled_is_unknown(
    gateway: StripeGateway, scripted: Stripe, cancel: Callable[[], Answer]
) -> None:
    scripted.answers = [declined(), ok(intent()), cancel()]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)
    scripted.answers = [declined(replayed=True), ok(intent()), canceled(), cancel()]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)
    scripted.answers = [declined(replayed=True), cancel()]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)


async def test_a_decline_that_can_still_be_paid_is_unknown(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [declined(), ok(intent()), TOO_LATE, ok(intent())]
    with pytest.raises(OutcomeUnknown, match="can still be paid"):
        await gateway.open(ORDER)


async def test_a_decline_of_another_charge_cancels_nothing(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [declined(), ok(intent(metadata={}))]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)
    scripted.answers = [declined(), ok(intent(id="pi_another"))]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)
    assert CANCEL not in scripted.calls


async def test_a_payer_whose_bank_wants_them_is_given_the_client_secret(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    opened = Opened(
        ClientSecret(client_secret=CLIENT_SECRET, publishable_key="pk_test_0123456789"), INTENT_ID
    )
    scripted.answers = [authentication(), ok(intent())]
    assert await gateway.open(ORDER) == opened
    scripted.answers = [authentication(replayed=True), ok(intent())]
    assert await gateway.open(ORDER) == opened
    scripted.answers = [ok(intent(status="requires_action"))]
    assert await gateway.open(ORDER) == opened
    assert CANCEL not in scripted.calls

    scripted.answers = [authentication(replayed=True), ok(paid())]
    assert await gateway.open(ORDER) == RECEIVED
    scripted.answers = [authentication(replayed=True), canceled()]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    assert outcome.failure.advice is DeclineClass.NEEDS_CUSTOMER
    scripted.answers = [authentication(), ok(intent(client_secret=None))]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)


@pytest.mark.parametrize(
    "answer",
    [
        error(400, type="invalid_request_error", code="payment_method_unexpected_state"),
        error(400, type="invalid_request_error", param="payment_method", message="It is gone."),
        error(404, type="invalid_request_error", code="resource_missing", param="payment_method"),
        error(400, type="invalid_request_error", code="resource_missing", param="customer"),
    ],
)
async def test_a_card_that_is_gone_is_for_the_payer_to_replace(
    gateway: StripeGateway, scripted: Stripe, answer: httpx.Response
) -> None:
    scripted.answers = [answer, page()]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    told = outcome.failure
    assert (told.code, told.advice) == ("mandate_ended", DeclineClass.NEEDS_CUSTOMER)
    # The repeat of a charge whose answer was lost, and whose card was detached since.
    scripted.answers = [answer, page(paid())]
    assert await gateway.open(ORDER) == RECEIVED
    assert scripted.form()["customer"] == "cus_R1a2b3c4"


async def test_a_charge_stripe_will_not_take_is_refused(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    refusal = error(400, type="invalid_request_error", code="amount_too_small", param="amount")
    scripted.answers = [refusal, page()]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    told = outcome.failure
    assert (told.code, told.decline_code) == ("order_refused", "amount_too_small")
    outcome = await gateway.open(replace(ORDER, currency="MGA", amount_minor=501))
    assert isinstance(outcome, Refused)
    assert "MGA" in outcome.failure.message


@pytest.mark.parametrize("answer", [make for _, make in UNKNOWN], ids=[name for name, _ in UNKNOWN])
async def test_without_a_whole_answer_the_outcome_is_unknown(
    gateway: StripeGateway, scripted: Stripe, answer: Callable[[], Answer]
) -> None:
    scripted.answers = [answer()]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)


@pytest.mark.parametrize("changes", [changes for _, changes in MISMATCHES if "id" not in changes])
async def test_an_answer_about_another_charge_is_unknown(
    gateway: StripeGateway, scripted: Stripe, changes: dict[str, Any]
) -> None:
    scripted.answers = [ok(paid(**changes))]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)


async def test_what_was_not_tried_is_told_so(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [error(429, code="rate_limit")]
    with pytest.raises(GatewayThrottled):
        await gateway.open(ORDER)
    scripted.answers = [error(401)]
    with pytest.raises(GatewayMisconfigured):
        await gateway.open(ORDER)


@pytest.mark.parametrize(
    "answer",
    [error(500, replayed=True, type="api_error"), error(400, type="idempotency_error")],
)
async def test_a_key_that_is_used_up_is_followed_by_looking(
    gateway: StripeGateway, scripted: Stripe, answer: httpx.Response
) -> None:
    scripted.answers = [answer, page(intent(id="pi_other", metadata={}), paid())]
    assert await gateway.open(ORDER) == RECEIVED
    scripted.answers = [answer, page(intent()), canceled(), canceled()]
    assert isinstance(await gateway.open(ORDER), Refused)
    failed = {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}
    scripted.answers = [answer, page(intent(status="canceled", last_payment_error=failed))]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    assert outcome.failure.decline_code == "lost_card"
    scripted.answers = [answer, page()]
    with pytest.raises(InstructionsLost):
        await gateway.open(ORDER)
    scripted.answers = [answer, error(403)]
    with pytest.raises(OutcomeUnknown):
        await gateway.open(ORDER)


async def test_an_old_key_is_never_sent_again(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    clock.now = EXPIRES_AT + timedelta(days=2)
    scripted.answers = [page(paid())]
    assert await gateway.open(ORDER) == RECEIVED
    asked = scripted.form()
    assert asked["customer"] == "cus_R1a2b3c4"
    assert int(asked["created[gte]"]) < NOW.timestamp()
    # Unlike an order that waits for its payer, it may have been asked for after its expiry.
    assert int(asked["created[lte]"]) >= clock.now.timestamp()

    scripted.answers = [page(), ok(paid())]
    assert await gateway.open(ORDER) == RECEIVED
    assert scripted.requests[-1].headers["idempotency-key"] == f"{NUMBER}:01:reopen"

    failed = {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}
    scripted.answers = [page(intent(status="canceled", last_payment_error=failed))]
    outcome = await gateway.open(ORDER)
    assert isinstance(outcome, Refused)
    assert outcome.failure.decline_code == "lost_card"


@pytest.mark.parametrize(
    "mandate",
    [None, replace(MANDATE, reference=None), replace(MANDATE, customer_reference=None)],
)
async def test_without_a_saved_card_there_is_nothing_to_charge(
    gateway: StripeGateway, scripted: Stripe, mandate: Mandate | None
) -> None:
    with pytest.raises(InvalidRequest):
        await gateway.open(replace(ORDER, mandate=mandate))
    assert not scripted.calls
