"""The adapter, built from settings alone, against the sandbox in its own process."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from billing.errors import AnswerUntrusted, GatewayMisconfigured, GatewayThrottled, OutcomeUnknown
from billing.identifiers import PAYMENT, attempt_number, make_id
from billing.payment import DeclineClass, GatewayName, PaymentMethod
from gateways.gateway import Gateway, ObservedState, Opened, Order, Refused
from gateways.registry import build_gateways
from runtime.settings import Settings, load_settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.parties import make_order


def new_order(attempt: int = 1, currency: str = "USD", amount_minor: int = 2900) -> Order:
    payment_id = make_id(PAYMENT, time.time_ns() // 1_000_000, secrets.token_bytes(10))
    now = datetime.now(UTC)
    return make_order(
        PaymentMethod.CARD,
        payment_id=payment_id,
        attempt=attempt,
        number=attempt_number(payment_id, attempt),
        currency=currency,
        amount_minor=amount_minor,
        description='Gold & 会员 = 1+1 "{}"',
        created_at=now,
        expires_at=now + timedelta(minutes=30),
    )


def seen_again(order: Order, opened: Opened) -> Order:
    """The order as the record knows it once it was opened."""
    return replace(order, reference=opened.reference)


async def opened(gateway: Gateway, order: Order) -> Opened:
    outcome = await gateway.open(order)
    assert isinstance(outcome, Opened)
    return outcome


@pytest.fixture
async def gateway(sandbox_settings: Settings) -> AsyncIterator[Gateway]:
    gateways = build_gateways(sandbox_settings)
    yield gateways[GatewayName.STRIPE]
    for gateway in gateways.values():
        await gateway.aclose()


@pytest.mark.parametrize(
    ("attempt", "currency", "amount"),
    [(1, "USD", 2900), (7, "JPY", 500), (1, "ISK", 101), (1, "MGA", 50_000)],
)
async def test_a_paid_order_is_found_by_either_number(
    gateway: Gateway, sandbox: SandboxProcess, attempt: int, currency: str, amount: int
) -> None:
    order = new_order(attempt, currency, amount)
    outcome = await opened(gateway, order)
    assert (await gateway.query(order)).state is ObservedState.PENDING
    await sandbox.pay(gateway="stripe", next_action=outcome.next_action.model_dump())

    [charge] = await sandbox.charges()
    assert (charge["reference"], charge["attempt"]) == (order.payment_id, attempt)
    assert (charge["amount"], charge["currency"]) == (amount, currency)
    seen = await gateway.query(order)
    assert seen.state is ObservedState.PAID
    assert seen.receipt is not None
    assert (seen.receipt.amount_minor, seen.receipt.currency) == (amount, currency)
    assert seen == await gateway.query(seen_again(order, outcome))
    assert seen == await gateway.query(order, gateway_number=seen.receipt.gateway_reference)
    assert seen == await gateway.query(order, gateway_number=outcome.reference)
    await gateway.close(seen_again(order, outcome))
    assert seen == await gateway.query(order)


async def test_an_order_among_too_many_is_found_by_search(
    gateway: Gateway, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.stripe.intents.MOST_PAGES", 0)
    order, another = new_order(), new_order()
    outcome = await opened(gateway, order)
    await sandbox.pay(gateway="stripe", next_action=outcome.next_action.model_dump())
    seen = await gateway.query(order)
    assert (seen.state, seen.reference) == (ObservedState.PAID, outcome.reference)
    assert seen == await gateway.query(seen_again(order, outcome))
    with pytest.raises(OutcomeUnknown, match="search"):
        await gateway.query(another)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (None, DeclineClass.SOFT),
        ("insufficient_funds", DeclineClass.SOFT),
        ("stolen_card", DeclineClass.HARD),
        ("expired_card", DeclineClass.NEEDS_CUSTOMER),
    ],
)
async def test_a_decline_leaves_the_order_open(
    gateway: Gateway, sandbox: SandboxProcess, code: str | None, advice: DeclineClass
) -> None:
    order = new_order()
    outcome = await opened(gateway, order)
    wanted = {"decline_code": code} if code else {}
    await sandbox.decline(gateway="stripe", next_action=outcome.next_action.model_dump(), **wanted)
    seen = await gateway.query(order)
    assert (seen.state, seen.receipt) == (ObservedState.PENDING, None)
    assert seen.failure is not None
    assert seen.failure.advice is advice
    assert code in (None, seen.failure.decline_code)

    await sandbox.pay(gateway="stripe", next_action=outcome.next_action.model_dump())
    seen = await gateway.query(order)
    assert (seen.state, seen.failure) == (ObservedState.PAID, None)


async def test_a_closed_order_is_dead(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = new_order()
    await gateway.close(order)
    assert (await gateway.query(order)).state is ObservedState.ABSENT
    await opened(gateway, order)
    for _ in range(2):
        await gateway.close(order)
        assert (await gateway.query(order)).state is ObservedState.DEAD
    assert await sandbox.charges() == []


async def test_an_open_of_unknown_outcome_is_repeated_to_the_same_order(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    for fault in ("cut_after", "garbage", "truncated", "cut_before", "http_500"):
        order = new_order()
        await sandbox.fault("stripe", "open", fault)
        with pytest.raises(OutcomeUnknown):
            await gateway.open(order)
        found_early = await gateway.query(order)
        outcome = await opened(gateway, order)
        assert outcome == await opened(gateway, order)
        assert found_early.reference in (None, outcome.reference)
        was_done = fault in ("cut_after", "garbage", "truncated")
        assert (found_early.state is ObservedState.PENDING) is was_done, fault


async def test_a_failure_stripe_keeps_repeating_is_seen_through(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = new_order()
    await sandbox.fault("stripe", "open", "http_500_after")
    with pytest.raises(OutcomeUnknown):
        await gateway.open(order)
    outcome = await opened(gateway, order)
    assert outcome.reference == (await gateway.query(order)).reference


async def test_a_throttled_open_has_done_nothing(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = new_order()
    await sandbox.fault("stripe", "open", "http_429", retry_after=7)
    with pytest.raises(GatewayThrottled) as caught:
        await gateway.open(order)
    assert caught.value.retry_after_seconds == 7
    assert (await gateway.query(order)).state is ObservedState.ABSENT


@pytest.mark.parametrize("operation", ["query", "close"])
async def test_a_call_without_a_whole_answer_is_unknown(
    gateway: Gateway, sandbox: SandboxProcess, operation: str
) -> None:
    faults = ("cut_before", "cut_after", "garbage", "truncated", "http_500", "http_500_after")
    for fault in faults:
        order = new_order()
        order = seen_again(order, await opened(gateway, order))
        await sandbox.fault("stripe", operation, fault, reference=order.payment_id)
        with pytest.raises(OutcomeUnknown):
            await (gateway.query(order) if operation == "query" else gateway.close(order))
        await gateway.close(order)
        assert (await gateway.query(order)).state is ObservedState.DEAD, fault


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_amount", "amount_mismatch"),
        ("wrong_currency", "currency_mismatch"),
        ("wrong_order", "order_mismatch"),
    ],
)
async def test_an_altered_answer_is_untrusted(
    gateway: Gateway, sandbox: SandboxProcess, fault: str, reason: str
) -> None:
    order = new_order()
    order = seen_again(order, await opened(gateway, order))
    await sandbox.pay(gateway="stripe", reference=order.payment_id)
    await sandbox.fault("stripe", "query", fault)
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.query(order)
    assert caught.value.reason == reason
    assert (await gateway.query(order)).state is ObservedState.PAID


async def test_a_word_nobody_knows_is_unrecognised(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = new_order()
    await opened(gateway, order)
    await sandbox.fault("stripe", "query", "unknown_status")
    seen = await gateway.query(order)
    assert seen.state is ObservedState.UNRECOGNISED
    assert seen.status == "requires_reflection"


async def test_an_amount_too_small_is_refused(gateway: Gateway) -> None:
    outcome = await gateway.open(new_order(amount_minor=1))
    assert isinstance(outcome, Refused)
    assert outcome.failure.decline_code == "amount_too_small"


async def test_opening_side_by_side_places_one_order(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = new_order()
    outcomes = await asyncio.gather(
        *(gateway.open(order) for _ in range(8)), return_exceptions=True
    )
    placed = {outcome.reference for outcome in outcomes if isinstance(outcome, Opened)}
    others = [outcome for outcome in outcomes if not isinstance(outcome, Opened)]
    assert len(placed) == 1
    assert all(isinstance(outcome, OutcomeUnknown) for outcome in others)


async def test_a_wrong_key_is_for_an_operator(
    sandbox_settings: Settings, clean_settings: pytest.MonkeyPatch
) -> None:
    clean_settings.setenv("EVERBILL_STRIPE_SECRET_KEY", "sk_test_ofanotheraccount")
    gateway = build_gateways(load_settings())[GatewayName.STRIPE]
    with pytest.raises(GatewayMisconfigured):
        await gateway.open(new_order())
    await gateway.aclose()
