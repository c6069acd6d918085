"""Saving cards at Stripe, against scripted answers."""

import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date, timedelta, timezone
from typing import Any

import httpx
import pytest

from billing.errors import (
    GatewayMisconfigured,
    GatewayThrottled,
    InvalidRequest,
    OutcomeUnknown,
)
from billing.payment import ClientSecret, DeclineClass
from gateways.gateway import AlreadyOrdered, Opened, Refused
from gateways.mandates import (
    Mandates,
)
from tests.gateways.parties import NOW
from tests.gateways.scripted_setups import (
    ASKED,
    CANCEL,
    CREATE,
    CUSTOMER,
    DECLINED,
    DETACH,
    LIST,
    METHOD,
    NUMBER,
    ORDER,
    OTHERS,
    RETRIEVE,
    SAVED,
    SECRET,
    SETUP,
    TOO_LATE,
    card,
    setup,
    succeeded,
)
from tests.gateways.scripted_stripe import UNKNOWN, Answer, Clock, Stripe, error, gateway_at, ok
from tests.gateways.scripted_stripe import page as listed


@pytest.fixture
async def mandates(scripted: Stripe, clock: Clock) -> AsyncIterator[Mandates]:
    async with gateway_at(scripted, clock) as gateway:
        assert gateway.mandates is not None
        yield gateway.mandates


async def test_a_customer_is_made_once_whatever_repeats(
    mandates: Mandates, scripted: Stripe
) -> None:
    made = ok({"id": CUSTOMER, "object": "customer", "livemode": False})
    scripted.answers = [made] * 5
    assert await mandates.enrol("shop", "user_1", NOW) == CUSTOMER
    assert scripted.form() == {"metadata[application]": "shop", "metadata[user_id]": "user_1"}
    elsewhere = NOW.astimezone(timezone(timedelta(hours=8)))
    for application, user_id, at in (
        ("shop", "user_1", elsewhere),
        ("shop", "user_2", NOW),
        ("shop2", "user_1", NOW),
        ("shop", "user_1", NOW + timedelta(seconds=1)),
    ):
        await mandates.enrol(application, user_id, at)
    assert scripted.calls == ["POST /v1/customers"] * 5
    first, repeated, *others = (each.headers["idempotency-key"] for each in scripted.requests)
    assert first == repeated == "customer:0617d449cb2820ce16bf49aadbe4c93c:01"
    assert len({first, *others}) == 4


async def test_a_failure_kept_under_the_customers_key_is_left_behind(
    mandates: Mandates, scripted: Stripe
) -> None:
    kept = error(500, replayed=True, type="api_error")
    scripted.answers = [kept, ok({"id": CUSTOMER, "livemode": False})]
    assert await mandates.enrol("shop", "user_1", NOW) == CUSTOMER
    one, other = (each.headers["idempotency-key"] for each in scripted.requests)
    assert one.removesuffix("01") == other.removesuffix("02")
    scripted.answers = [kept, kept, kept]
    with pytest.raises(OutcomeUnknown):
        await mandates.enrol("shop", "user_1", NOW)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (error(500, type="api_error"), OutcomeUnknown),
        (httpx.ReadTimeout("late"), OutcomeUnknown),
        (error(429), GatewayThrottled),
        (error(401), GatewayMisconfigured),
        (error(400, type="idempotency_error"), GatewayMisconfigured),
        (ok({"id": CUSTOMER, "livemode": True}), OutcomeUnknown),
        (ok({"id": "pi_1", "livemode": False}), OutcomeUnknown),
    ],
)
async def test_a_customer_that_is_not_answered_for(
    mandates: Mandates, scripted: Stripe, answer: Answer, problem: type[Exception]
) -> None:
    scripted.answers = [answer]
    with pytest.raises(problem):
        await mandates.enrol("shop", "user_1", NOW)


