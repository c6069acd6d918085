"""Disputes by the adapter, built from settings alone, at the sandbox in its own process."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from billing.dispute import DisputeStatus
from billing.errors import AnswerUntrusted, GatewayThrottled, OutcomeUnknown
from billing.payment import GatewayName
from gateways.gateway import DisputeObservation, Gateway, Order, RefundState
from gateways.registry import build_gateways
from runtime.settings import Settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.test_stripe_sandbox import new_order, opened, seen_again
from tests.gateways.test_stripe_sandbox_refunds import paid as paid_for_refund


@pytest.fixture
async def gateways(sandbox_settings: Settings) -> AsyncIterator[Mapping[GatewayName, Gateway]]:
    gateways = build_gateways(sandbox_settings)
    yield gateways
    for gateway in gateways.values():
        await gateway.aclose()


@pytest.fixture
def gateway(gateways: Mapping[GatewayName, Gateway]) -> Gateway:
    return gateways[GatewayName.STRIPE]


async def paid(gateway: Gateway, sandbox: SandboxProcess, **changes: Any) -> Order:
    order = new_order()
    outcome = await opened(gateway, order)
    await sandbox.pay(gateway="stripe", next_action=outcome.next_action.model_dump(), **changes)
    return seen_again(order, outcome)


def told(dispute: DisputeObservation) -> tuple[DisputeStatus, int, int, int | None]:
    return (
        dispute.status,
        dispute.withdrawn_minor,
        dispute.reinstated_minor,
        dispute.fee_minor,
    )


@pytest.mark.parametrize(
    ("outcome", "ended"),
    [
        ("won", (DisputeStatus.WON, 2900, 2900, 1500)),
        ("lost", (DisputeStatus.LOST, 2900, 0, 1500)),
    ],
)
async def test_a_dispute_is_followed_to_its_end(
    gateway: Gateway, sandbox: SandboxProcess, outcome: str, ended: tuple[object, ...]
) -> None:
    order = await paid(gateway, sandbox)
    assert await gateway.list_disputes(order) == []
    opened = await sandbox.dispute(reference=order.payment_id)
    [seen] = await gateway.list_disputes(order)
    assert told(seen) == (DisputeStatus.OPEN, 2900, 0, 1500)
    assert (seen.reference, seen.reason, seen.currency) == (opened["number"], "fraudulent", "USD")
    assert seen.due_by is not None
    assert seen.due_by > seen.opened_at
    await sandbox.close_dispute(order.payment_id, outcome)
    [seen] = await gateway.list_disputes(order)
    assert told(seen) == ended


async def test_an_inquiry_takes_nothing(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.dispute(reference=order.payment_id, inquiry=True)
    [seen] = await gateway.list_disputes(order)
    assert told(seen) == (DisputeStatus.WARNING, 0, 0, 0)
    await sandbox.close_dispute(order.payment_id, "won")
    [seen] = await gateway.list_disputes(order)
    assert told(seen) == (DisputeStatus.WON, 0, 0, 0)


async def test_the_disputed_card_needs_no_number_of_stripes(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = new_order()
    outcome = await opened(gateway, order)
    action = outcome.next_action.model_dump()
    await sandbox.pay(gateway="stripe", next_action=action, card="4000000000000259")
    [seen] = await gateway.list_disputes(order)
    assert seen.status is DisputeStatus.OPEN


async def test_a_disputed_charge_is_not_refunded(gateway: Gateway, sandbox: SandboxProcess) -> None:
    refund = await paid_for_refund(gateway, sandbox)
    [charge] = await sandbox.charges()
    await sandbox.dispute(reference=charge["reference"], amount=100)
    seen = await gateway.refund(refund)
    assert seen.state is RefundState.FAILED
    assert seen.failure is not None
    assert seen.failure.decline_code == "charge_disputed"


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("cut_before", OutcomeUnknown),
        ("cut_after", OutcomeUnknown),
        ("http_500", OutcomeUnknown),
        ("garbage", OutcomeUnknown),
        ("truncated", OutcomeUnknown),
        ("http_429", GatewayThrottled),
        ("wrong_currency", AnswerUntrusted),
        ("wrong_order", AnswerUntrusted),
    ],
)
async def test_a_bad_answer_is_none(
    gateway: Gateway, sandbox: SandboxProcess, fault: str, problem: type[Exception]
) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.dispute(reference=order.payment_id)
    await sandbox.fault("stripe", "dispute_query", fault)
    with pytest.raises(problem):
        await gateway.list_disputes(order)
    assert len(await gateway.list_disputes(order)) == 1


async def test_a_status_of_tomorrow_is_told_as_such(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.dispute(reference=order.payment_id)
    await sandbox.fault("stripe", "dispute_query", "unknown_status")
    [seen] = await gateway.list_disputes(order)
    assert (seen.status, seen.gateway_status) == (
        DisputeStatus.UNRECOGNISED, "requires_reflection",
    )  # fmt: skip


async def test_only_stripe_has_disputes(
    gateways: Mapping[GatewayName, Gateway], sandbox: SandboxProcess
) -> None:
    disputing = {name for name, one in gateways.items() if one.capabilities.disputes}
    assert disputing == {GatewayName.STRIPE}
    await sandbox.stop()
    for name in set(gateways) - disputing:
        assert await gateways[name].list_disputes(new_order()) == []
