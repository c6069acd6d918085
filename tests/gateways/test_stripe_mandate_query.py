"""Asking Stripe about saved cards, against scripted answers."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    OutcomeUnknown,
)
from billing.method import CardFace
from gateways.mandates import (
    Mandate,
    MandateObservation,
    Mandates,
    MandateState,
)
from tests.gateways.scripted_setups import (
    ASKED,
    CARD,
    CUSTOMER,
    DECLINED,
    OTHERS,
    RETRIEVE,
    SAVED,
    card,
    setup,
    succeeded,
)
from tests.gateways.scripted_stripe import Clock, Stripe, error, gateway_at, ok
from tests.gateways.scripted_stripe import page as listed


@pytest.fixture
async def mandates(scripted: Stripe, clock: Clock) -> AsyncIterator[Mandates]:
    async with gateway_at(scripted, clock) as gateway:
        assert gateway.mandates is not None
        yield gateway.mandates


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("requires_payment_method", MandateState.PENDING),
        ("requires_confirmation", MandateState.PENDING),
        ("requires_action", MandateState.PENDING),
        ("processing", MandateState.PENDING),
        ("canceled", MandateState.FAILED),
        ("pondering", MandateState.UNRECOGNISED),
    ],
)
async def test_a_status_has_its_state(
    mandates: Mandates, scripted: Stripe, status: str, state: MandateState
) -> None:
    scripted.answers = [ok(setup(status=status))]
    assert await mandates.query(ASKED) == MandateObservation(state, status)
    scripted.answers = [ok(setup(status=status, last_setup_error=DECLINED))]
    failure = (await mandates.query(ASKED)).failure
    assert failure is not None
    assert failure.decline_code == "insufficient_funds"
    assert scripted.calls == [RETRIEVE] * 2


@pytest.mark.parametrize("customer", [CUSTOMER, {"id": CUSTOMER, "object": "customer"}])
@pytest.mark.parametrize("mandate", [ASKED, SAVED])
async def test_a_saved_card_is_active_while_it_is_attached(
    mandates: Mandates, scripted: Stripe, mandate: Mandate, customer: object
) -> None:
    scripted.answers = [ok(succeeded(customer=customer)), ok(card(customer=customer))]
    face = CardFace(brand="visa", last4="4242", expires_month=4, expires_year=2030)
    assert await mandates.query(mandate) == MandateObservation(
        MandateState.ACTIVE, "succeeded", reference=CARD, card=face
    )
    assert scripted.calls == [RETRIEVE, f"GET /v1/payment_methods/{CARD}"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ok(card(customer=None)), "detached"),
        (error(404, code="resource_missing"), "absent"),
    ],
)
@pytest.mark.parametrize("mandate", [ASKED, SAVED])
async def test_a_card_that_is_detached_or_missing_has_ended(
    mandates: Mandates, scripted: Stripe, mandate: Mandate, answer: httpx.Response, status: str
) -> None:
    scripted.answers = [ok(succeeded()), answer]
    seen = await mandates.query(mandate)
    assert (seen.state, seen.status, seen.reference) == (MandateState.ENDED, status, CARD)


async def test_a_card_that_its_set_up_does_not_name_any_more_is_asked_about(
    mandates: Mandates, scripted: Stripe
) -> None:
    scripted.answers = [ok(succeeded(payment_method=None)), ok(card(customer=None))]
    assert (await mandates.query(SAVED)).state is MandateState.ENDED


async def test_a_set_up_without_a_known_number_is_looked_for(
    mandates: Mandates, scripted: Stripe
) -> None:
    unnamed = replace(ASKED, setup_reference=None)
    strangers = [setup(id=f"seti_{place}", metadata={}) for place in range(2)]
    scripted.answers = [listed(*strangers, has_more=True), listed(setup())]
    assert (await mandates.query(unnamed)).state is MandateState.PENDING
    assert scripted.form()["starting_after"] == "seti_1"
    scripted.answers = [listed(*strangers)]
    assert (await mandates.query(unnamed)).state is MandateState.ABSENT
    scripted.answers = [listed(*strangers, has_more=True)] * 20
    with pytest.raises(OutcomeUnknown, match="there are more"):
        await mandates.query(unnamed)
    nobody = replace(unnamed, customer_reference=None)
    assert (await mandates.query(nobody)).state is MandateState.ABSENT
    assert len(scripted.calls) == 23


@pytest.mark.parametrize("changes", [*OTHERS, {"id": "seti_another"}])
@pytest.mark.parametrize("make", [setup, succeeded])
async def test_an_answer_about_another_set_up(
    mandates: Mandates,
    scripted: Stripe,
    make: Callable[..., dict[str, Any]],
    changes: dict[str, Any],
) -> None:
    scripted.answers = [ok(make(**changes))]
    with pytest.raises(AnswerUntrusted):
        await mandates.query(ASKED)


async def test_an_answer_about_another_card(mandates: Mandates, scripted: Stripe) -> None:
    scripted.answers = [ok(succeeded(payment_method="pm_another"))]
    with pytest.raises(AnswerUntrusted):
        await mandates.query(SAVED)
    for changes in ({"id": "pm_another"}, {"customer": "cus_another"}):
        scripted.answers = [ok(succeeded()), ok(card(**changes))]
        with pytest.raises(AnswerUntrusted):
            await mandates.query(SAVED)


@pytest.mark.parametrize(
    "face", [{"brand": "visa"}, {"brand": "visa", "last4": "4242\n", "exp_month": 4, "exp_year": 1}]
)
async def test_a_card_that_cannot_be_read_is_unknown(
    mandates: Mandates, scripted: Stripe, face: dict[str, Any]
) -> None:
    scripted.answers = [ok(succeeded()), ok(card(card=face))]
    with pytest.raises(OutcomeUnknown):
        await mandates.query(ASKED)
    scripted.answers = [ok(succeeded(payment_method=None))]
    with pytest.raises(OutcomeUnknown):
        await mandates.query(ASKED)