async def test_consent_is_asked_for_once_whatever_repeats(
    mandates: Mandates, scripted: Stripe
) -> None:
    scripted.answers = [ok(setup()), ok(setup(), **{"idempotent-replayed": "true"})]
    first = await mandates.set_up(ORDER)
    assert first == await mandates.set_up(ORDER)
    assert first == Opened(
        ClientSecret(client_secret=SECRET, publishable_key="pk_test_0123456789"), reference=SETUP
    )
    assert scripted.calls == [CREATE] * 2
    assert scripted.form() == {
        "allowed_payment_method_types[0]": "card",
        "customer": CUSTOMER,
        "description": "Automatic payments",
        "metadata[method_id]": METHOD,
        "metadata[number]": NUMBER,
        "usage": "off_session",
    }
    one, other = scripted.requests
    assert one.content == other.content
    assert {each.headers["idempotency-key"] for each in (one, other)} == {f"{NUMBER}:set_up"}


@pytest.mark.parametrize("status", ["succeeded", "processing", "pondering"])
async def test_consent_that_was_given_is_asked_about(
    mandates: Mandates, scripted: Stripe, status: str
) -> None:
    scripted.answers = [ok(setup(status=status))]
    assert await mandates.set_up(ORDER) == AlreadyOrdered()


async def test_a_canceled_set_up_is_refused(mandates: Mandates, scripted: Stripe) -> None:
    scripted.answers = [ok(setup(status="canceled"))]
    outcome = await mandates.set_up(ORDER)
    assert isinstance(outcome, Refused)
    assert (outcome.failure.code, outcome.failure.decline_code) == ("mandate_refused", "canceled")
    scripted.answers = [ok(setup(status="canceled", last_setup_error=DECLINED))]
    outcome = await mandates.set_up(ORDER)
    assert isinstance(outcome, Refused)
    assert outcome.failure.decline_code == "insufficient_funds"


async def test_an_old_key_is_never_sent_again(
    mandates: Mandates, scripted: Stripe, clock: Clock
) -> None:
    clock.now = NOW + timedelta(hours=23)
    scripted.answers = [listed(setup(id="seti_other", metadata=None), setup())]
    assert isinstance(await mandates.set_up(ORDER), Opened)
    assert scripted.calls == [LIST]
    assert scripted.form() == {"customer": CUSTOMER, "limit": "100"}

    scripted.answers = [listed(), ok(setup())]
    assert isinstance(await mandates.set_up(ORDER), Opened)
    assert scripted.requests[-1].headers["idempotency-key"] == f"{NUMBER}:set_up_again"

    scripted.answers = [listed(succeeded())]
    assert await mandates.set_up(ORDER) == AlreadyOrdered()


async def test_a_key_just_young_enough_is_sent(
    mandates: Mandates, scripted: Stripe, clock: Clock
) -> None:
    clock.now = NOW + timedelta(hours=23) - timedelta(seconds=1)
    scripted.answers = [ok(setup())]
    await mandates.set_up(ORDER)
    assert scripted.requests[-1].headers["idempotency-key"] == f"{NUMBER}:set_up"


@pytest.mark.parametrize(
    "answer", [error(500, replayed=True, type="api_error"), error(400, type="idempotency_error")]
)
async def test_a_key_that_is_used_up_is_followed_by_looking(
    mandates: Mandates, scripted: Stripe, answer: httpx.Response
) -> None:
    scripted.answers = [answer, listed(setup())]
    assert isinstance(await mandates.set_up(ORDER), Opened)
    scripted.answers = [answer, listed(), ok(setup())]
    assert isinstance(await mandates.set_up(ORDER), Opened)
    assert scripted.calls[2:] == [CREATE, LIST, CREATE]
    scripted.answers = [answer, listed(), answer]
    with pytest.raises(OutcomeUnknown):
        await mandates.set_up(ORDER)


@pytest.mark.parametrize("answer", [make for _, make in UNKNOWN], ids=[name for name, _ in UNKNOWN])
async def test_without_a_whole_answer_nothing_is_known(
    mandates: Mandates, scripted: Stripe, answer: Callable[[], Answer]
) -> None:
    scripted.answers = [answer(), answer(), answer(), answer()]
    calls = (
        mandates.set_up(ORDER),
        mandates.query(ASKED),
        mandates.query(replace(ASKED, setup_reference=None)),
        mandates.revoke(ASKED),
    )
    for call in calls:
        with pytest.raises(OutcomeUnknown) as caught:
            await call
        assert "_secret_" not in "".join(traceback.format_exception(caught.value))


