"""Refunds that Stripe lists, ours and those we have not asked for, against scripted answers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from billing.errors import AnswerUntrusted, OutcomeUnknown
from gateways.gateway import ForeignRefund, RefundObservation, RefundState, ToldRefunds
from gateways.stripe.adapter import StripeGateway
from tests.gateways.scripted_stripe import INTENT_ID, ORDER, Clock, Stripe, gateway_at, intent, page

PAID = replace(ORDER, reference=INTENT_ID)
OURS = "ref_01jd7zq4h9e8v9k2m3n4p5q6r7"


def refund(**changes: Any) -> dict[str, Any]:
    return {
        "id": "re_1",
        "object": "refund",
        "status": "succeeded",
        "amount": 900,
        "currency": "usd",
        "charge": "ch_1",
        "payment_intent": INTENT_ID,
        "metadata": {},
        **changes,
    }


@pytest.fixture
def scripted() -> Stripe:
    return Stripe()


@pytest.fixture
async def gateway(scripted: Stripe) -> AsyncIterator[StripeGateway]:
    async with gateway_at(scripted, Clock()) as gateway:
        yield gateway


async def test_all_with_our_number_where_they_have_one_oldest_first(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [
        page(
            refund(id="re_3", status="pending", amount=100),
            refund(id="re_2", metadata={"refund_id": OURS}),
            has_more=True,
        ),
        page(refund(metadata={"refund_id": "the shop's own"})),
    ]
    told = await gateway.list_refunds(PAID, ["whatever"])
    assert told == ToldRefunds(
        (
            ForeignRefund(
                "re_1", 900, RefundObservation(RefundState.SUCCEEDED, "succeeded", "re_1")
            ),
            ForeignRefund(
                "re_2", 900, RefundObservation(RefundState.SUCCEEDED, "succeeded", "re_2"), OURS
            ),
            ForeignRefund(
                "re_3", 100, RefundObservation(RefundState.PROCESSING, "pending", "re_3")
            ),
        )
    )
    assert scripted.calls == ["GET /v1/refunds", "GET /v1/refunds"]
    assert scripted.form()["starting_after"] == "re_2"


async def test_an_order_of_unknown_reference_is_looked_up(
    gateway: StripeGateway, scripted: Stripe
) -> None:
    scripted.answers = [page(intent()), page(refund())]
    assert len((await gateway.list_refunds(ORDER, [])).refunds) == 1
    scripted.answers = [page()]
    assert await gateway.list_refunds(ORDER, []) == ToldRefunds()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payment_intent": "pi_other"}, "order_mismatch"),
        ({"currency": "eur"}, "currency_mismatch"),
        ({"amount": 0}, "amount_mismatch"),
    ],
)
async def test_what_cannot_be_trusted(
    gateway: StripeGateway, scripted: Stripe, changes: dict[str, Any], reason: str
) -> None:
    scripted.answers = [page(refund(**changes))]
    with pytest.raises(AnswerUntrusted) as refused:
        await gateway.list_refunds(PAID, [])
    assert refused.value.reason == reason


async def test_a_list_without_an_end(gateway: StripeGateway, scripted: Stripe) -> None:
    scripted.answers = [page(refund(id=f"re_{n}"), has_more=True) for n in range(20)]
    with pytest.raises(OutcomeUnknown):
        await gateway.list_refunds(PAID, [])
