"""Disputes against scripted answers."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from billing.dispute import DisputeStatus
from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    OutcomeUnknown,
)
from gateways.gateway import DisputeObservation
from gateways.stripe.adapter import StripeGateway
from gateways.stripe.disputes import STATUSES
from tests.gateways.parties import NOW
from tests.gateways.scripted_stripe import (
    INTENT_ID,
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

PAID = replace(ORDER, reference=INTENT_ID)
DUE_BY = datetime(2026, 12, 1, 23, 59, 59, tzinfo=UTC)
WITHDRAWN = {"amount": -2905, "fee": 1500, "currency": "usd"}
REINSTATED = {"amount": 2905, "fee": 0, "currency": "usd"}


def dispute(**changes: Any) -> dict[str, Any]:
    return {
        "id": "dp_1",
        "object": "dispute",
        "amount": 2905,
        "balance_transactions": [WITHDRAWN],
        "charge": "ch_1",
        "created": int(NOW.timestamp()),
        "currency": "usd",
        "evidence_details": {"due_by": int(DUE_BY.timestamp()), "has_evidence": False},
        "livemode": False,
        "payment_intent": INTENT_ID,
        "reason": "fraudulent",
        "status": "needs_response",
    } | changes


@pytest.fixture
async def gateway(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    async with gateway_at(scripted, clock) as gateway:
        yield gateway


async def test_a_dispute_is_read(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page(dispute())]
    assert await gateway.list_disputes(PAID) == [
        DisputeObservation(
            reference="dp_1",
            status=DisputeStatus.OPEN,
            gateway_status="needs_response",
            amount_minor=2905,
            currency="USD",
            reason="fraudulent",
            withdrawn_minor=2905,
            reinstated_minor=0,
            fee_minor=1500,
            due_by=DUE_BY,
            opened_at=NOW,
        )
    ]
    assert scripted.calls == ["GET /v1/disputes"]
    assert scripted.form() == {"payment_intent": INTENT_ID, "limit": "100"}


async def test_an_undisputed_order_has_none(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page()]
    assert await gateway.list_disputes(PAID) == []


async def test_an_order_of_unknown_reference_is_looked_up(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [page(intent()), page(dispute())]
    assert len(await gateway.list_disputes(ORDER)) == 1
    scripted.answers = [page()]
    assert await gateway.list_disputes(ORDER) == []
    assert scripted.calls == [
        "GET /v1/payment_intents",
        "GET /v1/disputes",
        "GET /v1/payment_intents",
    ]


async def test_pages_are_followed_to_the_oldest(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page(dispute(id="dp_2"), has_more=True), page(dispute())]
    found = await gateway.list_disputes(PAID)
    assert [one.reference for one in found] == ["dp_1", "dp_2"]
    assert scripted.form()["starting_after"] == "dp_2"


async def test_a_list_without_end_is_no_answer(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page(dispute(), has_more=True) for _ in range(5)]
    with pytest.raises(OutcomeUnknown, match="more than"):
        await gateway.list_disputes(PAID)


@pytest.mark.parametrize(("word", "status"), STATUSES.items())
async def test_a_status_is_told_in_our_words(
    gateway: StripeGateway, scripted: Stripe, word: str, status: DisputeStatus
) -> None:
    scripted.answers = [page(dispute(status=word))]
    [seen] = await gateway.list_disputes(PAID)
    assert (seen.status, seen.gateway_status) == (status, word)


@pytest.mark.parametrize(
    ("word", "moved", "status"),
    [
        ("prevented", [], DisputeStatus.WON),
        ("prevented", [WITHDRAWN], DisputeStatus.LOST),
        ("prevented", [WITHDRAWN, REINSTATED], DisputeStatus.WON),
        ("settled_over_tea", [WITHDRAWN], DisputeStatus.UNRECOGNISED),
    ],
)
async def test_other_statuses_are_judged_by_the_money(
    gateway: StripeGateway,
    scripted: Stripe,
    word: str,
    moved: list[dict[str, Any]],
    status: DisputeStatus,
) -> None:
    scripted.answers = [page(dispute(status=word, balance_transactions=moved))]
    [seen] = await gateway.list_disputes(PAID)
    assert seen.status is status


@pytest.mark.parametrize(
    ("moved", "withdrawn", "reinstated", "fee"),
    [
        ([], 0, 0, 0),
        ([WITHDRAWN], 2905, 0, 1500),
        ([WITHDRAWN, REINSTATED], 2905, 2905, 1500),
        ([WITHDRAWN, REINSTATED, WITHDRAWN], 5810, 2905, 3000),
        ([{"amount": -2700, "fee": 1400, "currency": "eur"}], 2905, 0, None),
        ([{"amount": -2700, "fee": 0, "currency": "eur"}], 2905, 0, 0),
    ],
)
async def test_money_is_read_from_the_balance_transactions(
    gateway: StripeGateway,
    scripted: Stripe,
    moved: list[dict[str, Any]],
    withdrawn: int,
    reinstated: int,
    fee: int | None,
) -> None:
    scripted.answers = [page(dispute(balance_transactions=moved))]
    [seen] = await gateway.list_disputes(PAID)
    assert (seen.withdrawn_minor, seen.reinstated_minor, seen.fee_minor) == (
        withdrawn, reinstated, fee,
    )  # fmt: skip


async def test_amounts_are_in_minor_units(gateway: StripeGateway, scripted: Stripe) -> None:
    in_krona = replace(PAID, currency="ISK", amount_minor=500)
    moved = [{"amount": -50_000, "fee": 1500, "currency": "isk"}]
    scripted.answers = [page(dispute(amount=50_000, currency="isk", balance_transactions=moved))]
    [seen] = await gateway.list_disputes(in_krona)
    assert (seen.amount_minor, seen.withdrawn_minor, seen.fee_minor) == (500, 500, 15)
    scripted.answers = [page(dispute(amount=50_001, currency="isk"))]
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.list_disputes(in_krona)
    assert caught.value.reason == "amount_mismatch"


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("order_mismatch", {"payment_intent": "pi_another"}),
        ("order_mismatch", {"payment_intent": None}),
        ("merchant_mismatch", {"livemode": True}),
        ("currency_mismatch", {"currency": "eur"}),
    ],
)
async def test_a_dispute_of_something_else_is_untrusted(
    gateway: StripeGateway, scripted: Stripe, reason: str, changes: dict[str, Any]
) -> None:
    scripted.answers = [page(dispute(**changes))]
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.list_disputes(PAID)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "answer", [answer for _, answer in UNKNOWN], ids=[name for name, _ in UNKNOWN]
)
async def test_what_is_no_answer_leaves_the_outcome_unknown(
    gateway: StripeGateway, scripted: Stripe, answer: Callable[[], Answer]
) -> None:
    scripted.answers = [answer()]
    with pytest.raises(OutcomeUnknown):
        await gateway.list_disputes(PAID)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "2905"},
        {"amount": -1},
        {"status": None},
        {"balance_transactions": None},
        {"balance_transactions": [{"amount": -2905, "currency": "usd"}]},
        {"created": "today"},
    ],
)
async def test_a_dispute_that_cannot_be_read_is_no_answer(
    gateway: StripeGateway, scripted: Stripe, changes: dict[str, Any]
) -> None:
    scripted.answers = [page(dispute(**changes))]
    with pytest.raises(OutcomeUnknown, match="no Dispute"):
        await gateway.list_disputes(PAID)


async def test_refusals_are_told_apart(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [error(429), error(401, type="invalid_request_error"), ok([])]
    with pytest.raises(GatewayThrottled):
        await gateway.list_disputes(PAID)
    with pytest.raises(GatewayMisconfigured):
        await gateway.list_disputes(PAID)
    with pytest.raises(OutcomeUnknown):
        await gateway.list_disputes(PAID)