async def test_consent_stripe_will_not_ask_for_is_refused(
    mandates: Mandates, scripted: Stripe
) -> None:
    for answer in (
        error(400, type="invalid_request_error", code="customer_max_payment_methods"),
        error(404, type="invalid_request_error", code="resource_missing", param="customer"),
    ):
        scripted.answers = [answer]
        outcome = await mandates.set_up(ORDER)
        assert isinstance(outcome, Refused)
        told = outcome.failure
        assert (told.code, told.advice) == ("mandate_refused", DeclineClass.HARD)
    scripted.answers = [error(401)]
    with pytest.raises(GatewayMisconfigured):
        await mandates.set_up(ORDER)


@pytest.mark.parametrize("changes", [*OTHERS, {"client_secret": None}])
async def test_instructions_for_something_else_are_not_handed_out(
    mandates: Mandates, scripted: Stripe, changes: dict[str, Any]
) -> None:
    scripted.answers = [ok(setup(**changes))]
    with pytest.raises(OutcomeUnknown):
        await mandates.set_up(ORDER)


async def test_a_card_is_saved_for_a_customer_only(mandates: Mandates) -> None:
    with pytest.raises(InvalidRequest):
        await mandates.set_up(replace(ORDER, customer_reference=None))


@pytest.mark.parametrize(
    "answer",
    [
        ok(card(customer=None)),
        error(400, type="invalid_request_error", message="It is not attached to a customer."),
        error(404, type="invalid_request_error", code="resource_missing"),
    ],
)
async def test_a_saved_card_is_detached(
    mandates: Mandates, scripted: Stripe, answer: httpx.Response
) -> None:
    scripted.answers = [answer]
    await mandates.revoke(SAVED)
    assert scripted.calls == [DETACH]
    scripted.answers = [ok(succeeded()), answer]
    await mandates.revoke(ASKED)
    assert scripted.calls[1:] == [RETRIEVE, DETACH]


async def test_a_set_up_that_has_not_succeeded_is_canceled(
    mandates: Mandates, scripted: Stripe
) -> None:
    scripted.answers = [ok(setup()), ok(setup(status="canceled")), ok(setup(status="canceled"))]
    await mandates.revoke(ASKED)
    assert scripted.calls == [RETRIEVE, CANCEL, RETRIEVE]
    assert scripted.form(1) == {"cancellation_reason": "abandoned"}


async def test_a_set_up_that_succeeded_meanwhile_is_detached(
    mandates: Mandates, scripted: Stripe
) -> None:
    scripted.answers = [ok(setup()), TOO_LATE, ok(succeeded()), ok(card())]
    await mandates.revoke(ASKED)
    assert scripted.calls == [RETRIEVE, CANCEL, RETRIEVE, DETACH]


async def test_a_set_up_that_may_still_succeed_is_asked_for_again(
    mandates: Mandates, scripted: Stripe
) -> None:
    working = ok(setup(status="processing"))
    scripted.answers = [working, TOO_LATE, working]
    with pytest.raises(OutcomeUnknown):
        await mandates.revoke(ASKED)


@pytest.mark.parametrize(
    "answer", [error(500, type="api_error"), httpx.ReadTimeout("late"), error(409)]
)
async def test_an_end_that_is_not_answered_is_unknown(
    mandates: Mandates, scripted: Stripe, answer: Answer
) -> None:
    scripted.answers = [answer, ok(setup()), answer]
    for mandate in (SAVED, ASKED):
        with pytest.raises(OutcomeUnknown):
            await mandates.revoke(mandate)


async def test_ending_what_has_ended_or_never_began_changes_nothing(
    mandates: Mandates, scripted: Stripe
) -> None:
    scripted.answers = [ok(setup(status="canceled")), listed(), ok(succeeded(metadata={}))]
    await mandates.revoke(ASKED)
    await mandates.revoke(replace(ASKED, setup_reference=None))
    await mandates.revoke(ASKED)
    assert scripted.calls == [RETRIEVE, LIST, RETRIEVE]


async def test_stripe_takes_no_notice_and_keeps_no_day(
    mandates: Mandates, scripted: Stripe
) -> None:
    await mandates.announce(SAVED, 2905, "USD")
    await mandates.postpone(SAVED, date(2027, 3, 10))
    assert not scripted.calls
