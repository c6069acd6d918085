"""The adapter against scripted answers, behind the real SDK."""

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    InstructionsLost,
    OutcomeUnknown,
)
from billing.payment import ClientSecret, DeclineClass, PaymentMethod
from gateways.gateway import AlreadyOrdered, ObservedState, Opened, Refused
from gateways.stripe.adapter import StripeGateway
from gateways.stripe.connection import connect
from tests.gateways.parties import EXPIRES_AT, NOW, NUMBER, make_order

ORDER = make_order(PaymentMethod.CARD, currency="USD")
INTENT_ID = "pi_3Q9x8Yabc"
CLIENT_SECRET = f"{INTENT_ID}_secret_Zyxw"
KEY = "sk_test_0123456789abcdef"
Answer = httpx.Response | Exception


def intent(**changes: Any) -> dict[str, Any]:
    return {
        "id": INTENT_ID,
        "object": "payment_intent",
        "amount": ORDER.amount_minor,
        "amount_received": 0,
        "currency": "usd",
        "client_secret": CLIENT_SECRET,
        "created": int(NOW.timestamp()),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {"payment_id": NUMBER, "attempt": "1"},
        "status": "requires_payment_method",
    } | changes


def paid(**changes: Any) -> dict[str, Any]:
    charge = {"id": "ch_1", "object": "charge", "created": 1795394000, "payment_intent": INTENT_ID}
    return (
        intent(status="succeeded", amount_received=ORDER.amount_minor, latest_charge=charge)
        | changes
    )


def ok(body: object, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=body, headers=headers)


def page(*listed: dict[str, Any], has_more: bool = False) -> httpx.Response:
    return ok({"object": "list", "data": list(listed), "has_more": has_more})


def error(status: int, *, replayed: bool = False, **described: Any) -> httpx.Response:
    headers = {"request-id": "req_1"} | ({"idempotent-replayed": "true"} if replayed else {})
    return httpx.Response(status, json={"error": described}, headers=headers)


class Stripe:
    """Answers in the order it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def form(self, index: int = -1) -> dict[str, str]:
        request = self.requests[index]
        text = request.content.decode() if request.method == "POST" else request.url.query.decode()
        return {name: values[0] for name, values in parse_qs(text).items()}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scripted() -> Stripe:
    return Stripe()


@pytest.fixture
async def gateway(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    client, transport = connect(KEY, "https://stripe.test", transport=httpx.MockTransport(scripted))
    gateway = StripeGateway(
        client, transport, publishable_key="pk_test_0123456789", is_live=False, clock=clock
    )
    yield gateway
    await gateway.aclose()
    assert not scripted.answers


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


UNKNOWN: list[tuple[str, Callable[[], Answer]]] = [
    ("time-out", lambda: httpx.ReadTimeout("late")),
    ("no connection", lambda: httpx.ConnectError("refused")),
    ("500", lambda: error(500, type="api_error")),
    ("503 of a proxy", lambda: httpx.Response(503, content=b"<html>busy</html>")),
    ("403 of a proxy", lambda: httpx.Response(403, content=b"<html>no</html>")),
    ("302", lambda: httpx.Response(302, headers={"location": "https://elsewhere.test"})),
    ("409", lambda: error(409, code="idempotency_key_in_use")),
    ("424", lambda: error(424, type="api_error")),
    ("empty", lambda: httpx.Response(200)),
    ("garbage", lambda: httpx.Response(200, content=b"\x00\xff<<")),
    ("truncated", lambda: httpx.Response(200, content=json.dumps(intent()).encode()[:150])),
    ("too deep", lambda: httpx.Response(200, content=b"[" * 100_000)),
    ("a list", lambda: ok([intent()])),
    ("null", lambda: ok(None)),
    ("error null", lambda: httpx.Response(400, json={"error": None})),
    ("no fields", lambda: ok({"object": "payment_intent"})),
    ("no status", lambda: ok(intent(status=None))),
    ("amount as text", lambda: ok(intent(amount="2905"))),
    ("amount as truth", lambda: ok(intent(amount=True))),
    ("metadata as list", lambda: ok(intent(metadata=[]))),
]


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
    assert await gateway.open(ORDER) == AlreadyOrdered()


async def test_a_key_just_young_enough_is_sent(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    clock.now = NOW + timedelta(hours=23) - timedelta(seconds=1)
    scripted.answers = [ok(intent())]
    await gateway.open(ORDER)
    assert scripted.requests[-1].headers["idempotency-key"] == f"{NUMBER}:01:open"


MISMATCHES: list[tuple[str, dict[str, Any]]] = [
    ("amount_mismatch", {"amount": 1}),
    ("currency_mismatch", {"currency": "eur"}),
    ("order_mismatch", {"metadata": {}}),
    ("order_mismatch", {"metadata": {"payment_id": NUMBER, "attempt": "2"}}),
    ("order_mismatch", {"id": "pi_another"}),
    ("merchant_mismatch", {"livemode": True}),
]


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


async def test_an_order_that_may_be_further_down_is_not_absent(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [page(intent(metadata={}), has_more=True) for _ in range(20)]
    with pytest.raises(OutcomeUnknown, match="there are more"):
        await gateway.query(ORDER)


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
