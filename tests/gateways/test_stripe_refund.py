"""Refunds against scripted answers."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    BalanceInsufficient,
    GatewayMisconfigured,
    GatewayThrottled,
    OutcomeUnknown,
)
from gateways.gateway import RefundOrder, RefundState
from gateways.stripe.adapter import StripeGateway
from tests.gateways.parties import NOW, NUMBER
from tests.gateways.scripted_stripe import (
    Answer,
    Clock,
    Stripe,
    error,
    gateway_at,
    ok,
    page,
)

REFUND_ID = "ref_01jd9q8x1zf6w8v7r3m2k4n5p6"
ORDER = RefundOrder(
    number=REFUND_ID,
    payment_number=f"{NUMBER}02",
    payment_reference="ch_1",
    paid_minor=2905,
    amount_minor=905,
    currency="USD",
    reason="returned goods & more",
    created_at=NOW,
)
KNOWN = replace(ORDER, reference="re_1")


def refund(**changes: Any) -> dict[str, Any]:
    return {
        "id": "re_1",
        "object": "refund",
        "amount": 905,
        "charge": "ch_1",
        "created": int(NOW.timestamp()),
        "currency": "usd",
        "metadata": {"refund_id": REFUND_ID, "payment_number": f"{NUMBER}02"},
        "payment_intent": "pi_1",
        "status": "succeeded",
    } | changes


@pytest.fixture
async def gateway(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    async with gateway_at(scripted, clock) as gateway:
        yield gateway


async def test_a_refund_is_looked_for_before_it_is_made(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [page(), ok(refund())]
    seen = await gateway.refund(ORDER)
    assert (seen.state, seen.status, seen.reference) == (
        RefundState.SUCCEEDED, "succeeded", "re_1",
    )  # fmt: skip
    assert (seen.failure, seen.refunded_at) == (None, None)
    assert scripted.calls == ["GET /v1/refunds", "POST /v1/refunds"]
    assert scripted.form(0) == {"charge": "ch_1", "limit": "100"}
    assert scripted.form(1) == {
        "amount": "905",
        "charge": "ch_1",
        "metadata[refund_id]": REFUND_ID,
        "metadata[payment_number]": f"{NUMBER}02",
    }
    assert scripted.requests[1].headers["Idempotency-Key"] == f"{REFUND_ID}:refund"


async def test_a_refund_that_is_there_is_not_made_again(
    gateway: StripeGateway, scripted: Stripe, clock: Clock
) -> None:
    clock.now = NOW + timedelta(days=30)
    strangers = [refund(id=f"re_{place}", metadata={}) for place in range(2, 5)]
    scripted.answers = [page(*strangers, has_more=True), page(refund())]
    assert (await gateway.refund(ORDER)).reference == "re_1"
    assert scripted.form()["starting_after"] == "re_4"

    scripted.answers = [ok(refund())]
    assert (await gateway.refund(KNOWN)).reference == "re_1"
    assert scripted.calls == ["GET /v1/refunds", "GET /v1/refunds", "GET /v1/refunds/re_1"]


async def test_a_receipt_may_name_the_intent(gateway: StripeGateway, scripted: Stripe) -> None:
    order = replace(ORDER, payment_reference="pi_1")
    scripted.answers = [page(), ok(refund())]
    assert (await gateway.refund(order)).state is RefundState.SUCCEEDED
    assert [scripted.form(place)["payment_intent"] for place in (0, 1)] == ["pi_1", "pi_1"]
    scripted.answers = [page(refund(payment_intent="pi_2"))]
    with pytest.raises(AnswerUntrusted):
        await gateway.query_refund(order)


async def test_a_refund_that_may_be_further_down_is_not_made(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [page(refund(metadata={}), has_more=True) for _ in range(20)]
    with pytest.raises(OutcomeUnknown, match="there are more"):
        await gateway.refund(ORDER)


async def test_a_refund_never_made_is_absent(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page(refund(metadata={"refund_id": "ref_other"}))]
    seen = await gateway.query_refund(ORDER)
    assert (seen.state, seen.reference, seen.failure) == (RefundState.ABSENT, None, None)


async def test_amounts_are_in_stripes_units(gateway: StripeGateway, scripted: Stripe) -> None:
    krona = replace(ORDER, currency="ISK", amount_minor=9)
    scripted.answers = [page(), ok(refund(currency="isk", amount=900))]
    assert (await gateway.refund(krona)).state is RefundState.SUCCEEDED
    assert scripted.form()["amount"] == "900"

    ariary = replace(ORDER, currency="MGA", amount_minor=9)
    scripted.answers = [page()]
    seen = await gateway.refund(ariary)
    assert seen.state is RefundState.FAILED
    assert seen.failure is not None
    assert "whole MGA" in seen.failure.message


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pending", RefundState.PROCESSING),
        ("requires_action", RefundState.PROCESSING),
        ("succeeded", RefundState.SUCCEEDED),
        ("failed", RefundState.FAILED),
        ("canceled", RefundState.FAILED),
        ("requires_reflection", RefundState.UNRECOGNISED),
        (None, RefundState.UNRECOGNISED),
    ],
)
async def test_every_status_has_its_state(
    gateway: StripeGateway, scripted: Stripe, status: str | None, state: RefundState
) -> None:
    scripted.answers = [ok(refund(status=status)), page(), ok(refund(status=status))]
    for seen in (await gateway.query_refund(KNOWN), await gateway.refund(ORDER)):
        assert (seen.state, seen.status, seen.reference) == (state, status or "null", "re_1")
        assert (seen.failure is not None) == (state is RefundState.FAILED)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("expired_or_canceled_card", "expired"),
        ("reason_of_tomorrow", "is failed"),
        (None, "is failed"),
    ],
)
async def test_a_failure_has_its_reason(
    gateway: StripeGateway, scripted: Stripe, reason: str | None, words: str
) -> None:
    scripted.answers = [ok(refund(status="failed", failure_reason=reason))]
    failure = (await gateway.query_refund(KNOWN)).failure
    assert failure is not None
    assert (failure.code, failure.decline_code) == ("refund_failed", reason)
    assert words in failure.message


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("amount_mismatch", {"amount": 906}),
        ("currency_mismatch", {"currency": "eur"}),
        ("order_mismatch", {"charge": "ch_2"}),
        ("order_mismatch", {"charge": None}),
        (
            "order_mismatch",
            {"metadata": {"refund_id": REFUND_ID, "payment_number": f"{NUMBER}03"}},
        ),
        ("refund_mismatch", {"metadata": {"refund_id": "ref_x"}}),
    ],
)
async def test_an_answer_about_something_else_is_untrusted(
    gateway: StripeGateway, scripted: Stripe, reason: str, changes: dict[str, Any]
) -> None:
    scripted.answers = [page(), ok(refund(**changes))]
    with pytest.raises(AnswerUntrusted) as made:
        await gateway.refund(ORDER)
    scripted.answers = [ok(refund(**changes))]
    with pytest.raises(AnswerUntrusted) as found:
        await gateway.query_refund(KNOWN)
    assert made.value.reason == found.value.reason == reason


async def test_another_refund_than_asked_about_is_untrusted(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [ok(refund(id="re_2"))]
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.query_refund(KNOWN)
    assert caught.value.reason == "refund_mismatch"


@pytest.mark.parametrize(
    "described",
    [
        {"code": "charge_already_refunded", "message": "already"},
        {"code": "charge_disputed", "message": "disputed"},
        {"code": "refund_disputed_payment", "message": "disputed"},
        {"code": "payment_intent_unexpected_state", "message": "not paid"},
        {"message": "Refund amount is greater than unrefunded amount on charge"},
    ],
)
@pytest.mark.parametrize("status", [400, 402])
async def test_a_refusal_for_good_is_a_failure(
    gateway: StripeGateway, scripted: Stripe, status: int, described: dict[str, Any]
) -> None:
    scripted.answers = [page(), error(status, type="invalid_request_error", **described), page()]
    seen = await gateway.refund(ORDER)
    assert (seen.state, seen.reference) == (RefundState.FAILED, None)
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.decline_code) == (
        "refund_refused", described.get("code"),
    )  # fmt: skip
    assert seen.failure.message == described["message"]


async def test_a_refusal_because_it_is_done_already_is_no_failure(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    refused = error(400, type="invalid_request_error", code="charge_already_refunded")
    scripted.answers = [page(), refused, page(refund())]
    assert (await gateway.refund(ORDER)).state is RefundState.SUCCEEDED


async def test_a_used_key_settles_nothing(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page(), error(400, type="idempotency_error"), page()]
    with pytest.raises(OutcomeUnknown):
        await gateway.refund(ORDER)
    scripted.answers = [page(), error(400, type="idempotency_error"), page(refund())]
    assert (await gateway.refund(ORDER)).state is RefundState.SUCCEEDED


UNKNOWN: list[Callable[[], Answer]] = [
    lambda: httpx.ReadTimeout("late"),
    lambda: error(500, type="api_error"),
    lambda: error(500, type="api_error", replayed=True),
    lambda: error(409, type="idempotency_error", code="idempotency_key_in_use"),
    lambda: httpx.Response(503, content=b"<html>busy</html>"),
    lambda: httpx.Response(200, content=b"\x00\xff<<"),
    lambda: ok({"object": "refund"}),
    lambda: ok(refund(amount="905")),
    lambda: ok(refund(metadata=None)),
]


@pytest.mark.parametrize("answer", UNKNOWN)
async def test_silence_is_no_answer(
    gateway: StripeGateway, scripted: Stripe, answer: Callable[[], Answer]
) -> None:
    scripted.answers = [page(), answer()]
    with pytest.raises(OutcomeUnknown) as made:
        await gateway.refund(ORDER)
    assert not isinstance(made.value, BalanceInsufficient)
    scripted.answers = [answer()]
    with pytest.raises(OutcomeUnknown):
        await gateway.query_refund(KNOWN)


async def test_what_is_no_refusal_is_told_as_what_it_is(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    cases: list[tuple[httpx.Response, type[Exception]]] = [
        (error(429, code="rate_limit"), GatewayThrottled),
        (error(401), GatewayMisconfigured),
        (error(404, code="resource_missing"), GatewayMisconfigured),
        (error(400, code="parameter_unknown"), GatewayMisconfigured),
    ]
    for answer, raised in cases:
        scripted.answers = [page(), answer, answer, answer]
        with pytest.raises(raised):
            await gateway.refund(ORDER)
        with pytest.raises(raised):
            await gateway.query_refund(KNOWN)
        with pytest.raises(raised):
            await gateway.query_refund(ORDER)


class TestAnEmptyAccount:
    @staticmethod
    def empty(*, replayed: bool = False, code: str = "balance_insufficient") -> httpx.Response:
        return error(400, type="invalid_request_error", code=code, replayed=replayed)

    @pytest.mark.parametrize("code", ["balance_insufficient", "insufficient_funds"])
    async def test_is_not_the_refunds_end(
        self, gateway: StripeGateway, scripted: Stripe, code: str
    ) -> None:
        scripted.answers = [page(), self.empty(code=code)]
        with pytest.raises(BalanceInsufficient):
            await gateway.refund(ORDER)

    async def test_is_asked_anew_once_stripe_only_repeats_itself(
        self, gateway: StripeGateway, scripted: Stripe, clock: Clock
    ) -> None:
        clock.now = NOW + timedelta(seconds=59)
        scripted.answers = [page(), self.empty(replayed=True)]
        with pytest.raises(BalanceInsufficient):
            await gateway.refund(ORDER)
        clock.now = NOW + timedelta(minutes=2)
        scripted.answers = [page(), self.empty(replayed=True), self.empty()]
        with pytest.raises(BalanceInsufficient):
            await gateway.refund(ORDER)
        scripted.answers = [page(), *(self.empty(replayed=True) for _ in range(2)), ok(refund())]
        assert (await gateway.refund(ORDER)).state is RefundState.SUCCEEDED
        assert [request.headers["Idempotency-Key"] for request in scripted.requests[-3:]] == [
            f"{REFUND_ID}:refund",
            f"{REFUND_ID}:refund:02",
            f"{REFUND_ID}:refund:03",
        ]

    async def test_has_few_keys_however_long_it_lasts(
        self, gateway: StripeGateway, scripted: Stripe, clock: Clock
    ) -> None:
        clock.now = NOW + timedelta(days=300)
        scripted.answers = [page(), *(self.empty(replayed=True) for _ in range(12))]
        with pytest.raises(BalanceInsufficient):
            await gateway.refund(ORDER)
