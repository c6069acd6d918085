"""Refunds by the adapter, built from settings alone, at the sandbox in its own process."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from billing.errors import AnswerUntrusted, BalanceInsufficient, OutcomeUnknown
from billing.identifiers import REFUND, make_id
from billing.payment import GatewayName
from gateways.gateway import Gateway, RefundOrder, RefundState
from gateways.registry import build_gateways
from runtime.settings import Settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.test_stripe_sandbox import new_order, opened


@pytest.fixture
async def gateway(sandbox_settings: Settings) -> AsyncIterator[Gateway]:
    gateways = build_gateways(sandbox_settings)
    yield gateways[GatewayName.STRIPE]
    for gateway in gateways.values():
        await gateway.aclose()


async def paid(gateway: Gateway, sandbox: SandboxProcess, **changes: Any) -> RefundOrder:
    """A refund of 900 of an order that is paid."""
    order = new_order()
    outcome = await opened(gateway, order)
    await sandbox.pay(gateway="stripe", next_action=outcome.next_action.model_dump(), **changes)
    receipt = (await gateway.query(order)).receipt
    assert receipt is not None
    return RefundOrder(
        number=make_id(REFUND, time.time_ns() // 1_000_000, secrets.token_bytes(10)),
        payment_number=order.number,
        payment_reference=receipt.gateway_reference,
        paid_minor=receipt.amount_minor,
        amount_minor=900,
        currency=order.currency,
        reason='"会员" &+= 1',
        created_at=order.created_at,
    )


async def given_back(sandbox: SandboxProcess) -> int:
    [charge] = await sandbox.charges()
    amount: int = charge["refunded"]
    return amount


async def test_a_refund_is_made_once_and_found_by_either_number(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = await paid(gateway, sandbox)
    assert (await gateway.query_refund(order)).state is RefundState.ABSENT
    seen = await gateway.refund(order)
    assert seen.state is RefundState.SUCCEEDED
    assert seen == await gateway.refund(order)
    assert seen == await gateway.query_refund(order)
    assert seen == await gateway.query_refund(replace(order, reference=seen.reference))
    assert await given_back(sandbox) == 900

    too_much = replace(order, number=f"{order.number}x", amount_minor=2001)
    refused = await gateway.refund(too_much)
    assert refused.state is RefundState.FAILED
    assert await given_back(sandbox) == 900


@pytest.mark.parametrize("fault", ["cut_before", "cut_after", "http_500_after", "garbage"])
async def test_a_refund_of_unknown_outcome_is_made_once(
    gateway: Gateway, sandbox: SandboxProcess, fault: str
) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.fault("stripe", "refund", fault)
    with pytest.raises(OutcomeUnknown):
        await gateway.refund(order)
    assert (await gateway.refund(order)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == 900


@pytest.mark.parametrize("operation", ["refund", "refund_query"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_amount", "amount_mismatch"),
        ("wrong_currency", "currency_mismatch"),
        ("wrong_order", "order_mismatch"),
    ],
)
async def test_a_wrong_answer_is_untrusted(
    gateway: Gateway, sandbox: SandboxProcess, operation: str, fault: str, reason: str
) -> None:
    order = await paid(gateway, sandbox)
    if operation == "refund_query":
        await gateway.refund(order)
    await sandbox.fault("stripe", operation, fault)
    with pytest.raises(AnswerUntrusted) as caught:
        await gateway.refund(order)
    assert caught.value.reason == reason
    assert (await gateway.query_refund(order)).state is RefundState.SUCCEEDED


async def test_an_account_topped_up_pays(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.fault("stripe", "refund", "balance_insufficient")
    young = replace(order, created_at=order.created_at + timedelta(minutes=5))
    for _ in range(2):
        with pytest.raises(BalanceInsufficient):
            await gateway.refund(young)
    old = replace(order, created_at=order.created_at - timedelta(minutes=1))
    assert (await gateway.refund(old)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == 900


async def test_a_refund_may_take_its_time_or_come_back(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order = await paid(gateway, sandbox, card="4000000000007726")
    assert (await gateway.refund(order)).state is RefundState.PROCESSING
    assert (await gateway.query_refund(order)).state is RefundState.SUCCEEDED
    [charge] = await sandbox.charges()
    wanted = {"gateway": "stripe", "reference": charge["reference"], "outcome": "fail"}
    assert (await sandbox.control.post("/control/refunds", json=wanted)).status_code == 200
    seen = await gateway.refund(order)
    assert seen.state is RefundState.FAILED
    assert seen.failure is not None
    assert seen.failure.decline_code == "expired_or_canceled_card"
    assert await given_back(sandbox) == 0
